//! A network in virtual time: hosts, NATs, loss and partitions from a seed, for tests of the data plane.

#![forbid(unsafe_code)]

mod link;
mod nat;
mod network;
mod queue;
mod random;
pub mod stun;

pub use link::Link;
pub use nat::{Behaviour, Dependence, Nat};
pub use network::{Delivery, HostId, Network, Router, RouterId, ZoneId};
pub use random::Random;
