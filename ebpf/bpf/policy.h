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

static __always_inline __u64 packed(struct decision d)
{
	return (__u64)d.rule << 32 | d.reason;
}

static __always_inline bool allowed(enum reason reason)
{
	return reason == RULE_ALLOW || reason == ESTABLISHED || reason == LINK_CONTROL;
}

/* Atomic although every CPU has its own: a call that is being judged may be interrupted by a packet. */
static __always_inline void add(__u64 *to, __u64 n)
{
	__sync_fetch_and_add(to, n);
}

static __always_inline void count(__u32 reason)
{
	__u32 zero = 0;
	struct stats *stats = bpf_map_lookup_elem(&STATS, &zero);

	if (stats && reason < REASONS)
		add(&stats->count[reason], 1);
}

static __always_inline __u64 config_word(__u32 which)
{
	__u64 *word = bpf_map_lookup_elem(&CONFIG, &which);

	return word ? *(volatile __u64 *)word : 0;
}

static __always_inline __u64 config(void)
{
	return config_word(IN_FORCE);
}

static __always_inline __u32 epoch_of(__u64 config)
{
	return config >> 32;
}

enum owner { FOREIGN, ELSEWHERE, HERE };

/* Whose an address is, as one link sees it. */
static __always_inline enum owner owner_of(__u8 family, const struct address *address, __u32 link)
{
	struct own_key key = { .family = family, .address = *address };
	__u32 *tied = bpf_map_lookup_elem(&OWN, &key);

	if (!tied)
		return FOREIGN;
	return *tied == ANY_LINK || *tied == link ? HERE : ELSEWHERE;
}

static __always_inline bool is_own(__u8 family, const struct address *address)
{
	return owner_of(family, address, ANY_LINK) != FOREIGN;
}

/* Whether an address of the networks that are confined to one link is met on another: a socket that is bound to a link
 * (SO_BINDTODEVICE) sends by no route, and a neighbour may claim any source. */
static __always_inline bool strays(__u8 family, const struct address *remote, __u32 link)
{
	__u64 home = config_word(CONFINED_TO), net, half;

	if (!home || home == link)
		return false;
	net = config_word(CONFINED);
	if (family == 4)
		return (remote->word[0] & (__u32)net) == net >> 32;
	__builtin_memcpy(&half, remote->word, sizeof(half));
	return (half & config_word(CONFINED6_MASK)) == config_word(CONFINED6);
}

static __always_inline __u64 by_action(__u32 action, __u32 rule)
{
	return (__u64)rule << 32 | (action == ALLOW ? RULE_ALLOW : RULE_DENY);
}

static __always_inline bool fits(const struct range *r, __u8 proto, __u16 port)
{
	if (r->proto != PROTO_ANY && r->proto != proto)
		return false;
	return r->every_port || (proto != PROTO_ICMP && port >= r->lo && port <= r->hi);
}

/* Packed. `port` is in host order. Not static, like decide(). */
__noinline __u64 first_fit(const struct range (*ranges)[INLINE_RANGES], __u32 count, __u32 proto, __u32 port)
{
	if (!ranges)
		return DEFAULT_DENY;
#pragma clang loop unroll(disable)
	for (int i = 0; i < INLINE_RANGES && i < count; i++) {
		const struct range *r = &(*ranges)[i];

		if (fits(r, proto, port))
			return by_action(r->action, r->rule);
	}
	return DEFAULT_DENY;
}

static __always_inline __u64 by_set(__u8 slot, __u32 set, __u8 proto, __u16 port)
{
	struct {
		__u32 bits;
		struct port_key key;
	} ports = {
		.bits = 64,
		.key = { .set = set, .proto = proto, .slot = slot, .port = proto == PROTO_ICMP ? 0 : port },
	};
	const struct port_value *value = bpf_map_lookup_elem(&PORTS, &ports);

	return value ? by_action(value->action, value->rule) : DEFAULT_DENY;
}

static __always_inline __u64 by_table(__u8 slot, const struct flow_key *flow, __u32 direction, __u8 proto, __u16 port)
{
	struct {
		__u32 bits;
		struct prefix_key key;
	} prefix = {
		.bits = flow->family == 4 ? 64 : 160,
		.key = { .slot = slot, .direction = direction, .family = flow->family, .net = flow->remote },
	};
	const struct prefix_value *entry = bpf_map_lookup_elem(&POLICY, &prefix);
	__u64 decision;

	if (!entry)
		return DEFAULT_DENY;
	decision = first_fit(&entry->ranges, entry->count, proto, bpf_ntohs(port));
	return decision == DEFAULT_DENY && entry->set ? by_set(slot, entry->set, proto, port) : decision;
}

static __always_inline __u64 by_pin(__u32 epoch, const struct flow_key *flow, __u8 proto, __u16 port)
{
	struct pin_key key = { .slot = epoch % SLOTS, .family = flow->family, .address = flow->remote };
	struct pin *pin = bpf_map_lookup_elem(&PINS, &key);
	struct pin_lines lines;

	if (!pin)
		return DEFAULT_DENY;
	bpf_spin_lock(&pin->lock);
	lines = pin->lines;
	bpf_spin_unlock(&pin->lock);
	if (lines.epoch != epoch || lines.until_ns <= bpf_ktime_get_boot_ns())
		return DEFAULT_DENY;
	return first_fit(&lines.ranges, lines.count, proto, bpf_ntohs(port));
}

/* Whether what was read of the slot of `epoch` may have been of another policy. The loader clears a slot for the next one
 * when the newest of the others is in force, which takes a packet that is judged while three policies come. */
static __always_inline bool is_outdated(__u32 epoch)
{
	volatile __u32 barrier = 0;

	/* What was read before was read before (smp_rmb). */
	__sync_fetch_and_add(&barrier, 0);
	return epoch_of(config()) - epoch >= SLOTS - 1;
}

/* A packed decision on a flow opened in `direction`: the rule's network is the remote end, its ports are those of
 * whoever is called. Not static: the verifier then judges it once, not on each path to it. */
__noinline __u64 decide(__u32 epoch, const struct flow_key *flow, __u32 direction)
{
	__u64 decision;
	__u16 port;
	__u8 proto;

	if (!flow)
		return MALFORMED;
	proto = flow->proto == PROTO_ICMPV6 ? PROTO_ICMP : flow->proto;
	port = direction == EGRESS ? flow->remote_port : flow->local_port;
	decision = by_table(epoch % SLOTS, flow, direction, proto, port);
	if (decision == DEFAULT_DENY && direction == EGRESS)
		decision = by_pin(epoch, flow, proto, port);
	return is_outdated(epoch) ? NO_POLICY : decision;
}

#endif
