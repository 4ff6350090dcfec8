//! Connections that peers ask for, while the owner has not said what is to become of them.
//!
//! Nothing is answered meanwhile, so a peer learns nothing, and a flood costs what is here: a few hundred bytes for each, of
//! bounded number.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{IncomingId, ip, tcp, tuple::Tuple};

/// Of all half-open connections, a single peer gets this part.
const PEER_SHARE: usize = 4;

/// The bounds of half-open connections: the waiting ones, and those that were accepted and not completed.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    most: usize,
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

impl HalfOpen {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, all: 0, by_peer: HashMap::new() }
    }

    /// Counts one more, if it may be.
    pub(crate) fn add(&mut self, peer: IpAddr) -> bool {
        let of_peer = self.by_peer.get(&peer).copied().unwrap_or(0);
        if self.all >= self.most || of_peer >= self.most.div_ceil(PEER_SHARE) {
            return false;
        }
        self.all += 1;
        self.by_peer.insert(peer, of_peer + 1);
        true
    }

    pub(crate) fn remove(&mut self, peer: IpAddr) {
        let Some(of_peer) = self.by_peer.get_mut(&peer) else { return };
        self.all -= 1;
        *of_peer -= 1;
        if *of_peer == 0 {
            self.by_peer.remove(&peer);
        }
    }
}

/// A request: the SYN, as it came.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) tuple: Tuple,
    /// Room for an IP header, and the segment without data behind it.
    packet: [u8; ip::MAX_HEADER + tcp::MAX_HEADER],
    len: usize,
    at: Instant,
}

impl Request {
    /// The SYN as a packet, and what its header says.
    pub(crate) fn packet(&mut self) -> (&mut [u8], ip::Header) {
        let header = ip::Header {
            source: self.tuple.remote.ip(),
            destination: self.tuple.local.ip(),
            protocol: ip::TCP,
            transport: ip::MAX_HEADER,
            len: self.len,
        };
        (&mut self.packet[..self.len], header)
    }

    /// Likewise, with its IP header written, as an ICMP error quotes it.
    pub(crate) fn whole_packet(&mut self) -> (&[u8], ip::Header) {
        let Tuple { local, remote } = self.tuple;
        let (len, at) = (self.len, ip::MAX_HEADER - ip::header_len(remote.ip()));
        let packet = &mut self.packet[at..len];
        ip::write(packet, remote.ip(), local.ip(), ip::TCP, len - ip::MAX_HEADER);
        let header = ip::Header {
            source: remote.ip(),
            destination: local.ip(),
            protocol: ip::TCP,
            transport: ip::header_len(remote.ip()),
            len: packet.len(),
        };
        (packet, header)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    by_id: HashMap<IncomingId, Request>,
    by_tuple: HashMap<Tuple, IncomingId>,
    in_order: VecDeque<IncomingId>,
    last: u64,
}

impl Incoming {
    pub(crate) fn has(&self, tuple: &Tuple) -> bool {
        self.by_tuple.contains_key(tuple)
    }

    /// Keeps a SYN, whose header with all options is `header`.
    pub(crate) fn insert(&mut self, tuple: Tuple, header: &[u8], now: Instant) -> IncomingId {
        self.last += 1;
        let id = IncomingId(self.last);
        let mut packet = [0; ip::MAX_HEADER + tcp::MAX_HEADER];
        packet[ip::MAX_HEADER..][..header.len()].copy_from_slice(header);
        let request = Request { tuple, packet, len: ip::MAX_HEADER + header.len(), at: now };
        self.by_id.insert(id, request);
        self.by_tuple.insert(tuple, id);
        self.in_order.push_back(id);
        id
    }

    pub(crate) fn remove(&mut self, id: IncomingId) -> Option<Request> {
        let request = self.by_id.remove(&id)?;
        self.by_tuple.remove(&request.tuple);
        if self.in_order.front() == Some(&id) {
            self.in_order.pop_front();
        }
        Some(request)
    }

    /// Removes one that has waited for longer than `most`: its peer has given up, or asks again.
    pub(crate) fn remove_old(&mut self, most: Duration, now: Instant) -> Option<Request> {
        loop {
            let first = *self.in_order.front()?;
            match self.by_id.get(&first) {
                Some(request) if now.saturating_duration_since(request.at) < most => return None,
                Some(_) => return self.remove(first),
                None => drop(self.in_order.pop_front()),
            }
        }
    }
}
