//! A network in virtual time: nodes, NATs, relays, loss and partitions from a seed, for tests of the data plane.
//!
//! ```text
//!   scenario (from a seed) ─► World ── Device of each node (the real state machines)
//!                               ├── Network: hosts, routers, NATs, links
//!                               ├── Relays, Signalling, Control, STUN
//!                               └── Ledger: what was sent and what arrived;   model: what must
//! ```
//!
//! Nothing here reads a clock, the OS' randomness or a socket: a run follows from its seed, and so does its trace.

#![forbid(unsafe_code)]

mod bare;
mod control;
mod device;
mod forbidden;
mod full;
mod ledger;
mod link;
pub mod model;
mod nat;
mod network;
mod places;
mod queue;
mod random;
mod relays;
pub mod scenario;
mod signalling;
pub mod stun;
mod trace;
mod world;

pub use bare::Bare;
pub use control::Control;
pub use device::{Device, Effect, Input, Member, PORT};
pub use forbidden::LIES;
pub use full::Full;
pub use ledger::{Ledger, Pair};
pub use link::Link;
pub use nat::{Behaviour, Dependence, Nat};
pub use network::{Delivery, HostId, INTERNET, Network, Router, RouterId, ZoneId};
pub use places::{Place, Places};
pub use random::Random;
pub use relays::Relays;
pub use signalling::Signalling;
pub use world::{Identity, World};
