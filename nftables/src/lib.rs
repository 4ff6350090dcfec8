//! Enforces a policy by nftables in the agent's network namespace, where the kernel permits no BPF.
//!
//! [`Nftables::load`] makes a table that denies everything, before any link is up; [`Nftables::apply`] puts a policy in force
//! as a whole; [`Events`] reads its verdicts. The same table as the eBPF program's decides, and the same tests hold both to
//! it. Needs `nft` 1.0.6, Linux 6.1 with conntrack, and `CAP_NET_ADMIN` in the user namespace that owns the network
//! namespace; [`probe`] says what is missing.
//!
//! ```text
//!            conntrack: defragments, finds the flow
//!                 │
//! output ─────► sound? own address? ─► known by its mark? ─► judge its first tuple ─► reset, unreachable
//! prerouting ─►   │                        │                    │  addresses → class      or drop
//!                drop                    accept                 ▼  class, port → rule
//!                                                            mark, tell, accept
//! ```
//!
//! A flow that a policy lets in is marked with a number that only this policy gives. The next policy does not know it, and
//! judges the flow anew at its next packet: by the tuple of its first packet, in the direction in which that went, also when
//! the packet is a reply or an ICMP error about it. A packet of a known flow costs one look-up in a hash; any other costs
//! an interval tree and a set of intervals, whatever the number of rules.
//!
//! # What differs from the eBPF program
//!
//! - **Where it stands**: at the IP layer, not on the links. Frames of packet sockets go past it, out and in, and ARP is
//!   not policed. An agent without `CAP_NET_RAW` has neither; give none that capability where this enforcer is used.
//! - **Who can remove it**: whoever has `CAP_NET_ADMIN` in the namespace.
//! - **Fragments**: conntrack puts datagrams together, and whole ones are judged. A fragment that does not belong to a
//!   datagram never arrives, and is not told.
//! - **Headers**: any IPv6 routing header is denied, not only one with segments left. An authentication header is looked
//!   past, as the kernel does. VLAN tags are not seen.
//! - **ICMP**: only echo, timestamp and address mask requests open a flow. Others, and whatever else conntrack cannot
//!   place (such as TCP outside of its window), are denied as [`Malformed`](lattice_policy::Reason::Malformed).
//!   Redirects are always denied.
//! - **TCP**: a SYN that comes back on the very ports of a live flow is denied; eBPF judges it as a flow of its own.
//! - **Flows** live as long as conntrack says: UDP 30 s, or 120 s once answered. How many there can be is the host's
//!   `net.netfilter.nf_conntrack_max`, in every namespace; the kernel then drops what would be more.
//! - **Refusals** go through the kernel: a denied UDP send fails by itself (`EPERM`) besides the ICMP error that follows,
//!   and the kernel limits how many of those it sends (`net.ipv4.icmp_msgs_per_sec`). Only judged packets are refused; what
//!   is denied for its form, its source or as multicast is dropped, which the sender also sees as `EPERM`.
//! - **Broadcast** of the agent's own subnet is denied on every link, not only on Ethernet.
//! - **Records**: what is denied for its form, and ICMP, is told once a second for its addresses, protocol and reason. The
//!   time of a record is when it was read.
//! - **Time of pins** stands still while the machine sleeps, until the next address is pinned.

mod counters;
mod enforcer;
mod error;
mod events;
mod nflog;
mod nft;
mod probe;
mod ruleset;
mod sets;

pub use enforcer::{Nftables, Options, remove};
pub use error::NftError;
pub use events::Events;
pub use nft::Enter;
pub use probe::probe;
