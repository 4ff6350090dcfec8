//! The WireGuard protocol of one device as a state machine: packets, datagrams and time go in, packets and datagrams
//! come out by an [`Output`]. It opens no socket and no device.
//!
//! ```text
//!   handle_packets   ─►  allowed IPs choose the peer  ─►  seal  ─►  transmit
//!   handle_datagram  ─►  index or key names the peer  ─►  open  ─►  is the source the peer's?  ─►  deliver
//!   handle_timeout   ─►  handshakes, keepalives, expiry of every peer; poll_timeout says when
//! ```
//!
//! The Noise handshake, the sessions and their timers are `gotatun`'s, which only [`noise`] names; it reads the clock
//! itself, all else takes the time as an argument.

#![forbid(unsafe_code)]

mod config;
mod drops;
pub mod fuzz;
mod interface;
mod ip;
mod load;
mod noise;
mod packets;
mod path;
mod peer;
mod retransmit;
mod routes;
mod unreachable;

pub use config::PeerConfig;
pub use drops::Drops;
pub use interface::Interface;
pub use packets::{Packets, Single};
pub use path::{Path, RelayNumber};
pub use peer::Peer;

/// Where the state machine's products go.
pub trait Output {
    /// Sends an encrypted datagram of `len` bytes by `path`. `write` fills the room it is given, which is that long: the tail
    /// of a run of datagrams, where the path has such.
    fn transmit(&mut self, path: Path, len: usize, write: impl FnOnce(&mut [u8]));
    /// Hands a decrypted packet to the link.
    fn deliver(&mut self, packet: &[u8]);
}
