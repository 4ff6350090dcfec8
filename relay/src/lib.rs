//! The LRP relay, the connection to one, and the STUN server: servers that need not be trusted with anything but to be there.
//!
//! The protocol is described in [`lattice_wire::lrp`].
//!
//! ```text
//!   server ── accepts: sources (how many, how often), tls, transport (QUIC's settings)
//!     └─ session/{quic,tcp} ── handshake, then
//!          ├─ control ──► registry: who is there, who has a route to whom   (one lock, seldom taken)
//!          └─ data ─────► member: its routes, its outbox                    (per packet)
//!   client ── the other end of a session, until the handshake is over
//!   stun ──── answers binding requests (RFC 8489)
//!   status ── /metrics and /healthz
//! ```

#![forbid(unsafe_code)]

pub mod client;
pub mod frames;
mod handshake;
mod identity;
mod member;
mod metrics;
mod outbox;
mod rate;
mod registry;
mod server;
mod session;
mod sources;
mod status;
pub mod stun;
mod tls;
mod transport;

pub use identity::{Identity, IdentityError};
pub use metrics::Metrics;
pub use server::{Config, Relay, RelayError};
pub use status::{Source, serve as serve_status};
pub use tls::{Fingerprint, InvalidFingerprint};
pub use transport::{fits, sized_udp};
