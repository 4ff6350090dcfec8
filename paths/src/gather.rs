//! How the world sees our socket: queries of STUN servers from each of our addresses, repeated as RFC 8489 section 6.2.1 says, and then
//! often enough that the NAT keeps the mapping.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    address,
    limits::MAX_STUN_SERVERS,
    stun::{self, TransactionId},
};

/// The first wait for an answer; each next one is twice as long.
const RTO: Duration = Duration::from_millis(500);
/// How often a question is sent (`Rc`).
const TRIES: u32 = 7;
/// How often a mapping is asked for again. NATs keep one for 30 s at least, nearly all of them (RFC 4787 REQ-5 asks for two minutes).
const REFRESH: Duration = Duration::from_secs(25);
/// How soon a server that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(60);

/// One of our addresses, and one server.
#[derive(Debug)]
struct Query {
    base: SocketAddr,
    server: SocketAddr,
    transaction: TransactionId,
    /// Sent how often since the last answer.
    tries: u32,
    due: Instant,
    mapped: Option<SocketAddr>,
    /// It was asked to the end at least once, in vain or not.
    settled: bool,
}

/// What the answers of several servers say about the NAT before us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nat {
    /// Nothing is known, or too little.
    Unknown,
    /// No server answers.
    NoAnswer,
    /// Each destination sees another port: who asks elsewhere where we are is told wrong (RFC 4787: address-dependent mapping).
    Symmetric,
    /// All destinations see the same.
    Steady,
}

/// The queries. Nothing is sent until [`Self::start`].
#[derive(Debug, Default)]
pub(crate) struct Gather {
    bases: Vec<SocketAddr>,
    servers: Vec<SocketAddr>,
    queries: Vec<Query>,
    running: bool,
}

impl Gather {
    /// Says whether that is a change.
    pub(crate) fn set_bases(&mut self, bases: Vec<SocketAddr>, now: Instant) -> bool {
        let changed = self.bases != bases;
        if changed {
            self.bases = bases;
            self.begin(now);
        }
        changed
    }

    pub(crate) fn set_servers(&mut self, servers: &[SocketAddr], now: Instant) {
        let mut servers: Vec<_> = servers.iter().map(|server| address::canonical(*server)).collect();
        servers.sort();
        servers.dedup();
        servers.truncate(MAX_STUN_SERVERS);
        if self.servers != servers {
            self.servers = servers;
            self.begin(now);
        }
    }

    fn begin(&mut self, now: Instant) {
        let pairs =
            self.bases.iter().flat_map(|base| self.servers.iter().map(move |server| (*base, *server)));
        let same_version = pairs.filter(|(base, server)| base.is_ipv4() == server.is_ipv4());
        let query = |(base, server)| Query {
            base,
            server,
            transaction: [0; 12],
            tries: 0,
            due: now,
            mapped: None,
            settled: false,
        };
        self.queries = same_version.map(query).collect();
    }

