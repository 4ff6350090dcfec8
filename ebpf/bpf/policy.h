/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the rules say of one packet: the longest matching prefix, then the first range that fits. */
#ifndef LATTICE_POLICY_H
#define LATTICE_POLICY_H

#include "maps.h"

struct decision {
	enum reason reason;
	__u32 rule;
};

static __always_inline struct decision unpacked(__u64 packed)
{
	return (struct decision){ (__u32)packed, packed >> 32 };
}

static __always_inline bool allowed(enum reason reason)
{
	return reason == RULE_ALLOW || reason == ESTABLISHED || reason == LINK_CONTROL;
}

static __always_inline __u64 config(void)
{
	__u32 zero = 0;
	__u64 *word = bpf_map_lookup_elem(&CONFIG, &zero);

	return word ? *(volatile __u64 *)word : 0;
}

static __always_inline __u32 epoch_of(__u64 config)
{
	return config >> 32;
}

static __always_inline bool is_own(__u8 family, const struct address *address)
{
	struct own_key key = { .family = family, .address = *address };

	return bpf_map_lookup_elem(&OWN, &key);
}

static __always_inline __u64 by_action(__u32 action, __u32 rule)
{
	return (__u64)rule << 32 | (action == ALLOW ? RULE_ALLOW : RULE_DENY);
}

/* A packed decision on a flow opened in `direction`: the rule's network is the remote end, its ports are those of
 * whoever is called. Not static: the verifier then judges it once, not on each path to it. */
__noinline __u64 decide(__u32 epoch, const struct flow_key *flow, __u32 direction)
{
	struct {
		__u32 bits;
		struct prefix_key key;
	} prefix = {};
	const struct prefix_value *entry;
	__u32 slot = epoch % SLOTS;
	__u16 port;
	__u8 proto;
	void *trie;

	if (!flow)
		return MALFORMED;
	trie = bpf_map_lookup_elem(&POLICY, &slot);
	if (!trie)
		return NO_POLICY;
	prefix.bits = flow->family == 4 ? 64 : 160;
	prefix.key.direction = direction;
	prefix.key.family = flow->family;
	prefix.key.net = flow->remote;
	entry = bpf_map_lookup_elem(trie, &prefix);
	if (!entry)
		return DEFAULT_DENY;
	proto = flow->proto == PROTO_ICMPV6 ? PROTO_ICMP : flow->proto;
	port = direction == EGRESS ? flow->remote_port : flow->local_port;
	for (int i = 0; i < INLINE_RANGES; i++) {
		const struct range *r = &entry->ranges[i];

		if (i >= entry->count)
			break;
		if (r->proto != PROTO_ANY && r->proto != proto)
			continue;
		if (r->every_port ||
		    (proto != PROTO_ICMP && bpf_ntohs(port) >= r->lo && bpf_ntohs(port) <= r->hi))
			return by_action(r->action, r->rule);
	}
	if (entry->set) {
		struct {
			__u32 bits;
			struct port_key key;
		} ports = {
			.bits = 64,
			.key = { .set = entry->set, .proto = proto, .port = proto == PROTO_ICMP ? 0 : port },
		};
		const struct port_value *value;

		trie = bpf_map_lookup_elem(&PORTS, &slot);
		if (!trie)
			return NO_POLICY;
		value = bpf_map_lookup_elem(trie, &ports);
		if (value)
			return by_action(value->action, value->rule);
	}
	return DEFAULT_DENY;
}

#endif
