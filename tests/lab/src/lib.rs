//! An agent and its peer for the tests of enforcers, each in an anonymous network namespace that the kernel destroys with its last
//! descriptor.
//!
//! What enforces the policy between them is the test's: [`Pair`] does what the two do by sockets.

#![allow(clippy::unwrap_used, reason = "tests alone use it, and end where it fails")]

mod netns;
mod table;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
    time::Duration,
};

use nix::net::if_::if_nametoindex;

pub use netns::Netns;
pub use table::{entry, line, table};

/// The link on either side.
pub const LINK: &str = "wg0";
/// The agent.
pub const AGENT4: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 2);
/// Likewise.
pub const AGENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
/// Its peer.
pub const PEER4: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
/// Likewise.
pub const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// Routed to the link, and there is nobody.
pub const NOWHERE4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Likewise.
pub const NOWHERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Only says when a test has failed; nothing is measured by it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The two namespaces.
#[derive(Debug)]
pub struct Pair {
    /// The agent's.
    pub agent: Arc<Netns>,
    /// That of its peer.
    pub peer: Netns,
}

impl Pair {
    /// Two namespaces without a link between them.
    #[allow(clippy::new_without_default, reason = "it makes namespaces")]
    pub fn new() -> Self {
        Self { agent: Arc::new(Netns::new()), peer: Netns::new() }
    }

    /// Joins them by a veth pair, down.
    pub fn add_veth(&self) {
        self.agent.ip(&format!("link add {LINK} type veth peer name {LINK} netns {}", self.peer.path()));
    }

    /// Addresses, links up, and the agent's default routes, `by_peer` as their gateway.
    pub fn configure(&self, by_peer: bool) {
        for (netns, v4, v6) in [(&self.peer, PEER4, PEER6), (&*self.agent, AGENT4, AGENT6)] {
            netns.ip(&format!("addr add {v4}/24 dev {LINK}"));
            netns.ip(&format!("addr add {v6}/64 dev {LINK} nodad"));
            netns.ip("link set lo up");
            netns.ip(&format!("link set {LINK} up"));
        }
        let (via4, via6) =
            if by_peer { (format!("via {PEER4} "), format!("via {PEER6} ")) } else { Default::default() };
        self.agent.ip(&format!("route add default {via4}dev {LINK}"));
        self.agent.ip(&format!("-6 route add default {via6}dev {LINK}"));
        // The strictest: an answer must come from where its source is routed.
        self.agent.run(|| {
            for which in ["all", LINK] {
                fs::write(format!("/proc/sys/net/ipv4/conf/{which}/rp_filter"), "1").unwrap();
            }
        });
    }

    /// The agent connects.
    ///
    /// # Errors
    /// What it is told.
    pub fn connect(&self, ip: IpAddr, port: u16) -> io::Result<TcpStream> {
        patient(self.agent.run(|| TcpStream::connect_timeout(&(ip, port).into(), PATIENCE)))
    }

    /// The peer connects.
    ///
    /// # Errors
    /// What it is told.
    pub fn connect_from_peer(&self, ip: IpAddr, port: u16) -> io::Result<TcpStream> {
        patient(self.peer.run(|| TcpStream::connect_timeout(&(ip, port).into(), PATIENCE)))
    }

    /// A listener of the peer.
    pub fn peer_listens(&self, ip: IpAddr, port: u16) -> TcpListener {
        self.peer.run(|| TcpListener::bind((ip, port)).unwrap())
    }

    /// A listener of the agent.
    pub fn agent_listens(&self, ip: IpAddr, port: u16) -> TcpListener {
        self.agent.run(|| TcpListener::bind((ip, port)).unwrap())
    }

    /// A UDP socket of the peer.
    pub fn peer_binds(&self, ip: IpAddr, port: u16) -> UdpSocket {
        let socket = self.peer.run(|| UdpSocket::bind((ip, port)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// A UDP socket of the agent, connected, so that it hears of ICMP errors.
    pub fn agent_udp(&self, ip: IpAddr, port: u16) -> UdpSocket {
        self.agent_udp_from(if ip.is_ipv4() { AGENT4.into() } else { AGENT6.into() }, ip, port)
    }

    /// [`Pair::agent_udp`] from an address of the agent's.
    pub fn agent_udp_from(&self, from: IpAddr, ip: IpAddr, port: u16) -> UdpSocket {
        let socket = self.agent.run(|| UdpSocket::bind((from, 0)).unwrap());
        socket.connect((ip, port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// The index of the agent's link.
    pub fn link_index(&self) -> u32 {
        self.agent.run(|| if_nametoindex(LINK).unwrap())
    }
}

fn patient(stream: io::Result<TcpStream>) -> io::Result<TcpStream> {
    let stream = stream?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
