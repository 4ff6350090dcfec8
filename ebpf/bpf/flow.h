/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Allowed flows, their replies, the ICMP errors about them, and fragments of their datagrams. */
#ifndef LATTICE_FLOW_H
#define LATTICE_FLOW_H

#include "parse.h"
#include "policy.h"

#define SECOND 1000000000ULL
#define TCP_IDLE (7440 * SECOND) /* RFC 5382, REQ-5 */
#define UDP_IDLE (300 * SECOND)  /* RFC 4787, REQ-5 */
#define ICMP_IDLE (60 * SECOND)  /* RFC 5508, REQ-2 */
#define FRAGMENT_IDLE (60 * SECOND) /* RFC 8200, 4.5: how long a receiver waits for the rest */

static __always_inline __u64 idle_limit(__u8 proto)
{
	return proto == PROTO_TCP ? TCP_IDLE : proto == PROTO_UDP ? UDP_IDLE : ICMP_IDLE;
}

/* Signed: another CPU may have been here since we read the clock. */
static __always_inline bool is_over(__u64 now, __u64 since, __u64 limit)
{
	return (__s64)(now - since) > (__s64)limit;
}

/* What a map had no room for is denied later; here it is only counted. */
static __always_inline void remember(void *map, const void *key, const void *value)
{
	if (bpf_map_update_elem(map, key, value, BPF_ANY))
		count(UNTRACKED);
}

/* The flow, if this epoch's policy allows it. A flow of an older epoch is judged anew as it was opened, so a narrowed
 * policy cuts it at its next packet in either direction. */
static __always_inline struct flow_value *live_flow(__u32 epoch, __u64 now, const struct flow_key *key)
{
	struct flow_value *flow = bpf_map_lookup_elem(&FLOWS, key);
	struct decision d;

	if (!flow || is_over(now, flow->seen_ns, idle_limit(key->proto)))
		return NULL;
	if (flow->epoch != epoch) {
		d = unpacked(decide(epoch, key, flow->direction));
		if (d.reason != RULE_ALLOW) {
			if (d.reason != NO_POLICY)
				bpf_map_delete_elem(&FLOWS, key);
			return NULL;
		}
		flow->rule = d.rule;
		flow->epoch = epoch;
	}
	return flow;
}

static __always_inline struct decision judge_flow(__u32 epoch, __u64 now, const struct packet *p)
{
	struct flow_key key = p->key; /* Linux 6.1 takes a key from no other function's frame */
	struct flow_value *flow = live_flow(epoch, now, &key);
	struct decision d;

	if (flow && (flow->direction == p->direction || !p->opener)) {
		/* Not every packet: two cores that share a flow would fight over its cache line. */
		if (is_over(now, flow->seen_ns, SECOND))
			flow->seen_ns = now;
		return (struct decision){ ESTABLISHED, flow->rule };
	}
	d = unpacked(decide(epoch, &key, p->direction));
	if (d.reason == RULE_ALLOW) {
		struct flow_value new = { .seen_ns = now, .epoch = epoch, .rule = d.rule, .direction = p->direction };

		remember(&FLOWS, &key, &new);
	}
	return d;
}

static __always_inline bool same(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

/* Errors come in from any router, about what the agent itself sent. They go out only to the flow's other end: else an
 * agent could write to the whole world in quotes of an allowed flow. */
static __always_inline struct flow_value *related(__u32 epoch, __u64 now, const struct packet *p,
						  const struct flow_key *quoted)
{
	struct flow_key key = *quoted;

	if (!same(&quoted->local, &p->key.local))
		return NULL;
	if (p->direction == EGRESS && !same(&quoted->remote, &p->key.remote))
		return NULL;
	return live_flow(epoch, now, &key);
}

static __always_inline void fragment_key_of(const struct packet *p, struct fragment_key *key)
{
	key->source = p->direction == EGRESS ? p->key.local : p->key.remote;
	key->destination = p->direction == EGRESS ? p->key.remote : p->key.local;
	key->id = p->fragment_id;
	key->family = p->key.family;
	key->proto = p->key.family == 4 ? p->key.proto : 0;
	key->direction = p->direction;
}

static __always_inline void remember_fragment(__u32 epoch, __u64 now, const struct packet *p, __u32 rule)
{
	struct fragment_value value = { .seen_ns = now, .epoch = epoch, .rule = rule };
	struct fragment_key key = {};

	fragment_key_of(p, &key);
	remember(&FRAGMENTS, &key, &value);
}

static __always_inline struct decision judge_fragment(__u32 epoch, __u64 now, const struct packet *p)
{
	struct fragment_key key = {};
	struct fragment_value *value;

	fragment_key_of(p, &key);
	value = bpf_map_lookup_elem(&FRAGMENTS, &key);
	if (value && value->epoch == epoch && !is_over(now, value->seen_ns, FRAGMENT_IDLE))
		return (struct decision){ ESTABLISHED, value->rule };
	return (struct decision){ FRAGMENT, 0 };
}

#endif
