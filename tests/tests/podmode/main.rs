//! Pod mode from end to end: sandboxes of a user without a name, a privilege or a TUN, in the namespace of a lab's host.
//!
//! ```text
//!   hub  control plane                        near   the user's sandboxes, and what stands for his agents
//!    └── bridge ──┬────────┐                  far    `lattice up`, with services on all its addresses
//!                near     far
//! ```

mod bad_input;
mod bulk;
mod client;
mod compose;
mod control;
mod endings;
mod forwards;
mod garbage;
mod health;
mod idle;
mod ipv6;
mod outside;
mod reach;
mod services;
mod shortages;
mod streams;
mod web_socket;
mod world;
