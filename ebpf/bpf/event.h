/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What is told of a verdict: every newly allowed flow, and every denied one at most once a second. */
#ifndef LATTICE_EVENT_H
#define LATTICE_EVENT_H

#include "flow.h"

static __always_inline void count(__u32 reason)
{
	__u64 *n = bpf_map_lookup_elem(&STATS, &reason);

	if (n)
		*n += 1;
}

static __always_inline bool is_due(__u64 now, const struct packet *p, enum reason reason)
{
	struct denied_key key = { .flow = p->key, .direction = p->direction, .reason = reason };
	__u64 *last = bpf_map_lookup_elem(&DENIED, &key);

	if (last && now - *last < SECOND)
		return false;
	bpf_map_update_elem(&DENIED, &key, &now, BPF_ANY);
	return true;
}

static __always_inline void report(struct __sk_buff *skb, __u64 config, __u64 now, const struct packet *p,
				   struct decision d)
{
	struct event *e;

	count(d.reason);
	if (d.reason == ESTABLISHED || d.reason == LINK_CONTROL)
		return;
	if (d.reason != RULE_ALLOW && !is_due(now, p, d.reason))
		return;
	e = bpf_ringbuf_reserve(&EVENTS, sizeof(*e), 0);
	if (!e) {
		count(LOST);
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->at_ns = now;
	e->flow = p->key;
	e->rule = d.rule;
	e->generation = (__u32)config;
	e->bytes = skb->len - p->l3;
	e->link = skb->ifindex;
	e->direction = p->direction;
	e->reason = d.reason;
	bpf_ringbuf_submit(e, 0);
}

#endif
