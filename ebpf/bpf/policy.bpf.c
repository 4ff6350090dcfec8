// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The egress and ingress policy of one sandbox, on every link of the agent's network namespace, and before that on the
 * calls of its cgroup. Deny is the default of every path: a packet passes only where judge() says why. */
#include "call.h"
#include "event.h"
#include "link.h"
#include "refuse.h"

static __always_inline struct decision judge(struct __sk_buff *skb, __u32 epoch, __u64 now, struct packet *p)
{
	__u8 family = p->key.family;
	struct flow_value *flow;
	struct decision d;

	if (p->control)
		return (struct decision){ epoch ? judge_link(skb, p) : NO_POLICY, 0 };
	if (p->group || is_group(family, &p->key.local) || is_group(family, &p->key.remote))
		return (struct decision){ MULTICAST, 0 };
	p->owner = owner_of(family, &p->key.local, skb->ifindex);
	if (p->owner != HERE)
		return (struct decision){ p->direction == EGRESS ? SPOOFED : DEFAULT_DENY, 0 };
	if (p->direction == INGRESS && is_own(family, &p->key.remote))
		return (struct decision){ SPOOFED, 0 };
	if (strays(family, &p->key.remote, skb->ifindex))
		return (struct decision){ p->direction == EGRESS ? DEFAULT_DENY : SPOOFED, 0 };
	if (!epoch)
		return (struct decision){ NO_POLICY, 0 };
	if (p->fragment == LATER)
		return judge_fragment(epoch, now, p);
	flow = p->quote ? related(skb, epoch, now, p) : NULL;
	if (flow)
		return (struct decision){ ESTABLISHED, flow->rule };
	d = judge_flow(epoch, now, p);
	if (p->fragment == FIRST && allowed(d.reason))
		remember_fragment(epoch, now, p, d.rule);
	return d;
}

/* `l2` is the length of the link's own header: 14 on Ethernet, 0 on a TUN or WireGuard link. */
static __always_inline int police(struct __sk_buff *skb, __u32 l2, __u8 direction)
{
	struct packet p = { .direction = direction };
	struct decision d = { .reason = parse(skb, l2, &p) };
	__u64 word = config(), now = bpf_ktime_get_boot_ns();

	if (!d.reason)
		d = judge(skb, epoch_of(word), now, &p);
	report(word, now, &p.key, direction, d, skb->len - p.l3, skb->ifindex);
	/* Unspec, not OK: programs behind ours on the same link may still say no. */
	if (allowed(d.reason))
		return TC_ACT_UNSPEC;
	/* Outdated (policy.h). As good as lost on the way: a refusal would end a flow that the policy may allow. */
	if (d.reason == NO_POLICY && epoch_of(word))
		return TC_ACT_SHOT;
	return direction == EGRESS ? refuse(skb, &p, d.reason) : TC_ACT_SHOT;
}

static __always_inline int police_ingress(struct __sk_buff *skb, __u32 l2)
{
	if (skb->mark == REFUSAL_MARK) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	return police(skb, l2, INGRESS);
}

/* "classifier", not "tc": the loader knows only the former. */
SEC("classifier") int egress_l2(struct __sk_buff *skb)
{
	return police(skb, ETH_HLEN, EGRESS);
}

SEC("classifier") int egress_l3(struct __sk_buff *skb)
{
	return police(skb, 0, EGRESS);
}

SEC("classifier") int ingress_l2(struct __sk_buff *skb)
{
	return police_ingress(skb, ETH_HLEN);
}

SEC("classifier") int ingress_l3(struct __sk_buff *skb)
{
	return police_ingress(skb, 0);
}

SEC("cgroup/connect4") int connect4(struct bpf_sock_addr *ctx)
{
	return sends_nothing(ctx) || police_call4(ctx);
}

SEC("cgroup/connect6") int connect6(struct bpf_sock_addr *ctx)
{
	return sends_nothing(ctx) || police_call6(ctx);
}

SEC("cgroup/sendmsg4") int sendmsg4(struct bpf_sock_addr *ctx)
{
	return police_call4(ctx);
}

SEC("cgroup/sendmsg6") int sendmsg6(struct bpf_sock_addr *ctx)
{
	return police_call6(ctx);
}

/* The kernel knows a handful of licence strings and none for Apache-2.0 with a choice of GPL; this takes the choice. */
char _license[] SEC("license") = "GPL";
