/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The second fence: a connect or sendto that the policy denies fails at once with EPERM, before there is any packet. It
 * answers sooner and in clearer words than the first, the programs on the links, and holds where those have gone. */
#ifndef LATTICE_CALL_H
#define LATTICE_CALL_H

#include "event.h"
#include "link.h"

#define SOCK_DGRAM 2
#define PROTO_MPTCP 262 /* what the socket calls itself; on the wire it is TCP */

/* What never leaves the network namespace, and so meets no program on a link either. The unspecified address is the
 * loopback one (ip_route_output_key, tcp_v6_connect). */
static __always_inline bool is_this_host(const struct flow_key *call)
{
	const struct address *to = &call->remote;

	if (is_unspecified(to) || is_own(call->family, to))
		return true;
	if (call->family == 4)
		return (to->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !to->word[0] && !to->word[1] && !to->word[2] && to->word[3] == bpf_htonl(1);
}

/* The number that rules know it by, or 0. */
static __always_inline __u8 protocol_of(const struct bpf_sock_addr *ctx, __u8 family)
{
	switch (ctx->protocol) {
	case PROTO_MPTCP:
		return PROTO_TCP;
	case PROTO_TCP:
	case PROTO_UDP:
		return ctx->protocol;
	}
	return ctx->protocol == (family == 4 ? PROTO_ICMP : PROTO_ICMPV6) ? ctx->protocol : 0;
}

struct search {
	struct flow_key flow;
	__u64 now;
	__u32 epoch, found;
};

static long try_own(void *map, const struct own_key *own, const __u32 *tied, struct search *search)
{
	if (own->family != search->flow.family)
		return 0;
	search->flow.local = own->address;
	search->found = live_flow(search->epoch, search->now, &search->flow) != NULL;
	return search->found;
}

/* Whether a datagram continues a flow that was let in: an answer to one that a peer opened, or one whose pin is over.
 * The socket knows its port; its address is one of the own. */
static __always_inline bool continues(__u32 epoch, __u64 now, const struct flow_key *call, __u32 port)
{
	struct search search = { .flow = *call, .epoch = epoch, .now = now };

	if (call->proto != PROTO_UDP || !port)
		return false;
	search.flow.local_port = bpf_htons(port);
	bpf_for_each_map_elem(&OWN, try_own, &search, 0);
	return search.found;
}

/* Packed. `port` is the socket's own in host order, or 0. Not static, like decide(). */
__noinline __u64 judge_call(__u32 epoch, __u64 now, const struct flow_key *call, __u32 port)
{
	struct decision d;

	if (!call)
		return MALFORMED;
	if (!epoch)
		return NO_POLICY;
	if (!call->proto)
		return PROTOCOL;
	if (is_group(call->family, &call->remote))
		return MULTICAST;
	d = unpacked(decide(epoch, call, EGRESS));
	if (d.reason != RULE_ALLOW && continues(epoch, now, call, port))
		d.reason = ESTABLISHED;
	return packed(d);
}

/* 1 lets the call go on. What it lets go on is counted and told where the packets pass. */
static __always_inline int police_call(const struct bpf_sock_addr *ctx, struct flow_key *call)
{
	__u64 word = config(), now = bpf_ktime_get_boot_ns();
	struct decision d;

	if (is_this_host(call))
		return 1;
	call->remote_port = ctx->user_port;
	call->proto = protocol_of(ctx, call->family);
	d = unpacked(judge_call(epoch_of(word), now, call, ctx->sk ? ctx->sk->src_port : 0));
	if (allowed(d.reason))
		return 1;
	tally(epoch_of(word), d, 0);
	tell(word, now, call, EGRESS, d, 0, 0);
	return 0;
}

/* The connect of a datagram socket: programs ask by it for the address that they would use, and libraries for the best of a
 * name's addresses. It is no attempt to reach anybody; what the socket then sends is judged on the link. */
static __always_inline bool sends_nothing(const struct bpf_sock_addr *ctx)
{
	return ctx->type == SOCK_DGRAM;
}

static __always_inline int police_call4(const struct bpf_sock_addr *ctx)
{
	struct flow_key call = { .family = 4, .remote = { { ctx->user_ip4 } } };

	return police_call(ctx, &call);
}

static __always_inline int police_call6(const struct bpf_sock_addr *ctx)
{
	struct address to = { { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] } };
	bool mapped = is_mapped(&to);
	struct flow_key call = { .family = mapped ? 4 : 6 };

	if (mapped)
		call.remote.word[0] = to.word[3];
	else
		call.remote = to;
	return police_call(ctx, &call);
}

#endif
