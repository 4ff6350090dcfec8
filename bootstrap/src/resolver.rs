//! Starts the sandbox's resolver, on 127.0.0.1 of the agent's namespace. Its thread, and the sockets to the host's
//! nameservers, are in the underlay.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    sync::Arc,
};

use lattice_dns::{Config, Names, Resolver};
use lattice_overlay::Netns;
use lattice_wire::NetMap;

use crate::{
    gate::{PolicyGate, RESOLVER},
    overlay,
};

/// Which nameservers the host asks.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where an agent asks.
pub(crate) type Sockets = (UdpSocket, TcpListener);

/// Opens the sockets of an agent in `inside`, whose loopback must be up.
pub(crate) fn bind(inside: &Netns) -> io::Result<Sockets> {
    inside.run(|| Ok((UdpSocket::bind(RESOLVER)?, TcpListener::bind(RESOLVER)?)))?
}

/// Starts it on `sockets`; without any, only this process asks it. `nameservers` is the resolv.conf(5) that names whom to ask; the host's unless given.
pub(crate) fn start(
    sockets: Option<Sockets>,
    underlay: &Netns,
    nameservers: Option<PathBuf>,
    names: Names,
    gate: PolicyGate,
) -> io::Result<Resolver> {
    let (udp, tcp) = sockets.unzip();
    let config = Config {
        udp,
        tcp,
        resolv_conf: nameservers.unwrap_or_else(|| RESOLV_CONF.into()),
        names,
        gate: Arc::new(gate),
    };
    Resolver::start(config, &|work| underlay.run(work))
}

/// Replaces the overlay's names by those of `map`.
pub(crate) fn update(names: &Names, map: &NetMap) {
    // One that is none has no names either.
    let Ok(overlay) = overlay::of(map) else { return };
    let peers = map.peers.iter().map(|peer| {
        let addresses = overlay::of_peer(&overlay, map, peer)
            .into_iter()
            .filter(|net| net.prefix_len() == net.max_prefix_len());
        (peer.name.to_string(), addresses.map(|net| net.addr()).collect())
    });
    let workspaces = [Some(map.workspace.as_str()), map.workspace_name.as_deref()];
    names.replace(peers, workspaces.into_iter().flatten(), overlay.nets().to_vec());
}
