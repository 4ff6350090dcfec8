/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What an Ethernet link needs to work at all: ARP and neighbour discovery, no more of either than that. */
#ifndef LATTICE_LINK_H
#define LATTICE_LINK_H

#include "flow.h"

struct arp {
	__u16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__u16 operation;
	__u8 sender_mac[6], sender_ip[4], target_mac[6], target_ip[4];
};

static __always_inline enum reason judge_arp(struct __sk_buff *skb, const struct packet *p)
{
	struct address sender = {};
	struct arp h;

	if (load(skb, p, p->l3, &h, sizeof(h)) || h.hardware != bpf_htons(1) || h.protocol != bpf_htons(ETH_P_IP) ||
	    h.hardware_len != 6 || h.protocol_len != 4)
		return MALFORMED;
	__builtin_memcpy(&sender.word[0], h.sender_ip, 4);
	/* 0 is a probe (RFC 5227). */
	if (p->direction == EGRESS && sender.word[0] && !is_own(4, &sender))
		return SPOOFED;
	return LINK_CONTROL;
}

static __always_inline bool is_link_local(const struct address *a)
{
	return (a->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline bool is_group(__u8 family, const struct address *a)
{
	if (family == 6)
		return (a->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
	/* 224/4, and 240/4 up to the broadcast address. */
	return bpf_ntohl(a->word[0]) >= 0xe0000000;
}

static __always_inline bool is_unspecified(const struct address *a)
{
	return !a->word[0] && !a->word[1] && !a->word[2] && !a->word[3];
}

static __always_inline enum reason judge_nd(const struct packet *p)
{
	const struct address *local = &p->key.local;

	if (p->direction == INGRESS)
		return LINK_CONTROL;
	if (!is_own(6, local) && !is_link_local(local) && !is_unspecified(local))
		return SPOOFED;
	/* An agent that advertises itself as a router would become its host's. */
	return p->icmp_type == 134 ? PROTOCOL : LINK_CONTROL;
}

static __always_inline enum reason judge_link(struct __sk_buff *skb, const struct packet *p)
{
	return p->key.family ? judge_nd(p) : judge_arp(skb, p);
}

#endif
