//! A TCP/IP stack in user space as a state machine: IP packets go in and come out, byte streams and datagrams do the other
//! way round. It opens no socket, starts no thread and reads no clock: time and randomness are arguments.
//!
//! ```text
//!  IP packets of the overlay                                     streams and datagrams of the owner
//!  ─────────────────────────────────────────────────────────────────────────────────────────────────
//!  receive ─►  ip ─► tcp ─► 5-tuple ─► Flow ─► smoltcp  ─►  recv, recv_with      poll_event
//!              │      └─► no flow: Incoming (the owner decides), TimeWait, reset
//!              ├─► udp ─► port ─────────────────────────────►  recv_from
//!              └─► icmp: echo answered; errors ─► flow, path MTU
//!  Output  ◄─  Run: up to 64 KiB of one stream  ◄─ poll ◄──  send, send_with, connect, accept, shutdown_write
//! ```
//!
//! Give it packets with [`Stack::receive`], do what you have to with flows, then call [`Stack::poll`]: it sends what is to be
//! sent, does what time asks for, and only then there are new events. [`Stack::poll_at`] says when to come again though
//! nothing happened; of an idle stack it is `None`, or far away.
//!
//! **smoltcp** does what TCP is: states, windows, retransmission, CUBIC. There is one for each connection, so finding the
//! connection is one look into a table however many there are, and path MTU, memory and congestion of one are no other's.
//! What it lacks is around it; `flow` has the list.
//!
//! **What peers can make it do** is bounded ([`Limits`]). Nothing is answered to who asks for a connection before the owner
//! has said so. Nothing is allocated for a packet of a connection; one that is idle costs a few KiB, as buffers become memory
//! only as they are used.
//!
//! **What it does not do**: fragments and IPv6 extension headers are dropped and counted; TCP has no timestamps, and the
//! sender makes nothing of selective acknowledgements (smoltcp does not).

#![forbid(unsafe_code)]

pub mod checksum;
mod clock;
mod config;
pub mod datagram;
mod deadlines;
mod drops;
pub mod echo;
mod error;
mod event;
mod flow;
pub mod fuzz;
mod icmp;
mod incoming;
mod ip;
mod memory;
mod path_mtu;
mod rate;
mod run;
mod stack;
mod table;
mod tcp;
mod time_wait;
mod tuple;
mod udp;

pub use config::{Config, Limits, Random};
pub use drops::Drops;
pub use error::Error;
pub use event::{Cause, Event, FlowId, IncomingId};
pub use run::Run;
pub use stack::Stack;
pub use udp::Datagram;

/// Where packets go. A closure that takes a [`Run`] is one.
pub trait Output {
    /// Sends packets. What of a run is not taken is lost, as on a wire.
    fn transmit(&mut self, packets: &mut Run<'_>);

    /// Whether there is no room for more now: then [`Stack::poll`] leaves the rest for the next time.
    fn is_full(&self) -> bool {
        false
    }
}

impl<F: FnMut(&mut Run<'_>)> Output for F {
    fn transmit(&mut self, packets: &mut Run<'_>) {
        self(packets);
    }
}
