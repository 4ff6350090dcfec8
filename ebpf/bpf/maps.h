/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The maps. Sizes bound what an agent can make the kernel hold: 3.1 MiB a sandbox with two CPUs,
 * 24 KiB more for each further one, and 3.2 MiB when there are as many pins as there may be in each slot. */
#ifndef LATTICE_MAPS_H
#define LATTICE_MAPS_H

#include "abi.h"

/* The lines of the policies, each key with its slot in front. One trie for all slots, not a map of tries: to put a trie
 * into a map takes a grace period of the kernel, some 30 ms, and a line none. They take memory line by line. */
#define TRIE(name, key, value)                          \
	struct {                                        \
		__uint(type, BPF_MAP_TYPE_LPM_TRIE);    \
		__uint(key_size, 4 + sizeof(struct key)); \
		__uint(value_size, sizeof(struct value)); \
		__uint(max_entries, 1 << 22);           \
		__uint(map_flags, BPF_F_NO_PREALLOC);   \
	} name SEC(".maps")
TRIE(POLICY, prefix_key, prefix_value);
TRIE(PORTS, port_key, port_value);

#define MAP(name, kind, k, v, entries)      \
	struct {                            \
		__uint(type, kind);         \
		__type(key, k);             \
		__type(value, v);           \
		__uint(max_entries, entries); \
	} name SEC(".maps")

/* The first word, so that a packet sees the old policy or the new one: low half the caller's generation, high half the
 * epoch, which every apply advances. The slot is epoch % SLOTS; epoch 0 is "no policy yet". */
MAP(CONFIG, BPF_MAP_TYPE_ARRAY, __u32, __u64, CONFIG_WORDS);
/* Names' addresses. Every slot has room for all that the loader lets in. A program copies the lines under their lock; the
 * loader lets a grace period pass before it uses the memory of a removed pin again. So no packet is judged by lines that
 * are not its address's, or by half of old ones and half of new. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct pin_key);
	__type(value, struct pin);
	__uint(max_entries, SLOTS * 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} PINS SEC(".maps");
/* The sandbox's addresses, each with the index of the only link whose it is, or ANY_LINK. */
MAP(OWN, BPF_MAP_TYPE_HASH, struct own_key, __u32, 64);
/* Only allowed flows: an agent that scans cannot push its own allowed flows out with denied ones. */
MAP(FLOWS, BPF_MAP_TYPE_LRU_HASH, struct flow_key, struct flow_value, 16384);
MAP(DENIED, BPF_MAP_TYPE_LRU_HASH, struct denied_key, __u64, 4096);
MAP(FRAGMENTS, BPF_MAP_TYPE_LRU_HASH, struct fragment_key, struct fragment_value, 1024);
MAP(STATS, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct stats, 1);
/* Per rule, for the policy in force and the one before or after it. Measured per packet of an established flow, 205 ns
 * without counters: in a per-CPU hash 17 to 38 more, in a per-CPU array no difference. In the flow itself, CPUs would
 * fight for its cache line and eviction would lose the count. But an array for every possible rule would take
 * megabytes on a machine of 64 CPUs. So the first rules, which is all of most policies, are in an array (16 KiB for
 * each CPU), and of the others those that decide anything in a hash (8 KiB for each CPU). */
MAP(COUNTERS, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct counter, 2 * COUNTED_RULES);
MAP(HIGH_COUNTERS, BPF_MAP_TYPE_PERCPU_HASH, struct counter_key, struct counter, 512);

/* No program reads it. Who sets a map of maps waits until the programs that ran then have ended (maybe_wait_bpf_programs):
 * the loader uses it for that alone. */
struct any_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
	__uint(max_entries, 1);
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
	__array(values, struct any_map);
} GRACE SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} EVENTS SEC(".maps");

#endif
