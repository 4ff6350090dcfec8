/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* From bytes to a flow key. Every load is bounded by the length that the IP header claims, not by the frame's: what a
 * receiver cuts off as padding must not decide. */
#ifndef LATTICE_PARSE_H
#define LATTICE_PARSE_H

#include <linux/if_ether.h>

#include "headers.h"

#define MAX_EXTENSIONS 6
/* Extension headers by their numbers (RFC 8200, 4). */
enum extension { HOP_BY_HOP = 0, ROUTING = 43, FRAGMENTED = 44, DESTINATION = 60 };
#define BIT(n) (1ULL << (n))

enum fragment { WHOLE, FIRST, LATER };
/* What an Ethernet link needs to work at all. */
enum control { NO_CONTROL, ARP, BAD_ARP, NEIGHBOUR };

struct packet {
	struct flow_key key;
	__u32 l3, l4, end; /* offsets into the frame */
	__u32 quote;       /* offset of the packet that an ICMP error quotes, or 0 */
	__u32 link;
	__u32 fragment_id;
	__u32 sender; /* of ARP: its IPv4 address */
	__u8 direction, fragment;
	__u8 opener;  /* a bare SYN or an echo request: never a reply */
	__u8 control; /* an enum control */
	__u8 group;   /* the frame's destination is a group address */
	__u8 owner;   /* of the local address: an enum owner */
	__u8 reason;  /* why it cannot be judged, or 0 */
	__u8 icmp_type, tcp_flags, hop_limit;
	__u16 pad; /* Linux 6.1 lets no function have what was not written */
};

static __always_inline int load(struct __sk_buff *skb, const struct packet *p, __u32 at, void *to, __u32 len)
{
	if (at + len > p->end)
		return -1;
	return bpf_skb_load_bytes(skb, at, to, len);
}

/* From the packet itself where it can be, which is sooner than by a helper. */
static __always_inline int load_first(struct __sk_buff *skb, __u8 *first)
{
	const __u8 *at = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (at + 1 > end)
		return bpf_skb_load_bytes(skb, 0, first, 1);
	*first = *at;
	return 0;
}

static __always_inline bool is_icmp_error(__u8 proto, __u8 type)
{
	if (proto == PROTO_ICMP)
		return type == 3 || type == 11 || type == 12;
	return type >= 1 && type <= 4;
}

static __always_inline enum reason parse_icmp(struct __sk_buff *skb, __u32 l2, struct packet *p)
{
	bool v6 = p->key.proto == PROTO_ICMPV6;
	struct icmp h;

	if (load(skb, p, p->l4, &h, sizeof(h)))
		return MALFORMED;
	p->icmp_type = h.type;
	p->opener = h.type == (v6 ? 128 : 8);
	if (p->opener || h.type == (v6 ? 129 : 0)) {
		p->key.local_port = h.id;
	} else if (is_icmp_error(p->key.proto, h.type)) {
		p->quote = p->l4 + sizeof(h);
	} else {
		/* Apart from every echo identifier, which leaves remote_port 0. */
		p->key.local_port = h.type;
		p->key.remote_port = bpf_htons(1);
	}
	/* Neighbour discovery is believed only with hop limit 255 (RFC 4861, 6.1 and 7.1). */
	if (l2 && v6 && h.type >= 133 && h.type <= 136 && p->hop_limit == 255 && p->fragment == WHOLE)
		p->control = NEIGHBOUR;
	return 0;
}

