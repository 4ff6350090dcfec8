//! A small network for end-to-end tests: a control plane, hosts, and the commands that run on them.
//!
//! ```text
//!            hub 192.168.50.1  latticed, nats-server
//!             │ bridge
//!      ┌──────┴──────┐
//!   .2 host       .3 host      lattice up, lattice sandbox start
//! ```
//!
//! Every namespace is anonymous and every file lies in one temporary directory, so labs run side by side and a killed
//! test leaves nothing: its processes die with it (PDEATHSIG) and the namespaces with them.

#![forbid(unsafe_code)]

pub mod agent;
pub mod clock;
pub mod containerd;
pub mod lab;
pub mod nat;
pub mod prober;
pub mod process;
pub mod reach;
pub mod remains;
pub mod sniffer;
pub mod tools;
pub mod unprivileged;

pub use agent::Attempt;
pub use clock::Clock;
pub use lab::{Host, Lab};
pub use nat::{Nat, Router};
pub use prober::Prober;
pub use process::{Output, Process};
pub use reach::Reach;
pub use sniffer::{Packet, Sniffer};
pub use unprivileged::{Pod, User};
