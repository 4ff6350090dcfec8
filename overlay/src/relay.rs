//! A lasting connection to one relay ([`lattice_wire::lrp`]), as the packet thread needs it.
//!
//! ```text
//!   packet thread ── send ──► outbox (bounded) ──► task ──► relay
//!                 ◄─ bell, receive ── inbox (bounded) ◄──
//!   task: connect (QUIC, TCP after 300 ms) ─ session ─ again, after a while
//! ```
//!
//! QUIC is used where a full-size datagram comes back from the relay, TCP elsewhere. A QUIC path that seems to have become too narrow is
//! tried anew, since much loss looks the same; one that is, is left for TCP, and TCP for QUIC when that works again. A relay is not trusted: what it delivers is for WireGuard to judge, and what it makes
//! this side remember is bounded.

mod client;
mod connect;
mod consent;
mod hold_off;
mod inbox;
mod outbox;
mod quic;
mod routes;
mod run;
mod session;
mod tcp;

pub use client::{RelayClient, RelayClientConfig, RelayClientError, RelayDrops, RelayState, Transport, Why};
