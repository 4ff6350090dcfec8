/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Headers as they are on the wire, fields in network order. */
#ifndef LATTICE_HEADERS_H
#define LATTICE_HEADERS_H

#include "abi.h"

#define V4_HEADER 20
#define V6_HEADER 40

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct ipv4 {
	__u8 version_ihl, tos;
	__u16 total, id, fragment;
	__u8 ttl, proto;
	__u16 checksum;
	__u32 source, destination;
};

struct ipv6 {
	__u32 version_class_label;
	__u16 payload;
	__u8 next, hop_limit;
	struct address source, destination;
};

struct tcp {
	__u16 source, destination;
	__u32 seq, ack;
	__u8 offset, flags;
	__u16 window, checksum, urgent;
};

struct arp {
	__u16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__u16 operation;
	__u8 sender_mac[6], sender_ip[4], target_mac[6], target_ip[4];
};

struct icmp {
	__u8 type, code;
	__u16 checksum;
	__u16 id, seq;
};

#endif
