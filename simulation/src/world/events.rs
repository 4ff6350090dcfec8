//! What happens by itself as time passes: datagrams, frames, signals and maps arrive, devices do what they want to, and what they
//! do is looked at.

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

use lattice_wire::signal::{Candidate, CandidateKind, Signal};
use lattice_wireguard::Path;

use super::{BUSY, Node, UNDER_WAY, World};
use crate::{
    Delivery, Effect, HostId, Input, Member, PORT, control::Due, forbidden, relays, signalling::Letter, stun,
};

impl World {
    pub(super) fn next_at(&self) -> Option<Instant> {
        let running = self.nodes.iter().filter(|node| !node.suspended);
        let timeouts = running.filter_map(|node| node.device.poll_timeout());
        let services = [
            self.network.next_at(),
            self.relays.next_at(),
            self.signalling.next_at(),
            self.control.next_at(),
        ];
        services.into_iter().flatten().chain(timeouts).min()
    }

    pub(super) fn step(&mut self) {
        let now = self.now;
        while let Some(delivery) = self.network.poll(now) {
            self.deliver(delivery);
        }
        while let Some((host, relay, event)) = self.relays.poll(now) {
            let Some(node) = self.node_at(host) else { continue };
            match event {
                relays::Event::Frame { from, bytes } => {
                    let Some(sender) = self.node_at(from) else { continue };
                    let from = self.nodes[sender].member.key;
                    self.input(node, Input::Relayed { relay, from, bytes: &bytes });
                }
                relays::Event::Connected { round_trip } => {
                    self.note(|| format!("node {node} is connected with relay {relay}"));
                    self.input(node, Input::Relay { relay, round_trip: Some(round_trip) });
                }
                relays::Event::Lost => {
                    self.note(|| format!("node {node} has lost relay {relay}"));
                    self.input(node, Input::Relay { relay, round_trip: None });
                }
            }
        }
        while let Some(letter) = self.signalling.poll(now) {
            self.signal(letter);
        }
        while let Some(due) = self.control.poll(now) {
            self.control(due);
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].device.poll_timeout().is_some_and(|at| at <= now) {
                self.input(node, Input::Timeout);
                self.watch_business(node);
            }
        }
    }

    fn deliver(&mut self, Delivery { host, local, remote, sender, addressed, payload, .. }: Delivery) {
        if self.stun.iter().any(|(server, _)| *server == host) {
            if let Some(answer) = stun::answer(&payload, remote).filter(|_| local.port() == stun::PORT) {
                let from = (Some(local.ip()), local.port());
                self.network.send(host, from, remote, &answer, self.now);
            }
            return;
        }
        let Some(node) = self.node_at(host).filter(|_| local.port() == PORT) else { return };
        if let Some(sender) = self.node_at(sender) {
            self.check_addressee(sender, node, addressed);
        }
        self.trace.note_datagram(self.now, || {
            format!("node {node} gets {} bytes from {remote} at {local}", payload.len())
        });
        self.input(node, Input::Datagram { local, remote, bytes: &payload });
    }

    fn check_addressee(&mut self, sender: usize, node: usize, addressed: SocketAddr) {
        let Node { map, left_map, claims, .. } = &self.nodes[sender];
        let is_current =
            map.contains(&node) || left_map.get(&node).is_some_and(|at| self.now < *at + UNDER_WAY);
        // Two homes may use the same address: it may have been meant for somebody else.
        let is_claimed = claims.iter().any(|(peer, claimed)| *claimed == addressed && map.contains(peer));
        if node != sender && !is_current && !is_claimed {
            self.violate(|| {
                format!("node {sender} sends to node {node}, at {addressed}, which is not its peer")
            });
        }
    }

    fn signal(&mut self, Letter { from, to, signal }: Letter) {
        let (Some(from), Some(to)) = (self.node_at(from), self.node_at(to)) else { return };
        if !self.network.is_online(self.nodes[to].host) {
            return;
        }
        self.note(|| {
            let Signal { epoch, seq, answers, candidates, relays, .. } = &signal;
            let at: Vec<_> = candidates.iter().map(|candidate| candidate.address).collect();
            format!("node {to} hears node {from}: {epoch:x}/{seq} answers {answers:x?}, {at:?}, {relays:?}")
        });
        let claims = signal.candidates.iter().map(|candidate| (from, candidate.address));
        self.nodes[to].claims.extend(claims);
        let from = self.nodes[from].member.key;
        self.input(to, Input::Signal { from, signal });
    }

    fn control(&mut self, due: Due) {
        let (Due::Push(node) | Due::Report(node)) = due;
        let host = self.nodes[node].host;
        if !self.control.up || !self.network.is_online(host) || self.nodes[node].suspended {
            return self.control.later(due, self.now);
        }
        if let Due::Report(_) = due {
            let addresses = self.network.addresses(host).iter();
            let honest = addresses.map(|(_, address)| SocketAddr::new(*address, PORT));
            let endpoints = honest.chain(self.lies(node)).collect();
            return self.control.report(node, endpoints, self.now);
        }
        let peers: BTreeSet<usize> =
            (0..self.nodes()).filter(|peer| self.control.are_peers(node, *peer)).collect();
        self.note(|| format!("node {node} gets a map with {peers:?}"));
        let members = peers.iter().map(|peer| {
            let endpoints = self.control.endpoints(*peer).to_vec();
            Member { endpoints, ..self.nodes[*peer].member.clone() }
        });
        let members: Vec<Member> = members.collect();
        let told = &mut self.nodes[node];
        for peer in told.map.difference(&peers) {
            told.left_map.insert(*peer, self.now);
        }
        let claims = peers.iter().zip(&members);
        let claims = claims.flat_map(|(peer, member)| member.endpoints.iter().map(|at| (*peer, *at)));
        told.claims.extend(claims);
        told.map = peers;
        self.input(node, Input::Map(&members));
    }

    /// What a node says that is not true.
    pub(super) fn lies(&self, node: usize) -> impl Iterator<Item = SocketAddr> {
        let lies = if self.nodes[node].lies { forbidden::LIES.as_slice() } else { &[] };
        lies.iter().filter_map(|lie| lie.parse().ok())
    }

    pub(super) fn input(&mut self, node: usize, input: Input<'_>) {
        if self.nodes[node].suspended {
            return;
        }
        let mut effects = Vec::new();
        self.nodes[node].device.handle(input, self.now, &mut effects);
        effects.into_iter().for_each(|effect| self.effect(node, effect));
        if self.trace.is_on() {
            self.note_paths(node);
        }
    }

    fn note_paths(&mut self, node: usize) {
        for peer in 0..self.nodes.len() {
            let path = self.nodes[node].device.path(&self.nodes[peer].member.key);
            if self.nodes[node].traced.insert(peer, path) != Some(path) {
                let path = match path {
                    Some(Path::Direct { remote, local }) => format!("at {remote} from {local:?}"),
                    Some(Path::Relay { relay, .. }) => format!("by relay {relay}"),
                    None => "nowhere".to_owned(),
                };
                self.note(|| format!("node {node} sends to node {peer} {path}"));
            }
        }
    }

    fn effect(&mut self, node: usize, effect: Effect) {
        let host = self.nodes[node].host;
        match effect {
            Effect::Datagram { local, remote, bytes } => {
                self.nodes[node].sent += 1;
                if let Some(why) = forbidden::why(remote) {
                    self.violate(|| format!("node {node} sends to {remote}: {why}"));
                }
                self.network.send(host, (local, PORT), remote, &bytes, self.now);
            }
            Effect::Relayed { relay, to, bytes } => {
                self.nodes[node].sent += 1;
                let peer = self.nodes.iter().position(|peer| peer.member.key == to);
                let Some(peer) = peer.filter(|peer| self.nodes[node].map.contains(peer)) else {
                    return self.violate(|| format!("node {node} sends by a relay to what is not its peer"));
                };
                self.relays.forward(relay, host, self.nodes[peer].host, bytes, self.now);
            }
            Effect::Signal { to, mut signal } => {
                let peer = self.nodes.iter().position(|peer| peer.member.key == to);
                let Some(peer) = peer.filter(|peer| self.nodes[node].map.contains(peer)) else {
                    return self.violate(|| format!("node {node} signals to what is not its peer"));
                };
                let kind = CandidateKind::Host;
                let lies = self.lies(node).map(|address| Candidate { kind, address });
                signal.candidates = lies.chain(signal.candidates).collect();
                if self.network.is_online(host) {
                    let letter = Letter { from: host, to: self.nodes[peer].host, signal };
                    self.signalling.send(letter, self.now);
                }
            }
            Effect::Packet(packet) => {
                if let Err(violation) = self.ledger.deliver(node, &packet, self.now) {
                    self.violate(|| violation);
                }
            }
        }
    }

    fn watch_business(&mut self, node: usize) {
        let (at, count) = &mut self.nodes[node].busy;
        *count = if *at == Some(self.now) { *count + 1 } else { 0 };
        *at = Some(self.now);
        if *count > BUSY {
            self.violate(|| format!("node {node} asks for the same moment again and again"));
        }
    }

    fn node_at(&self, host: HostId) -> Option<usize> {
        self.nodes.iter().position(|node| node.host == host)
    }

    fn violate(&mut self, what: impl FnOnce() -> String) {
        let what = what();
        self.note(|| format!("VIOLATION: {what}"));
        self.violation.get_or_insert(what);
    }
}
