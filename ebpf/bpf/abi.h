/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the program and its loader say to each other. src/abi.rs is the other side; both assert every size and offset. */
#ifndef LATTICE_ABI_H
#define LATTICE_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define SLOTS 4 /* policies in the maps: one in force, and before it those that packets may still be judged by */
#define INLINE_RANGES 6
#define COUNTED_RULES 512 /* rules below this number have a counter of their own from the start */

#define ANY_LINK 0 /* no link has this index */

#define PROTO_ANY 0
#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_ICMPV6 58

enum direction { EGRESS = 0, INGRESS = 1 };
enum action { ALLOW = 1, DENY = 2 };

/* The words of CONFIG: the policy in force; the networks whose packets are confined to one link, as they stand in a packet: that of IPv4,
 * its address in the high half and its mask in the low half; the first eight bytes of that of IPv6, and of its mask; that link, or 0. */
enum config_word { IN_FORCE, CONFINED, CONFINED6, CONFINED6_MASK, CONFINED_TO, CONFIG_WORDS };

/* The numbers of lattice_policy::Reason, which are indices of struct stats. The others count what did not fit. */
enum reason {
	LOST = 0, /* events, into the ring */
	RULE_ALLOW = 1,
	RULE_DENY = 2,
	DEFAULT_DENY = 3,
	ESTABLISHED = 4,
	MALFORMED = 5,
	PROTOCOL = 6,
	FRAGMENT = 7,
	SPOOFED = 8,
	MULTICAST = 9,
	NO_POLICY = 10,
	LINK_CONTROL = 11,
	UNTRACKED = 14, /* allowed flows or first fragments, into their map: what should follow them is denied */
	UNCOUNTED = 15, /* packets, into HIGH_COUNTERS */
	REASONS = 16,
};

struct stats {
	__u64 count[REASONS];
};

/* Addresses are in network order; an IPv4 address is the first word, the others are 0. */
struct address {
	__u32 word[4];
};

struct prefix_key {
	__u8 slot, direction, family; /* family: 4 or 6 */
	__u8 pad;
	struct address net;
};

struct range {
	__u16 lo, hi; /* host order */
	__u8 proto;   /* PROTO_ANY, PROTO_TCP, PROTO_UDP or PROTO_ICMP (which is ICMPv6 for IPv6) */
	__u8 action;
	__u8 every_port; /* no port was named: fits ICMP too, which a range of all 65536 ports does not */
	__u8 pad;
	__u32 rule;
};

struct prefix_value {
	__u32 set; /* where to look in PORTS when `count` is 0; 0 is nowhere */
	__u32 count;
	struct range ranges[INLINE_RANGES];
};

/* A name's address, in the policy of one slot. */
struct pin_key {
	__u8 slot, family;
	__u16 pad;
	struct address address;
};

struct pin_lines {
	__u64 until_ns; /* CLOCK_BOOTTIME */
	__u32 epoch, count;
	struct range ranges[INLINE_RANGES];
};

struct pin {
	struct bpf_spin_lock lock; /* the loader replaces `lines` in place (BPF_F_LOCK) */
	__u32 pad;
	struct pin_lines lines;
};

struct port_key {
	__u32 set;
	__u8 proto, slot;
	__u16 port; /* network order, so that its leading bits are a prefix */
};

struct port_value {
	__u32 action, rule;
};

struct own_key {
	__u32 family;
	struct address address;
};

/* One key for both directions of a flow. ICMP echo has its identifier in local_port. */
struct flow_key {
	struct address local, remote;
	__u16 local_port, remote_port; /* network order */
	__u8 proto, family;
	__u16 pad;
};

struct flow_value {
	__u64 seen_ns;
	__u32 epoch, rule;
	__u32 direction, pad; /* who opened it */
};

struct denied_key {
	struct flow_key flow;
	__u8 direction, reason;
	__u16 pad;
};

struct fragment_key {
	struct address source, destination;
	__u32 id;
	__u8 family, proto; /* proto: 0 for IPv6, whose later fragments do not say */
	__u8 direction, pad;
};

struct fragment_value {
	__u64 seen_ns;
	__u32 epoch, rule;
};

struct counter_key {
	__u32 epoch, rule;
};

struct counter {
	__u64 packets, bytes;
};

struct event {
	__u64 at_ns; /* CLOCK_BOOTTIME */
	struct flow_key flow;
	__u32 rule, generation, bytes, link; /* bytes and link are 0 for a call that was refused before any packet */
	__u8 direction, reason;
	__u8 pad[6];
};

#define LAYOUT(type, size) _Static_assert(sizeof(struct type) == (size), "size of " #type)
#define FIELD(type, field, at) _Static_assert(offsetof(struct type, field) == (at), "offset of " #type "." #field)
LAYOUT(prefix_key, 20);
FIELD(prefix_key, net, 4);
LAYOUT(range, 12);
FIELD(range, proto, 4);
FIELD(range, every_port, 6);
FIELD(range, rule, 8);
LAYOUT(prefix_value, 80);
FIELD(prefix_value, ranges, 8);
LAYOUT(stats, 128);
LAYOUT(pin_key, 20);
FIELD(pin_key, address, 4);
LAYOUT(pin, 96);
FIELD(pin, lines.until_ns, 8);
FIELD(pin, lines.epoch, 16);
FIELD(pin, lines.ranges, 24);
LAYOUT(counter_key, 8);
LAYOUT(counter, 16);
LAYOUT(port_key, 8);
FIELD(port_key, port, 6);
LAYOUT(port_value, 8);
LAYOUT(own_key, 20);
LAYOUT(flow_key, 40);
FIELD(flow_key, local_port, 32);
FIELD(flow_key, proto, 36);
LAYOUT(flow_value, 24);
LAYOUT(denied_key, 44);
LAYOUT(fragment_key, 40);
LAYOUT(fragment_value, 16);
LAYOUT(event, 72);
FIELD(event, rule, 48);
FIELD(event, bytes, 56);
FIELD(event, direction, 64);

#endif
