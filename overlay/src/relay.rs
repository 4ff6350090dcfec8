//! A lasting connection to one relay ([`lattice_wire::lrp`]), as the packet thread needs it.
//!
//! ```text
//!   packet thread ── send ──► outbox (bounded) ──► task ──► relay
//!                 ◄─ bell, receive ── inbox (bounded) ◄──
//!   task: connect (QUIC, TCP after 300 ms) ─ session ─ again, after a while
//! ```
//!
//! QUIC is used where a full-size datagram comes back from the relay, TCP elsewhere; a QUIC path that turns out to be too narrow is left
//! for TCP, and TCP for QUIC when that works again. A relay is not trusted: what it delivers is for WireGuard to judge, and what it makes
//! this side remember is bounded.

mod client;
mod connect;
mod consent;
mod inbox;
mod outbox;
mod quic;
mod routes;
mod run;
mod session;
mod tcp;

pub use client::{RelayClient, RelayClientConfig, RelayClientError, RelayDrops, RelayState, Transport, Why};
