/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Says no at once: a denied packet becomes, in place, the answer its sender would get from a closed door. */
#ifndef LATTICE_REFUSE_H
#define LATTICE_REFUSE_H

#include <linux/pkt_cls.h>

#include "flow.h"

/* Tells the ingress program that a packet is our own answer. No peer can set it: the mark is not on the wire, and the
 * kernel clears it where a packet crosses network namespaces (skb_scrub_packet). Nor can the agent: SO_MARK needs
 * CAP_NET_ADMIN or CAP_NET_RAW, and what it would send goes out, past the egress program. */
#define REFUSAL_MARK 0x4c545243

#define V4_QUOTE (V4_HEADER + 8)
#define V6_QUOTE (V6_HEADER + 8)

struct reset4 {
	struct ipv4 ip;
	struct tcp tcp;
};
struct unreachable4 {
	struct ipv4 ip;
	struct icmp icmp;
	__u8 quote[V4_QUOTE];
};
struct reset6 {
	struct ipv6 ip;
	struct tcp tcp;
};
struct unreachable6 {
	struct ipv6 ip;
	struct icmp icmp;
	__u8 quote[V6_QUOTE];
};

static __always_inline __u16 folded(__s64 sum)
{
	__u32 s = sum;

	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return ~s;
}

static __always_inline __s64 sum(const void *from, __u32 len, __s64 seed)
{
	return bpf_csum_diff(NULL, 0, (__be32 *)from, len, seed);
}

static __always_inline __s64 pseudo_sum(const void *addresses, __u32 addresses_len, __u8 proto, __u32 len)
{
	__u32 tail[2] = { bpf_htonl(len), bpf_htonl(proto) };

	return sum(tail, sizeof(tail), sum(addresses, addresses_len, 0));
}

static __always_inline void answer_ip4(struct ipv4 *ip, const struct packet *p, __u8 proto, __u16 total)
{
	ip->version_ihl = 0x45;
	ip->total = bpf_htons(total);
	ip->fragment = bpf_htons(0x4000);
	ip->ttl = 64;
	ip->proto = proto;
	ip->source = p->key.remote.word[0];
	ip->destination = p->key.local.word[0];
	ip->checksum = folded(sum(ip, sizeof(*ip), 0));
}

static __always_inline void answer_ip6(struct ipv6 *ip, const struct packet *p, __u8 proto, __u16 payload)
{
	ip->version_class_label = bpf_htonl(6U << 28);
	ip->payload = bpf_htons(payload);
	ip->next = proto;
	ip->hop_limit = 64;
	ip->source = p->key.remote;
	ip->destination = p->key.local;
}

/* RFC 9293, 3.10.7.1: what a closed port answers. */
static __always_inline int reset_of(struct __sk_buff *skb, const struct packet *p, struct tcp *answer)
{
	struct tcp h;
	__u32 length;

	if (load(skb, p, p->l4, &h, sizeof(h)))
		return -1;
	answer->source = h.destination;
	answer->destination = h.source;
	answer->offset = sizeof(*answer) / 4 << 4;
	if (h.flags & TCP_ACK) {
		answer->seq = h.ack;
		answer->flags = TCP_RST;
		return 0;
	}
	length = p->end - p->l4 - (h.offset >> 4) * 4;
	length += !!(h.flags & TCP_SYN) + !!(h.flags & TCP_FIN);
	answer->ack = bpf_htonl(bpf_ntohl(h.seq) + length);
	answer->flags = TCP_RST | TCP_ACK;
	return 0;
}

static __always_inline int replace(struct __sk_buff *skb, __u32 l3, const void *with, __u32 len)
{
	return bpf_skb_change_tail(skb, l3 + len, 0) ?:
	       bpf_skb_store_bytes(skb, l3, with, len, BPF_F_INVALIDATE_HASH);
}

static __always_inline int refuse_tcp4(struct __sk_buff *skb, const struct packet *p)
{
	struct reset4 a = {};

	if (reset_of(skb, p, &a.tcp))
		return -1;
	answer_ip4(&a.ip, p, PROTO_TCP, sizeof(a));
	a.tcp.checksum = folded(sum(&a.tcp, sizeof(a.tcp), pseudo_sum(&a.ip.source, 8, PROTO_TCP, sizeof(a.tcp))));
	return replace(skb, p->l3, &a, sizeof(a));
}

