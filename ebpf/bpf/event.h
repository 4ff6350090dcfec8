/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What is told of a verdict: every newly allowed flow, and every denied one at most once a second. */
#ifndef LATTICE_EVENT_H
#define LATTICE_EVENT_H

#include "flow.h"

/* Of a rule with a high number (a long policy's, or a built-in one), made by the first packet that it decides. */
static __always_inline struct counter *high_counter(__u32 epoch, __u32 rule)
{
	struct counter_key key = { .epoch = epoch, .rule = rule };
	struct counter *counter = bpf_map_lookup_elem(&HIGH_COUNTERS, &key), none = {};

	if (counter)
		return counter;
	/* Another CPU may have been first. */
	bpf_map_update_elem(&HIGH_COUNTERS, &key, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&HIGH_COUNTERS, &key);
}

static __always_inline void count_rule(__u32 epoch, struct decision d, __u32 bytes)
{
	__u32 index = epoch % 2 * COUNTED_RULES + d.rule;
	struct counter *counter;

	if (d.reason != RULE_ALLOW && d.reason != RULE_DENY && d.reason != DEFAULT_DENY && d.reason != ESTABLISHED)
		return;
	counter = d.rule < COUNTED_RULES ? bpf_map_lookup_elem(&COUNTERS, &index) : high_counter(epoch, d.rule);
	if (!counter) {
		count(UNCOUNTED);
		return;
	}
	add(&counter->packets, 1);
	add(&counter->bytes, bytes);
}

static __always_inline bool is_due(__u64 now, const struct flow_key *flow, __u8 direction, enum reason reason)
{
	struct denied_key key = { .flow = *flow, .direction = direction, .reason = reason };
	__u64 *last = bpf_map_lookup_elem(&DENIED, &key);

	if (last && !is_over(now, *last, SECOND))
		return false;
	/* Without room in the map it is told again sooner. */
	bpf_map_update_elem(&DENIED, &key, &now, BPF_ANY);
	return true;
}

/* Counts every verdict. */
static __always_inline void tally(__u32 epoch, struct decision d, __u32 bytes)
{
	count(d.reason);
	count_rule(epoch, d, bytes);
}

/* Not of what is ESTABLISHED or LINK_CONTROL. */
static __always_inline void tell(__u64 config, __u64 now, const struct flow_key *flow, __u8 direction,
				 struct decision d, __u32 bytes, __u32 link)
{
	struct event *e;

	if (d.reason != RULE_ALLOW && !is_due(now, flow, direction, d.reason))
		return;
	e = bpf_ringbuf_reserve(&EVENTS, sizeof(*e), 0);
	if (!e) {
		count(LOST);
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->at_ns = now;
	e->flow = *flow;
	e->rule = d.rule;
	e->generation = (__u32)config;
	e->bytes = bytes;
	e->link = link;
	e->direction = direction;
	e->reason = d.reason;
	bpf_ringbuf_submit(e, 0);
}

#endif