static __always_inline enum reason parse_transport(struct __sk_buff *skb, __u32 l2, struct packet *p)
{
	bool v6 = p->key.family == 6, out = p->direction == EGRESS;
	__u8 proto = p->key.proto, icmp = v6 ? PROTO_ICMPV6 : PROTO_ICMP;
	struct tcp h;

	/* A later fragment of IPv6 names the first extension header of the datagram, not its protocol. */
	if (p->fragment == LATER && v6)
		return 0;
	if (proto != PROTO_TCP && proto != PROTO_UDP && proto != icmp)
		return PROTOCOL;
	if (p->fragment == LATER)
		return 0;
	if (proto == icmp)
		return parse_icmp(skb, l2, p);
	if (proto == PROTO_TCP) {
		if (load(skb, p, p->l4, &h, sizeof(h)))
			return MALFORMED;
		p->tcp_flags = h.flags;
		p->opener = (h.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	} else if (load(skb, p, p->l4, &h, 8)) {
		return MALFORMED;
	}
	p->key.local_port = out ? h.source : h.destination;
	p->key.remote_port = out ? h.destination : h.source;
	return 0;
}

static __always_inline enum reason parse_v4(struct __sk_buff *skb, struct packet *p)
{
	bool out = p->direction == EGRESS;
	struct ipv4 h;
	__u16 fragment;

	if (load(skb, p, p->l3, &h, sizeof(h)) || h.version_ihl >> 4 != 4)
		return MALFORMED;
	p->end = p->l3 + bpf_ntohs(h.total);
	p->l4 = p->l3 + V4_HEADER;
	if (p->end < p->l4 || p->end > skb->len || (h.version_ihl & 15) < 5)
		return MALFORMED;
	p->key.local.word[0] = out ? h.source : h.destination;
	p->key.remote.word[0] = out ? h.destination : h.source;
	p->key.family = 4;
	p->key.proto = h.proto;
	/* Options are for routers; source routes among them would make the destination field a lie. */
	if (h.version_ihl != 0x45)
		return PROTOCOL;
	fragment = bpf_ntohs(h.fragment);
	p->fragment_id = h.id;
	if (fragment & 0x1fff)
		p->fragment = LATER;
	else if (fragment & 0x2000)
		p->fragment = FIRST;
	return 0;
}

static __always_inline bool is_mapped(const struct address *a)
{
	return !a->word[0] && !a->word[1] && a->word[2] == bpf_htonl(0xffff);
}

/* By a set of what may still come, not by what was seen: the verifier then need not tell apart how a header was reached. */
static __always_inline enum reason parse_extensions(struct __sk_buff *skb, struct packet *p, __u8 next)
{
	const __u64 all = BIT(HOP_BY_HOP) | BIT(ROUTING) | BIT(FRAGMENTED) | BIT(DESTINATION);
	__u64 left = all;
	struct {
		__u8 next, length;
		__u16 rest; /* of a routing header: type, segments left; of a fragment header: offset and M */
	} h;

#pragma clang loop unroll(disable)
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		p->key.proto = next;
		if (next > DESTINATION || !(all >> next & 1))
			return 0;
		if (load(skb, p, p->l4, &h, sizeof(h)) || !(left >> next & 1))
			return MALFORMED;
		left &= ~BIT(HOP_BY_HOP);
		if (next == FRAGMENTED) {
			__u16 offset = bpf_ntohs(h.rest);

			if (load(skb, p, p->l4 + 4, &p->fragment_id, 4))
				return MALFORMED;
			left &= ~BIT(FRAGMENTED);
			p->l4 += 8;
			if (offset >> 3) {
				p->fragment = LATER;
				p->key.proto = h.next;
				return 0;
			}
			if (offset & 1)
				p->fragment = FIRST;
		} else {
			/* Segments left: the packet goes on to a destination that is not in the header. */
			if (next == ROUTING && bpf_ntohs(h.rest) & 0xff)
				return PROTOCOL;
			p->l4 += ((__u32)h.length + 1) * 8;
		}
		next = h.next;
	}
	return MALFORMED;
}

