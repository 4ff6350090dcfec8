//! Enforces a policy on every packet of a sandbox, below gVisor: a TC program on each link of the agent's network
//! namespace, and its loader.
//!
//! The program (`bpf/`, C) denies by default in both directions. [`Enforcer`] loads and pins it, switches policies
//! atomically, and attaches it to links; [`Events`] reads its verdicts. The policy outlives the process that loaded it
//! for as long as the pins do: give each sandbox a BPF file system of its own ([`bpffs`]), and unmounting it removes
//! everything at once.
//!
//! Rules by name reach it as [pins](Enforcer::pin), and what each rule decided about is [counted](Enforcer::counters). A
//! second fence ([`Enforcer::attach_cgroup`]) turns denied calls away before there is a packet.
//!
//! A denied packet is answered in place: TCP by a reset, UDP and ICMP echo by "administratively prohibited", so an agent
//! sees a refusal, never a hang.
//!
//! Needs Linux 6.1, `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON`; [`probe`] says what is missing.

mod abi;
pub mod bpffs;
mod cgroup;
mod counters;
mod enforcer;
mod error;
mod event;
#[cfg(any(test, feature = "harness"))]
pub mod harness;
mod ioctl;
mod lines;
mod link;
mod lpm;
mod memory;
mod pinned;
mod pins;
mod probe;
mod syscall;

pub use enforcer::{Enforcer, Options, Overflow};
pub use error::EbpfError;
pub use event::Events;
pub use lattice_policy::{Counter, Flow, Pin};
pub use link::{AttachMode, Attached, Framing};
pub use memory::give_back;
pub use probe::{Support, probe};
