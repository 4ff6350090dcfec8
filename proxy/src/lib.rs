//! The proxy of pod mode: SOCKS5 and HTTP CONNECT on one port, and port forwards.
//!
//! Where an agent has no network of its own but a user-space one in another process, it reaches that by a proxy. An agent must choose to
//! use it (enforcement class `cooperative`), so the proxy is not what keeps it in; it only may open no way that the policy does not. It decides
//! nothing: whatever is asked for goes, unchanged in meaning, to [`Outbound`], which asks the policy and keeps the record.
//!
//! ```text
//!  agent ──► server ─ caps ─► session ─► handshake (socks, http; credentials) ─► Outbound::connect ─► relay
//!                                │                                            └► Outbound::udp ─────► udp
//!                                └ a refusal, in the client's own protocol
//!  peer  ──► Forward ───────────────────────────────────────────────────────► a service of the host
//! ```
//!
//! What reads bytes is pure: `handshake`, `socks`, `http` and `target` have no sockets and no clock, and read from a buffer of fixed size.
//! `server`, `session`, `relay`, `udp` and `forward` are the shell: tasks of one thread, which a [`LocalSet`](tokio::task::LocalSet) runs. A
//! connection on which nothing moves holds no buffer and wakes nobody. Every limit is in [`limits`].

#![forbid(unsafe_code)]

mod config;
mod counters;
mod credentials;
mod exchange;
mod forward;
#[doc(hidden)]
pub mod fuzz;
mod half_open;
mod handshake;
mod http;
pub mod limits;
mod outbound;
mod relay;
mod server;
mod session;
mod socks;
mod target;
mod udp;

pub use config::{Config, ConfigError};
pub use counters::Counters;
pub use credentials::{Credentials, InvalidCredentials};
pub use forward::{Forward, ForwardError, Forwarder, Service, Transport, parse_forwards};
pub use limits::Limits;
pub use outbound::{Because, Client, Datagrams, Outbound, Protocol, Refusal, Stream};
pub use relay::relay;
pub use server::{BindError, Proxy};
pub use target::{Host, HostName, NameError, Target};
