// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The egress and ingress policy of one sandbox, on every link of the agent's network namespace, and before that on the
 * calls of its cgroup. Deny is the default of every path: a packet passes only where judge() says why. */
#include "call.h"
#include "event.h"
#include "link.h"
#include "refuse.h"

/* No verdict yet: an ICMP error, whose quote is to be parsed first. */
#define UNREAD REASONS

static __always_inline struct decision judge_packet(__u32 epoch, __u64 now, struct packet *p)
{
	__u8 family = p->key.family;
	struct decision d;

	if (p->reason)
		return (struct decision){ p->reason, 0 };
	if (p->control)
		return (struct decision){ epoch ? judge_link(p) : NO_POLICY, 0 };
	if (p->group || is_group(family, &p->key.local) || is_group(family, &p->key.remote))
		return (struct decision){ MULTICAST, 0 };
	p->owner = owner_of(family, &p->key.local, p->link);
	if (p->owner != HERE)
		return (struct decision){ p->direction == EGRESS ? SPOOFED : DEFAULT_DENY, 0 };
	if (p->direction == INGRESS && is_own(family, &p->key.remote))
		return (struct decision){ SPOOFED, 0 };
	if (strays(family, &p->key.remote, p->link))
		return (struct decision){ p->direction == EGRESS ? DEFAULT_DENY : SPOOFED, 0 };
	if (!epoch)
		return (struct decision){ NO_POLICY, 0 };
	if (p->fragment == LATER)
		return judge_fragment(epoch, now, p);
	if (p->quote)
		return (struct decision){ UNREAD, 0 };
	d = judge_flow(epoch, now, p);
	if (p->fragment == FIRST && allowed(d.reason))
		remember_fragment(epoch, now, p, d.rule);
	return d;
}

/* Packed. Like decide(), neither this nor what follows it is static: the verifier judges each once, and forgets what it knew of the
 * packet when it is called, which is what would multiply the paths behind it. They take no context: to know one, the verifier needs
 * types of the kernel's own, which not every kernel has (CONFIG_DEBUG_INFO_BTF). */
__noinline __u64 judge(__u32 epoch, __u64 now, struct packet *p)
{
	return p ? packed(judge_packet(epoch, now, p)) : MALFORMED;
}

/* 0, or the packed decision on an ICMP error by the flow that it is about. */
__noinline __u64 judge_quote(__u32 epoch, __u64 now, const struct packet *p, const struct flow_key *quoted)
{
	struct flow_value *flow = p && quoted ? related(epoch, now, p, quoted) : NULL;

	return flow ? packed((struct decision){ ESTABLISHED, flow->rule }) : 0;
}

enum verdict { DROP, PASS, REFUSE };

/* Tells a decision that is to be told, and says what becomes of the packet: an enum verdict. */
__noinline int conclude(__u64 word, __u64 now, const struct packet *p, __u64 decision, __u32 bytes)
{
	struct decision d = unpacked(decision);

	if (!p)
		return DROP;
	tell(word, now, &p->key, p->direction, d, bytes, p->link);
	if (allowed(d.reason))
		return PASS;
	/* Outdated (policy.h). As good as lost on the way: a refusal would end a flow that the policy may allow. */
	if (d.reason == NO_POLICY && epoch_of(word))
		return DROP;
	return p->direction == EGRESS && is_answered(p, d.reason) ? REFUSE : DROP;
}

/* `l2` is the length of the link's own header: 14 on Ethernet, 0 on a TUN or WireGuard link. */
static __always_inline int police(struct __sk_buff *skb, __u32 l2, __u8 direction)
{
	struct packet p = { .direction = direction, .link = skb->ifindex };
	__u64 word = config(), now = bpf_ktime_get_boot_ns(), decision;
	__u32 bytes;

	p.reason = parse(skb, l2, &p);
	decision = judge(epoch_of(word), now, &p);
	if (decision == UNREAD) {
		struct flow_key quoted = {};

		decision = parse_quote(skb, &p, &quoted) ? 0 : judge_quote(epoch_of(word), now, &p, &quoted);
		p.quote = 0;
		decision = decision ?: judge(epoch_of(word), now, &p);
	}
	bytes = skb->len - p.l3;
	tally(epoch_of(word), unpacked(decision), bytes);
	/* Unspec, not OK: programs behind ours on the same link may still say no. */
	if ((__u32)decision == ESTABLISHED || (__u32)decision == LINK_CONTROL)
		return TC_ACT_UNSPEC;
	switch (conclude(word, now, &p, decision, bytes)) {
	case PASS:
		return TC_ACT_UNSPEC;
	case REFUSE:
		return direction == EGRESS ? refuse(skb, &p) : TC_ACT_SHOT;
	default:
		return TC_ACT_SHOT;
	}
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