static __always_inline int refuse_tcp6(struct __sk_buff *skb, const struct packet *p)
{
	struct reset6 a = {};

	if (reset_of(skb, p, &a.tcp))
		return -1;
	answer_ip6(&a.ip, p, PROTO_TCP, sizeof(a.tcp));
	a.tcp.checksum = folded(sum(&a.tcp, sizeof(a.tcp), pseudo_sum(&a.ip.source, 32, PROTO_TCP, sizeof(a.tcp))));
	return replace(skb, p->l3, &a, sizeof(a));
}

/* ICMP type 3 code 13, communication administratively prohibited. */
static __always_inline int refuse_with_icmp4(struct __sk_buff *skb, const struct packet *p)
{
	struct unreachable4 a = { .icmp = { .type = 3, .code = 13 } };

	if (load(skb, p, p->l3, a.quote, V4_QUOTE))
		return -1;
	answer_ip4(&a.ip, p, PROTO_ICMP, sizeof(a));
	a.icmp.checksum = folded(sum(&a.icmp, sizeof(a.icmp) + V4_QUOTE, 0));
	return replace(skb, p->l3, &a, sizeof(a));
}

/* ICMPv6 type 1 code 1, communication with destination administratively prohibited. */
static __always_inline int refuse_with_icmp6(struct __sk_buff *skb, const struct packet *p)
{
	struct unreachable6 a = { .icmp = { .type = 1, .code = 1 } };
	const __u32 payload = sizeof(a) - V6_HEADER;

	if (load(skb, p, p->l3, a.quote, V6_QUOTE))
		return -1;
	answer_ip6(&a.ip, p, PROTO_ICMPV6, payload);
	a.icmp.checksum = folded(sum(&a.icmp, payload, pseudo_sum(&a.ip.source, 32, PROTO_ICMPV6, payload)));
	return replace(skb, p->l3, &a, sizeof(a));
}

static __always_inline int swap_macs(struct __sk_buff *skb)
{
	__u8 from[12], to[12];

	if (bpf_skb_load_bytes(skb, 0, from, sizeof(from)))
		return -1;
	__builtin_memcpy(to, from + 6, 6);
	__builtin_memcpy(to + 6, from, 6);
	return bpf_skb_store_bytes(skb, 0, to, sizeof(to), 0);
}

static __always_inline int rewrite(struct __sk_buff *skb, const struct packet *p)
{
	bool v4 = p->key.family == 4;

	if (p->key.proto == PROTO_TCP) {
		if (p->tcp_flags & TCP_RST)
			return -1;
		return v4 ? refuse_tcp4(skb, p) : refuse_tcp6(skb, p);
	}
	if (p->key.proto != PROTO_UDP && !p->opener)
		return -1;
	/* A quote of 8 bytes behind extension headers would not name the socket. */
	if (p->l4 - p->l3 != (v4 ? V4_HEADER : V6_HEADER))
		return -1;
	return v4 ? refuse_with_icmp4(skb, p) : refuse_with_icmp6(skb, p);
}

/* For these reasons a packet has an answer; before the first three are reached, groups and foreign sources have been
 * turned away. A source that is the sandbox's on another link is its sender's mistake and not a lie: it is told, or it
 * would wait. */
static __always_inline bool is_answered(const struct packet *p, __u32 reason)
{
	return reason == RULE_DENY || reason == DEFAULT_DENY || reason == NO_POLICY ||
	       (reason == SPOOFED && p->owner == ELSEWHERE);
}

/* For a packet denied on egress: sent back to its sender as an answer if it can have one, else dropped. */
static __noinline int refuse(struct __sk_buff *skb, const struct packet *p)
{
	__u16 type = p->key.family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);

	/* The receiving stack will believe skb->protocol: an AF_PACKET sender may have lied about it. */
	if (p->control || p->fragment == LATER || skb->protocol != type)
		return TC_ACT_SHOT;
	if (rewrite(skb, p) || (p->l3 && swap_macs(skb)))
		return TC_ACT_SHOT;
	skb->mark = REFUSAL_MARK;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

#endif
