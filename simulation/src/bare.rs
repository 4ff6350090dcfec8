//! WireGuard alone: it searches its peers at the addresses that the control plane names. No relay, no hole punching.

use std::{net::IpAddr, time::Instant};

use lattice_wire::WgPublicKey;
use lattice_wireguard::{Interface, Output, Path, PeerConfig, Single};

use crate::{Device, Effect, Identity, Input, Member, forbidden};

/// What the inner packets may measure.
const MTU: u16 = 1280;

/// An interface as a device.
pub struct Bare(Interface);

impl Bare {
    /// A device without peers.
    pub fn boxed(identity: Identity, now: Instant) -> Box<dyn Device> {
        Box::new(Self(Interface::new(&identity.private_key, MTU, now)))
    }
}

/// What an interface puts out.
pub(crate) struct Out<'a>(pub(crate) &'a mut Vec<Effect>);

impl Output for Out<'_> {
    fn transmit(&mut self, path: Path, len: usize, write: impl FnOnce(&mut [u8])) {
        let mut bytes = vec![0; len];
        write(&mut bytes);
        self.0.push(match path {
            Path::Direct { remote, local } => Effect::Datagram { local, remote, bytes },
            Path::Relay { relay, peer } => Effect::Relayed { relay, to: peer, bytes },
        });
    }

    fn deliver(&mut self, packet: &[u8]) {
        self.0.push(Effect::Packet(packet.to_vec()));
    }
}

/// A peer as WireGuard knows it. What it says of its addresses is sifted by the interface's owner.
pub(crate) fn peer(member: &Member) -> PeerConfig {
    let endpoints = member.endpoints.iter().filter(|endpoint| forbidden::why(**endpoint).is_none());
    PeerConfig {
        public_key: member.key,
        allowed_ips: vec![IpAddr::V4(member.overlay).into()],
        endpoints: endpoints.copied().collect(),
        keepalive: None,
    }
}

impl Device for Bare {
    fn handle(&mut self, input: Input<'_>, now: Instant, out: &mut Vec<Effect>) {
        let mut out = Out(out);
        match input {
            Input::Map(members) => {
                let peers: Vec<PeerConfig> = members.iter().map(peer).collect();
                self.0.set_peers(&peers, now, &mut out);
            }
            Input::Datagram { local, remote, bytes } => {
                let from = Path::Direct { remote, local: Some(local.ip()) };
                self.0.handle_datagram(from, &mut bytes.to_vec(), now, &mut out);
            }
            Input::Packet(packet) => self.0.handle_packets(&mut Single::new(packet), now, &mut out),
            Input::Timeout => self.0.handle_timeout(now, &mut out),
            Input::Addresses(_) | Input::Relayed { .. } | Input::Relay { .. } | Input::Signal { .. } => {}
            Input::Resumed => {}
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    fn path(&self, key: &WgPublicKey) -> Option<Path> {
        self.0.peers().find(|peer| peer.public_key() == *key)?.path()
    }

    fn describe(&self) -> String {
        format!("{:?}", self.0.drops())
    }
}