    /// Some peer needs direct paths.
    pub(crate) fn start(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.running, true) {
            self.begin(now);
        }
    }

    /// No peer does: the mappings may end.
    pub(crate) fn stop(&mut self) {
        self.running = false;
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.running.then(|| self.queries.iter().map(|query| query.due).min())?
    }

    /// The next question that is due: from, to, bytes. `true` when a mapping was given up, besides.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        random: &mut dyn FnMut(&mut [u8]),
        lost: &mut bool,
    ) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        if !self.running {
            return None;
        }
        loop {
            let query = self.queries.iter_mut().find(|query| query.due <= now)?;
            if query.tries == TRIES {
                *lost |= query.mapped.take().is_some();
                (query.tries, query.settled, query.due) = (0, true, now + AGAIN);
                continue;
            }
            // A repeated question is the same question.
            if query.tries == 0 {
                random(&mut query.transaction);
            }
            query.due = now + RTO * 2_u32.pow(query.tries);
            query.tries += 1;
            return Some((query.base, query.server, stun::query(query.transaction)));
        }
    }

    /// Takes an answer. `None` when it is not one of ours; else whether what we know changed by it.
    pub(crate) fn handle(
        &mut self,
        from: SocketAddr,
        transaction: &TransactionId,
        mapped: Option<SocketAddr>,
        now: Instant,
    ) -> Option<bool> {
        let is_asked =
            |query: &&mut Query| query.tries > 0 && query.transaction == *transaction && query.server == from;
        let query = self.queries.iter_mut().find(is_asked)?;
        let mapped = mapped.map(address::canonical).filter(|mapped| address::may_be_probed(*mapped, &[]));
        (query.tries, query.settled, query.due) = (0, true, now + REFRESH);
        let changed = query.mapped != mapped;
        query.mapped = mapped;
        Some(changed)
    }

    /// Our addresses.
    pub(crate) fn bases(&self) -> &[SocketAddr] {
        &self.bases
    }

    /// How the world sees us, where that is another address than a link has; each once.
    pub(crate) fn reflexive(&self) -> Vec<SocketAddr> {
        let mut reflexive = Vec::new();
        for mapped in self.queries.iter().filter_map(|query| query.mapped) {
            if !self.bases.contains(&mapped) && !reflexive.contains(&mapped) {
                reflexive.push(mapped);
            }
        }
        reflexive
    }

    pub(crate) fn nat(&self) -> Nat {
        let known = || self.queries.iter().filter_map(|query| Some((query, query.mapped?)));
        let differs = known().any(|(one, seen)| {
            known().any(|(other, also)| other.base == one.base && other.server != one.server && also != seen)
        });
        match known().count() {
            _ if differs => Nat::Symmetric,
            0 if self.queries.iter().any(|query| query.settled || query.tries > 3) => Nat::NoAnswer,
            0 | 1 => Nat::Unknown,
            _ => Nat::Steady,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Answers with what `mapping` says; returns how many questions there were.
    fn ask(
        gather: &mut Gather,
        now: Instant,
        mapping: impl Fn(SocketAddr, SocketAddr) -> Option<SocketAddr>,
    ) -> usize {
        let (mut count, mut number) = (0, 0_u8);
        let mut random = |bytes: &mut [u8]| {
            number += 1;
            bytes.fill(number);
        };
        let mut lost = false;
        while let Some((base, server, bytes)) = gather.poll(now, &mut random, &mut lost) {
            count += 1;
            let question = stun::Message::parse(&bytes).unwrap();
            if let Some(mapped) = mapping(base, server) {
                assert_eq!(
                    gather.handle(server, &[0xEE; 12], Some(mapped), now),
                    None,
                    "another's transaction"
                );
                assert_eq!(
                    gather.handle(at("203.0.113.9:3478"), &question.transaction, Some(mapped), now),
                    None
                );
                assert!(gather.handle(server, &question.transaction, Some(mapped), now).is_some());
            }
        }
        count
    }

    #[test]
    fn asks_each_server_from_each_address_of_its_version_and_then_only_to_keep_the_mapping() {
        let now = Instant::now();
        let mut gather = Gather::default();
        gather.set_bases(vec![at("192.168.1.2:1"), at("[2001:db8::2]:1")], now);
        gather.set_servers(&[at("192.0.2.1:3478"), at("192.0.2.2:3478"), at("[2001:db8::5]:3478")], now);
        assert_eq!(
            (ask(&mut gather, now, |_, _| None), gather.poll_timeout()),
            (0, None),
            "nobody needs it yet"
        );
        gather.start(now);
        let cone = |base: SocketAddr, _| Some(if base.is_ipv4() { at("198.51.100.7:9") } else { base });
        assert_eq!(ask(&mut gather, now, cone), 3);
        assert_eq!((gather.reflexive(), gather.nat()), (vec![at("198.51.100.7:9")], Nat::Steady));
        assert_eq!(gather.poll_timeout(), Some(now + REFRESH));
        let later = now + REFRESH;
        let symmetric = |_, server: SocketAddr| {
            Some(SocketAddr::new(
                [198, 51, 100, 7].into(),
                server.ip().is_ipv4() as u16
                    + server.to_string().len() as u16
                    + u16::from(server == at("192.0.2.1:3478")),
            ))
        };
        assert_eq!(ask(&mut gather, later, symmetric), 3);
        assert_eq!(gather.nat(), Nat::Symmetric);
        gather.stop();
        assert_eq!(gather.poll_timeout(), None);
    }

    #[test]
    fn a_silent_server_is_asked_seven_times_in_32_seconds() {
        let start = Instant::now();
        let mut gather = Gather::default();
        gather.set_bases(vec![at("192.168.1.2:1")], start);
        gather.set_servers(&[at("192.0.2.1:3478")], start);
        gather.start(start);
        let mut count = 0;
        while let Some(now) = gather.poll_timeout().filter(|at| *at < start + Duration::from_secs(64)) {
            count += ask(&mut gather, now, |_, _| None);
        }
        assert_eq!((count, gather.nat()), (7, Nat::NoAnswer));
    }
}
