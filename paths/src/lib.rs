//! Which path to take to each peer: a state machine of connectivity checks (ICE, RFC 8445), STUN queries and relays, without I/O. Time
//! and randomness are arguments.
//!
//! ```text
//!  the device's owner                                 Paths
//!  ─────────────────────────────────────────────────────────────────────────────────────────────
//!  network map         set_peers, set_stun_servers ─►┌──────────────────────────────┐
//!  links               set_local                   ─►│ one Peer each; a Session only│
//!  relay clients       set_relay, remove_relay     ─►│ while there is traffic       │
//!  WireGuard           wants, saw_traffic          ─►│                              │─► poll_event: Select { peer, path }, Ended { peer }
//!  UDP, mux says STUN  handle_stun                 ─►│                              │─► poll_transmit: (local, remote, bytes)
//!  NATS                handle_signal               ─►│                              │─► poll_signal: (peer, Signal)
//!  clock               handle_timeout              ─►└──────────────────────────────┘─► poll_timeout
//! ```
//!
//! After each input, take all outputs: transmits, signals, events; then ask for the timeout.
//!
//! **What is selected.** A direct path as soon as a check of it was answered; before that, and within a second after it stops
//! answering, the relay that both are connected to; `None` when neither is known: WireGuard then tries the map's endpoints by itself
//! (static servers, peers that do not signal). A switch loses nothing, because WireGuard takes authentic packets from anywhere.
//!
//! **What a peer costs.** One without traffic: its entry in memory. It has no timer, no NAT binding and no credentials until
//! [`Paths::wants`] or a signal of its own begins a session; three minutes without traffic end it.
//!
//! **What is believed.** Signals come sealed from the peer, but NATS may repeat, lose and reorder them, and the peer itself may be
//! hostile: candidates count only in a signal that answers our present epoch, addresses nobody has any business with are never probed
//! ([`address`]), and how much is sent to addresses that have not answered is bounded per peer and in all ([`limits`]).
//!
//! **Why not a ready-made ICE agent.** `is` 0.12 keeps a pair that stopped answering for 15 s after the last request on it, keeps every
//! address that an authenticated peer ever claims, takes its transaction ids from a generator that is not made for that, and finds the
//! owner of an answer by looking through all pairs of all agents. The tests have it as the other end.

#![forbid(unsafe_code)]

pub mod address;
mod checks;
pub mod fuzz;
mod gather;
pub mod limits;
pub mod mux;
mod paths;
mod peer;
mod relays;
mod remote;
mod session;
mod shared;
mod signalling;
mod status;
mod stun;

pub use paths::Paths;
pub use shared::{Config, Event, PathPeer, Transmit};
pub use status::PathStatus;

#[cfg(test)]
mod tests;
