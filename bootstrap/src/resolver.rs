//! Starts the sandbox's resolver, on 127.0.0.1 of the agent's namespace. Its thread, and the sockets to the host's
//! nameservers, are in the underlay.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    sync::Arc,
};

use ipnet::IpNet;
use lattice_dns::{Config, Names, Resolver};
use lattice_overlay::Netns;
use lattice_wire::NetMap;

use crate::gate::{PolicyGate, RESOLVER};

/// Which nameservers the host asks.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where an agent asks.
pub(crate) type Sockets = (UdpSocket, TcpListener);

/// Opens the sockets of an agent in `inside`, whose loopback must be up.
pub(crate) fn bind(inside: &Netns) -> io::Result<Sockets> {
    inside.run(|| Ok((UdpSocket::bind(RESOLVER)?, TcpListener::bind(RESOLVER)?)))?
}

/// Starts it on `sockets`. `nameservers` is the resolv.conf(5) that names whom to ask; the host's unless given.
pub(crate) fn start(
    (udp, tcp): Sockets,
    underlay: &Netns,
    nameservers: Option<PathBuf>,
    names: Names,
    gate: PolicyGate,
) -> io::Result<Resolver> {
    let config = Config {
        udp: Some(udp),
        tcp: Some(tcp),
        resolv_conf: nameservers.unwrap_or_else(|| RESOLV_CONF.into()),
        names,
        gate: Arc::new(gate),
    };
    Resolver::start(config, &|work| underlay.run(work))
}

/// Replaces the overlay's names by those of `map`.
pub(crate) fn update(names: &Names, map: &NetMap) {
    let peers = map.peers.iter().map(|peer| {
        let addresses = peer.allowed_ips.iter().filter(|net| net.prefix_len() == net.max_prefix_len());
        (peer.name.to_string(), addresses.map(IpNet::addr).collect())
    });
    let workspaces = [Some(map.workspace.as_str()), map.workspace_name.as_deref()];
    names.replace(peers, workspaces.into_iter().flatten(), vec![map.pool.into()]);
}
