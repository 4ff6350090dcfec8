/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What an Ethernet link needs to work at all: ARP and neighbour discovery, no more of either than that. */
#ifndef LATTICE_LINK_H
#define LATTICE_LINK_H

#include "flow.h"

static __always_inline enum reason judge_arp(const struct packet *p)
{
	struct address sender = { { p->sender } };

	if (p->control == BAD_ARP)
		return MALFORMED;
	/* 0 is a probe (RFC 5227). */
	if (p->direction == EGRESS && p->sender && owner_of(4, &sender, p->link) != HERE)
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
	if (owner_of(6, local, p->link) != HERE && !is_link_local(local) && !is_unspecified(local))
		return SPOOFED;
	/* An agent that advertises itself as a router would become its host's. */
	return p->icmp_type == 134 ? PROTOCOL : LINK_CONTROL;
}

static __always_inline enum reason judge_link(const struct packet *p)
{
	return p->control == NEIGHBOUR ? judge_nd(p) : judge_arp(p);
}

#endif
