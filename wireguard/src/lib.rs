//! The WireGuard protocol of one device as a state machine: packets, datagrams and time go in, packets and datagrams
//! come out by an [`Output`]. It opens no socket and no device.
//!
//! ```text
//!   handle_packets   ─►  allowed IPs choose the peer  ─►  seal  ─►  transmit
//!   handle_datagram  ─►  index or key names the peer  ─►  open  ─►  is the source the peer's?  ─►  deliver
//!   handle_timeout   ─►  handshakes, keepalives, expiry of every peer; poll_timeout says when
//! ```
//!
//! It is written after the WireGuard paper (Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", 2020-06-01),
//! whose sections the modules name, from the bytes up:
//!
//! | modules | hold |
//! |---|---|
//! | `kdf`, `symmetric`, `timestamp` | hashes, keys, the state of a Noise handshake |
//! | `message`, `handshake`, `cookie` | the messages, what both ends make of them, what proves an address |
//! | `session`, `replay` | what a handshake leaves: keys, counters, and which were used |
//! | `peer`, `timers`, `paths`, `queue`, `retransmit`, `pending` | all that is under way with one peer, and where it is |
//! | `interface`, `routes`, `index`, `deadlines`, `load` | all peers, and strangers |
//!
//! Time and randomness are arguments: no code here reads a clock, and the kernel's randomness comes by [`Sources`]. So the
//! tests run in virtual time, and are the same each time.
//!
//! Secrets are wiped when they are dropped. What ring and BLAKE2s hold on the stack while they work is not; it is
//! overwritten by what comes next.

#![forbid(unsafe_code)]

mod config;
mod cookie;
mod deadlines;
mod drops;
pub mod fuzz;
mod handshake;
mod hasher;
mod index;
mod interface;
mod ip;
mod kdf;
mod limits;
mod load;
mod message;
mod packets;
mod path;
mod paths;
mod peer;
mod pending;
mod queue;
mod replay;
mod retransmit;
mod routes;
mod session;
mod shared;
mod sources;
mod symmetric;
mod timers;
mod timestamp;
mod unreachable;

pub use config::PeerConfig;
pub use drops::Drops;
pub use interface::Interface;
pub use packets::{Packets, Single};
pub use path::{Path, RelayNumber};
pub use peer::Peer;
pub use sources::{OsRandom, Random, Sources};

/// Where the state machine's products go.
pub trait Output {
    /// Sends an encrypted datagram of `len` bytes by `path`. `write` fills the room it is given, which is that long: the tail
    /// of a run of datagrams, where the path has such.
    fn transmit(&mut self, path: Path, len: usize, write: impl FnOnce(&mut [u8]));
    /// Hands a decrypted packet to the link, which may overwrite it.
    fn deliver(&mut self, packet: &mut [u8]);
}
