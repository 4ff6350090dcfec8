//! Phase one: everything that must stand before an agent may start, as one ordered list of named steps, each with its
//! undo.
//!
//! ```text
//! netns ─► identity ─► device ─► veth ─► policy ─► links ─► uplink ─► resolver ─► peers ─► Ready
//!    ▲                                                                                        │
//!    └────────────────────── undone in reverse: on failure, on a signal, at the end ──────────┘
//! ```
//!
//! Once the namespace is there, whoever runs phase one may have the sandbox made in it meanwhile; the agent is started with the `Ready`.
//! `veth` and `uplink` are there only when a rule names what lies outside the overlay. The policy is attached while the device is still down, so no link of the agent's namespace is ever up without it.
//! What a `kill -9` of ours leaves behind is found through the state directory ([`StateDir`]) and removed by the next start or by
//! `lattice doctor --fix`; the pinned policy stays in force until then.

mod addresses;
mod bell;
pub mod control;
pub mod credentials;
mod enforce;
pub mod failure;
#[cfg(test)]
mod fake;
mod gate;
mod generations;
mod guide;
pub mod handed;
mod heard;
mod identity;
pub mod layers;
mod links;
mod live;
pub mod node;
mod overlay;
mod pending;
pub mod pod;
pub mod proxied;
pub mod reach;
mod ready;
mod recorder;
mod renew;
mod resolver;
pub mod sandbox;
mod server;
mod session;
mod settle;
pub mod signals;
mod source;
pub mod state;
pub mod steps;
mod sync;
pub mod uplink;

pub use enforce::{EnforcerChoice, enforcement};
pub use failure::{Failure, Kind};
pub use handed::{Handed, HandedConfig, HandedSandbox, InsideLink};
pub use identity::Join;
pub use lattice_ebpf::AttachMode;
pub use node::{Node, NodeConfig};
pub use pod::Pod;
pub use proxied::{ProxiedConfig, ProxiedSandbox};
pub use reach::{Finder, Reachable};
pub use ready::Ready;
pub use sandbox::{Sandbox, SandboxConfig};
pub use server::ServerUrl;
pub use signals::{Roster, SignalReceiver, SignalSender, Signals};
pub use state::{Listed, Role, StateDir, Status};
pub use steps::{Progress, Steps, Stop};