static __always_inline enum reason parse_v6(struct __sk_buff *skb, struct packet *p)
{
	bool out = p->direction == EGRESS;
	struct ipv6 h;

	if (load(skb, p, p->l3, &h, sizeof(h)) || bpf_ntohl(h.version_class_label) >> 28 != 6)
		return MALFORMED;
	p->l4 = p->l3 + V6_HEADER;
	p->end = p->l4 + bpf_ntohs(h.payload);
	if (p->end > skb->len)
		return MALFORMED;
	p->key.family = 6;
	p->hop_limit = h.hop_limit;
	p->key.local = out ? h.source : h.destination;
	p->key.remote = out ? h.destination : h.source;
	/* Never on a wire (RFC 4291, 2.5.5.2): some stack would take it for IPv4. */
	if (is_mapped(&h.source) || is_mapped(&h.destination))
		return MALFORMED;
	return parse_extensions(skb, p, h.next);
}

/* The key of the packet that an ICMP error quotes, in the orientation of the flow. The quoted packet went the other
 * way: an error that comes in quotes what we sent. */
static __noinline int parse_quote(struct __sk_buff *skb, const struct packet *p, struct flow_key *key)
{
	bool v4 = p->key.family == 4, ours = p->direction == INGRESS;
	__u32 at = p->quote, l4;
	__u16 ports[2];

	key->family = p->key.family;
	if (v4) {
		struct ipv4 h;

		if (load(skb, p, at, &h, sizeof(h)) || h.version_ihl != 0x45)
			return -1;
		key->local.word[0] = ours ? h.source : h.destination;
		key->remote.word[0] = ours ? h.destination : h.source;
		key->proto = h.proto;
		l4 = at + V4_HEADER;
	} else {
		struct ipv6 h;

		if (load(skb, p, at, &h, sizeof(h)))
			return -1;
		key->local = ours ? h.source : h.destination;
		key->remote = ours ? h.destination : h.source;
		key->proto = h.next;
		l4 = at + V6_HEADER;
	}
	if (key->proto == PROTO_TCP || key->proto == PROTO_UDP) {
		if (load(skb, p, l4, ports, 4))
			return -1;
		key->local_port = ours ? ports[0] : ports[1];
		key->remote_port = ours ? ports[1] : ports[0];
		return 0;
	}
	return key->proto == (v4 ? PROTO_ICMP : PROTO_ICMPV6) ? load(skb, p, l4 + 4, &key->local_port, 2) : -1;
}

static __always_inline void parse_arp(struct __sk_buff *skb, struct packet *p)
{
	struct arp h;

	p->control = BAD_ARP;
	if (load(skb, p, p->l3, &h, sizeof(h)) || h.hardware != bpf_htons(1) || h.protocol != bpf_htons(ETH_P_IP) ||
	    h.hardware_len != 6 || h.protocol_len != 4)
		return;
	p->control = ARP;
	__builtin_memcpy(&p->sender, h.sender_ip, 4);
}

/* 0, or why the packet cannot be judged. Never asks skb->protocol: the sender of an AF_PACKET frame chooses it. */
static __always_inline enum reason parse(struct __sk_buff *skb, __u32 l2, struct packet *p)
{
	enum reason r;
	__u16 type;

	p->l3 = l2;
	p->end = skb->len;
	if (l2) {
		struct ethhdr h;

		if (load(skb, p, 0, &h, sizeof(h)))
			return MALFORMED;
		type = h.h_proto;
		p->group = h.h_dest[0] & 1;
		if (skb->vlan_present)
			return PROTOCOL;
		if (type == bpf_htons(ETH_P_ARP)) {
			parse_arp(skb, p);
			return 0;
		}
	} else {
		__u8 first;

		if (load_first(skb, &first))
			return MALFORMED;
		type = first >> 4 == 4 ? bpf_htons(ETH_P_IP) : first >> 4 == 6 ? bpf_htons(ETH_P_IPV6) : 0;
	}
	if (type == bpf_htons(ETH_P_IP))
		r = parse_v4(skb, p);
	else if (type == bpf_htons(ETH_P_IPV6))
		r = parse_v6(skb, p);
	else
		r = PROTOCOL;
	return r ?: parse_transport(skb, l2, p);
}

#endif
