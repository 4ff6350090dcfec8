//! WireGuard with path finding, put together as the overlay's device does it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use lattice_paths::{
    Config, Event, PathPeer, Paths,
    mux::{self, Kind},
};
use lattice_wire::WgPublicKey;
use lattice_wireguard::{Path, Single};

use crate::{
    Device, Effect, Identity, Input, Member, PORT, Relays,
    bare::{Out, WireGuard, pool},
};

/// WireGuard and what finds its paths.
pub struct Full {
    wireguard: WireGuard,
    paths: Paths,
    /// By address in the overlay.
    peers: BTreeMap<IpAddr, WgPublicKey>,
}

impl Full {
    /// A device without peers.
    pub fn boxed(mut identity: Identity, now: Instant) -> Box<dyn Device> {
        let config = Config { key: identity.private_key.public(), pool: vec![pool()] };
        let mut random = identity.random.split();
        let mut paths = Paths::new(config, move |bytes| random.fill(bytes));
        paths.set_stun_servers(&identity.stun, now);
        let wireguard = WireGuard::new(&identity.private_key, identity.random, now);
        Box::new(Self { wireguard, paths, peers: BTreeMap::new() })
    }

    fn set_peers(&mut self, members: &[Member], now: Instant, out: &mut Vec<Effect>) {
        self.peers = members.iter().map(|member| (member.overlay.into(), member.key)).collect();
        let peers = members
            .iter()
            .map(|Member { key, endpoints, .. }| PathPeer { key: *key, endpoints: endpoints.clone() });
        self.paths.set_peers(&peers.collect::<Vec<_>>(), now);
        self.wireguard.set_peers(members, now, out);
    }

    /// WireGuard's part of the traffic. Whatever it finds authentic is news of that path.
    fn datagram(&mut self, from: Path, bytes: &[u8], now: Instant, out: &mut Vec<Effect>) {
        let interface = &mut self.wireguard.interface;
        interface.handle_datagram(from, &mut bytes.to_vec(), now, &mut Out(out));
        let heard = self.peers.values().filter(|key| {
            let peer = interface.peer(key);
            peer.is_some_and(|peer| {
                (peer.last_received(), peer.last_received_by()) == (Some(now), Some(from))
            })
        });
        for key in heard {
            self.paths.saw_traffic(key, from, now);
        }
    }

    fn packet(&mut self, packet: &[u8], now: Instant, out: &mut Vec<Effect>) {
        let to = packet.get(16..20).and_then(|octets| <[u8; 4]>::try_from(octets).ok());
        if let Some(key) = to.and_then(|octets| self.peers.get(&octets.into())) {
            self.paths.wants(key, now);
            self.select(now, out);
        }
        self.wireguard.interface.handle_packets(&mut Single::new(packet), now, &mut Out(out));
    }

    fn select(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while let Some(event) = self.paths.poll_event() {
            let Event::Select { peer, path } = event else { continue };
            self.wireguard.interface.set_path(&peer, path, now, &mut Out(out));
        }
    }
}

impl Device for Full {
    fn handle(&mut self, input: Input<'_>, now: Instant, out: &mut Vec<Effect>) {
        self.wireguard.set_time(now);
        match input {
            Input::Map(members) => self.set_peers(members, now, out),
            Input::Addresses(addresses) => {
                let local: Vec<SocketAddr> =
                    addresses.iter().map(|address| SocketAddr::new(*address, PORT)).collect();
                self.paths.set_local(&local, now);
            }
            Input::Datagram { local, remote, bytes } => match mux::classify(bytes) {
                Kind::WireGuard => {
                    self.datagram(Path::Direct { remote, local: Some(local.ip()) }, bytes, now, out);
                }
                Kind::Stun => {
                    self.paths.handle_stun(local, remote, bytes, now);
                }
                Kind::Garbage => {}
            },
            Input::Relayed { relay, from, bytes } => {
                self.datagram(Path::Relay { relay, peer: from }, bytes, now, out);
            }
            Input::Relay { relay, round_trip: Some(time) } => {
                self.paths.set_relay(relay, &Relays::name(relay), Some(time), now);
            }
            Input::Relay { relay, round_trip: None } => self.paths.remove_relay(relay, now),
            Input::Signal { from, signal } => self.paths.handle_signal(&from, signal, now),
            Input::Packet(packet) => self.packet(packet, now, out),
            Input::Resumed => self.wireguard.interface.forget_sessions(now, &mut Out(out)),
            Input::Timeout => {
                self.paths.handle_timeout(now);
                self.select(now, out);
                self.wireguard.interface.handle_timeout(now, &mut Out(out));
            }
        }
        self.select(now, out);
        while let Some(transmit) = self.paths.poll_transmit() {
            let (local, remote, bytes) = (Some(transmit.local.ip()), transmit.remote, transmit.payload);
            out.push(Effect::Datagram { local, remote, bytes });
        }
        while let Some((to, signal)) = self.paths.poll_signal() {
            out.push(Effect::Signal { to, signal });
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.paths.poll_timeout().into_iter().chain(self.wireguard.interface.poll_timeout()).min()
    }

    fn path(&self, key: &WgPublicKey) -> Option<Path> {
        self.wireguard.interface.peer(key)?.path()
    }

    fn describe(&self) -> String {
        let states = self.peers.iter().map(|(address, key)| {
            let path = self.path(key);
            let why = self.paths.status(key).and_then(|status| status.why_not_direct);
            format!("\n  {address}: {path:?}, {why:?}")
        });
        format!("{:?}{}", self.wireguard.interface.drops(), states.collect::<String>())
    }
}
