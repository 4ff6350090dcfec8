/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* From bytes to a flow key. Every load is bounded by the length that the IP header claims, not by the frame's: what a
 * receiver cuts off as padding must not decide. */
#ifndef LATTICE_PARSE_H
#define LATTICE_PARSE_H

#include <linux/if_ether.h>

#include "headers.h"

#define MAX_EXTENSIONS 6

enum fragment { WHOLE, FIRST, LATER };

struct packet {
	struct flow_key key;
	__u32 l3, l4, end; /* offsets into the frame */
	__u32 quote;       /* offset of the packet that an ICMP error quotes, or 0 */
	__u32 fragment_id;
	__u8 direction, fragment;
	__u8 opener;  /* a bare SYN or an echo request: never a reply */
	__u8 control; /* ARP or neighbour discovery on an Ethernet link */
	__u8 group;   /* the frame's destination is a group address */
	__u8 owner;   /* of the local address: an enum owner */
	__u8 icmp_type, tcp_flags, hop_limit;
};

static __always_inline int load(struct __sk_buff *skb, const struct packet *p, __u32 at, void *to, __u32 len)
{
	if (at + len > p->end)
		return -1;
	return bpf_skb_load_bytes(skb, at, to, len);
}

static __always_inline void orient(struct packet *p, const struct address *source, const struct address *destination)
{
	p->key.local = p->direction == EGRESS ? *source : *destination;
	p->key.remote = p->direction == EGRESS ? *destination : *source;
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
		p->control = 1;
	return 0;
}

static __always_inline enum reason parse_transport(struct __sk_buff *skb, __u32 l2, struct packet *p)
{
	bool v6 = p->key.family == 6;
	struct tcp h;

	/* A later fragment of IPv6 names the first extension header of the datagram, not its protocol. */
	if (p->fragment == LATER && v6)
		return 0;
	switch (p->key.proto) {
	case PROTO_TCP:
	case PROTO_UDP:
		break;
	case PROTO_ICMP:
	case PROTO_ICMPV6:
		if ((p->key.proto == PROTO_ICMPV6) == v6)
			break;
	default:
		return PROTOCOL;
	}
	if (p->fragment == LATER)
		return 0;
	if (p->key.proto == PROTO_ICMP || p->key.proto == PROTO_ICMPV6)
		return parse_icmp(skb, l2, p);
	if (p->key.proto == PROTO_TCP) {
		if (load(skb, p, p->l4, &h, sizeof(h)))
			return MALFORMED;
		p->tcp_flags = h.flags;
		p->opener = (h.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	} else if (load(skb, p, p->l4, &h, 8)) {
		return MALFORMED;
	}
	p->key.local_port = p->direction == EGRESS ? h.source : h.destination;
	p->key.remote_port = p->direction == EGRESS ? h.destination : h.source;
	return 0;
}

static __always_inline enum reason parse_v4(struct __sk_buff *skb, struct packet *p)
{
	struct address source = {}, destination = {};
	struct ipv4 h;
	__u16 fragment;

	if (load(skb, p, p->l3, &h, sizeof(h)) || h.version_ihl >> 4 != 4)
		return MALFORMED;
	p->end = p->l3 + bpf_ntohs(h.total);
	p->l4 = p->l3 + V4_HEADER;
	if (p->end < p->l4 || p->end > skb->len || (h.version_ihl & 15) < 5)
		return MALFORMED;
	source.word[0] = h.source;
	destination.word[0] = h.destination;
	p->key.family = 4;
	p->key.proto = h.proto;
	orient(p, &source, &destination);
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

static __always_inline enum reason parse_extensions(struct __sk_buff *skb, struct packet *p, __u8 next)
{
	struct {
		__u8 next, length;
		__u16 rest; /* of a routing header: type, segments left; of a fragment header: offset and M */
	} h;
	bool fragmented = false;

	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		p->key.proto = next;
		if (next != 0 && next != 43 && next != 44 && next != 60)
			return 0;
		if (load(skb, p, p->l4, &h, sizeof(h)) || (next == 0 && i > 0))
			return MALFORMED;
		if (next == 44) {
			__u16 offset = bpf_ntohs(h.rest);

			if (fragmented || load(skb, p, p->l4 + 4, &p->fragment_id, 4))
				return MALFORMED;
			fragmented = true;
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
			if (next == 43 && bpf_ntohs(h.rest) & 0xff)
				return PROTOCOL;
			p->l4 += ((__u32)h.length + 1) * 8;
		}
		next = h.next;
	}
	return MALFORMED;
}

static __always_inline enum reason parse_v6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6 h;

	if (load(skb, p, p->l3, &h, sizeof(h)) || bpf_ntohl(h.version_class_label) >> 28 != 6)
		return MALFORMED;
	p->l4 = p->l3 + V6_HEADER;
	p->end = p->l4 + bpf_ntohs(h.payload);
	if (p->end > skb->len)
		return MALFORMED;
	p->key.family = 6;
	p->hop_limit = h.hop_limit;
	orient(p, &h.source, &h.destination);
	/* Never on a wire (RFC 4291, 2.5.5.2): some stack would take it for IPv4. */
	if (is_mapped(&h.source) || is_mapped(&h.destination))
		return MALFORMED;
	return parse_extensions(skb, p, h.next);
}

/* 0, or why the packet cannot be judged. Never asks skb->protocol: the sender of an AF_PACKET frame chooses it. */
static __always_inline enum reason parse(struct __sk_buff *skb, __u32 l2, struct packet *p)
{
	enum reason r;
	__u16 type;
	__u8 first;

	p->l3 = l2;
	p->end = skb->len;
	if (load(skb, p, 0, &first, 1))
		return MALFORMED;
	if (l2) {
		if (load(skb, p, l2 - 2, &type, 2))
			return MALFORMED;
		p->group = first & 1;
		if (skb->vlan_present)
			return PROTOCOL;
		if (type == bpf_htons(ETH_P_ARP)) {
			p->control = 1;
			return 0;
		}
	} else {
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
