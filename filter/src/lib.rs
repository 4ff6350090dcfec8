//! Judges every packet of a sandbox in user space, as the eBPF program does where that may be loaded: for the user-space
//! WireGuard device on a host that permits neither eBPF nor nftables.
//!
//! ```text
//!   bytes ─ packet ─► own address? ─► fragment, ICMP error ─► flows ─► program (table, then pins) ─► Decision
//!                                                                └─ journal: new and denied flows, to be taken
//! ```
//!
//! Pure: no I/O, no clock, no thread. A [`Filter`] allocates when it is made, when a policy is applied and when its tables
//! first fill, never because of what a packet says, and its memory is bounded whatever an agent or a peer sends. Hashes are
//! keyed with a random seed, so nobody can aim at one bucket.
//!
//! What it says of a packet must be what the eBPF program says, reason for reason; `ebpf/bpf/` is the reference. It sees
//! packets from their IP header on, so what that program knows of Ethernet has no counterpart here.

#![forbid(unsafe_code)]

mod filter;
mod flows;
mod journal;
mod lru;
mod packet;
mod program;
mod refusal;

pub use filter::{Decision, Filter};
pub use program::Program;
pub use refusal::Refusal;
