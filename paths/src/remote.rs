//! What a peer told of itself in a signal that answered us.

use std::{collections::VecDeque, net::SocketAddr};

use lattice_wire::{
    reach::MAX_SERVERS,
    signal::{CandidateKind, MAX_CANDIDATES, Signal},
};
use ring::hmac;

use crate::{address, stun};

/// Epochs of a peer that it has left; a signal of one is a replay.
const MAX_RETIRED: usize = 8;
/// RFC 8445 section 5.3 has 4 to 256 characters for the fragment and 22 to 256 for the password; ours are 16 and 32.
const MAX_CREDENTIAL: usize = 64;
const MIN_FRAGMENT: usize = 4;
const MIN_PASSWORD: usize = 22;
const MAX_RELAY_NAME: usize = 64;

/// A peer's present epoch.
pub(crate) struct Remote {
    pub(crate) epoch: u64,
    seq: u64,
    pub(crate) ufrag: String,
    password: String,
    pub(crate) key: hmac::Key,
    pub(crate) candidates: Vec<(CandidateKind, SocketAddr)>,
    pub(crate) relays: Vec<String>,
    retired: VecDeque<u64>,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It says nothing new: a replay, or out of order.
    Stale,
    /// The first that we know of the peer.
    First,
    /// More of the epoch we know.
    Update,
    /// The peer began anew.
    Restart,
}

/// Whether a signal is one that a peer of ours would send.
pub(crate) fn is_sane(signal: &Signal) -> bool {
    let fits = |text: &str, min: usize| {
        (min..=MAX_CREDENTIAL).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
    };
    fits(&signal.ufrag, MIN_FRAGMENT) && fits(&signal.password, MIN_PASSWORD)
}

impl Remote {
    /// Takes a signal that answers our present epoch.
    pub(crate) fn take(slot: &mut Option<Self>, signal: Signal) -> Taken {
        let mut taken = Taken::Restart;
        let retired = match slot {
            Some(known) if known.epoch == signal.epoch => {
                let same = known.ufrag == signal.ufrag && known.password == signal.password;
                if signal.seq <= known.seq || !same {
                    return Taken::Stale;
                }
                known.read(signal);
                return Taken::Update;
            }
            Some(known) if known.retired.contains(&signal.epoch) => return Taken::Stale,
            Some(known) => {
                let mut retired = std::mem::take(&mut known.retired);
                retired.truncate(MAX_RETIRED - 1);
                retired.push_front(known.epoch);
                retired
            }
            None => {
                taken = Taken::First;
                VecDeque::new()
            }
        };
        let mut remote = Self {
            epoch: signal.epoch,
            seq: 0,
            ufrag: signal.ufrag.clone(),
            password: signal.password.clone(),
            key: stun::key(&signal.password),
            candidates: Vec::new(),
            relays: Vec::new(),
            retired,
        };
        remote.read(signal);
        *slot = Some(remote);
        taken
    }

    fn read(&mut self, signal: Signal) {
        self.seq = signal.seq;
        let candidates = signal.candidates.into_iter().take(MAX_CANDIDATES);
        self.candidates = candidates.map(|known| (known.kind, address::canonical(known.address))).collect();
        let named = signal.relays.into_iter().filter(|name| name.len() <= MAX_RELAY_NAME);
        self.relays = named.take(MAX_SERVERS).collect();
    }

    /// So many epochs that an old one might be forgotten and replayed: time for a new one of ours.
    pub(crate) fn is_restless(&self) -> bool {
        self.retired.len() >= MAX_RETIRED
    }

    /// Our epoch is a new one: no signal to the old one counts any more.
    pub(crate) fn forget_retired(&mut self) {
        self.retired.clear();
    }
}
