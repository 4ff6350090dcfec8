//! The connectivity checks with one peer: which pairs of addresses, in what order, and which one is used (RFC 8445 sections 6 and 7).
//!
//! The controlling side uses the best pair that answers, and names it in its checks; the other follows as soon as its own check of that
//! pair was answered. Only the pair in use is kept alive; the others are checked again when it stops answering.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use lattice_wire::signal::CandidateKind;

pub(crate) use pair::{Pair, peer_reflexive_priority};
use pair::{State, pair_priority, priority};

use crate::{
    limits::{MAX_HOST_PAIRS, MAX_PAIRS, MAX_PEER_REFLEXIVE},
    stun::TransactionId,
};

/// The least time between two checks of one peer (`Ta`; RFC 8445 section 14.2 wants at least 5 ms).
const PACE: Duration = Duration::from_millis(20);
/// Waits after each check of a pair that has not answered: holes are punched in some seconds or not at all.
const WAITS_MS: [u64; 9] = [250, 250, 500, 500, 1000, 1000, 1000, 2000, 2000];
/// How often the pair in use is checked while there is traffic, and while there is none.
const BUSY: Duration = Duration::from_millis(250);
const QUIET: Duration = Duration::from_secs(15);
/// How often a pair that answers is checked while the controlling side has named none: it may have forgotten our checks when it began anew.
const UNNAMED: Duration = Duration::from_secs(1);
/// How soon an unanswered check of it is repeated, and how long it may be silent; more where the round trip is long.
const REPEAT: Duration = Duration::from_millis(100);
const SILENCE: Duration = Duration::from_millis(500);
/// Checks of it that must have gone unanswered.
const MIN_UNANSWERED: u8 = 3;

mod pair;

/// A check to be sent.
pub(crate) struct Due {
    pub(crate) index: usize,
    pub(crate) base: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) nominate: bool,
    /// Nothing ever came from there.
    pub(crate) unproven: bool,
}

#[derive(Debug)]
pub(crate) struct Checks {
    controlling: bool,
    pairs: Vec<Pair>,
    in_use: Option<usize>,
    nominations: u32,
    peer_reflexive: usize,
    /// No check before, but of the pair in use.
    next: Instant,
    busy: bool,
}

impl Checks {
    pub(crate) fn new(controlling: bool, now: Instant) -> Self {
        Self {
            controlling,
            pairs: Vec::new(),
            in_use: None,
            nominations: 0,
            peer_reflexive: 0,
            next: now,
            busy: true,
        }
    }

    /// Adds pairs of each of `bases` with each of `remotes`, the best first, as far as there is room.
    pub(crate) fn add(
        &mut self,
        bases: &[SocketAddr],
        remotes: &[(CandidateKind, SocketAddr)],
        now: Instant,
    ) {
        let mut wanted = Vec::new();
        for (index, (kind, remote)) in remotes.iter().enumerate() {
            for (base_index, base) in bases.iter().enumerate() {
                if base.is_ipv4() == remote.is_ipv4() {
                    let theirs = priority(*kind, index);
                    wanted.push((self.pair_priority(base_index, theirs), *kind, *base, *remote));
                }
            }
        }
        wanted.sort_by_key(|(priority, ..)| std::cmp::Reverse(*priority));
        let mut hosts = self.pairs.len();
        for (priority, kind, base, remote) in wanted {
            let is_host = kind == CandidateKind::Host;
            if self.pairs.len() >= MAX_PAIRS
                || is_host && hosts >= MAX_HOST_PAIRS
                || self.find(base, remote).is_some()
            {
                continue;
            }
            hosts += usize::from(is_host);
            self.pairs.push(Pair::new(base, remote, priority, now));
        }
    }

    /// Drops the pairs of addresses that we no longer have.
    pub(crate) fn retain_bases(&mut self, bases: &[SocketAddr]) {
        let in_use = self.in_use().map(|pair| (pair.base, pair.remote));
        self.pairs.retain(|pair| bases.contains(&pair.base));
        self.in_use = in_use.and_then(|(base, remote)| self.find(base, remote));
    }

    fn pair_priority(&self, base_index: usize, theirs: u32) -> u64 {
        let ours = priority(CandidateKind::Host, base_index);
        if self.controlling { pair_priority(ours, theirs) } else { pair_priority(theirs, ours) }
    }

    fn find(&self, base: SocketAddr, remote: SocketAddr) -> Option<usize> {
        self.pairs.iter().position(|pair| pair.base == base && pair.remote == remote)
    }

    /// There is traffic for the peer, or there is none.
    pub(crate) fn set_busy(&mut self, busy: bool, now: Instant) {
        if std::mem::replace(&mut self.busy, busy) != busy
            && busy
            && let Some(pair) = self.in_use.and_then(|index| self.pairs.get_mut(index))
        {
            let last = pair.last_sent().map_or(now, |last| last + BUSY);
            pair.due = pair.due.min(last.max(now));
        }
    }

    /// The next check, if one is due; [`Self::sent`] must follow, or [`Self::postpone`].
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Due> {
        for (index, pair) in self.pairs.iter_mut().enumerate() {
            let tried = usize::from(pair.tries) == WAITS_MS.len() && pair.due <= now;
            if tried && self.in_use != Some(index) {
                pair.state = State::Failed;
            }
        }
        let is_due = |index: &usize| self.pairs[*index].due <= now;
        let in_use = self.in_use.filter(is_due);
        let checking = || {
            let open = (0..self.pairs.len()).filter(|index| self.is_open(&self.pairs[*index]));
            let due = open.filter(is_due);
            let rank = |index: &usize| {
                let pair = &self.pairs[*index];
                (pair.triggered, std::cmp::Reverse(pair.tries), pair.priority)
            };
            due.max_by_key(rank).filter(|_| self.next <= now)
        };
        let index = in_use.or_else(checking)?;
        let pair = &self.pairs[index];
        Some(Due {
            index,
            base: pair.base,
            remote: pair.remote,
            nominate: self.controlling && self.in_use == Some(index),
            unproven: pair.state != State::Valid,
        })
    }

    /// Whether a pair that is not in use is to be checked.
    fn is_open(&self, pair: &Pair) -> bool {
        match pair.state {
            State::Checking => true,
            State::Valid => self.in_use.is_none(),
            State::Failed => false,
        }
    }

    pub(crate) fn sent(&mut self, index: usize, transaction: TransactionId, now: Instant) {
        let in_use = self.in_use == Some(index);
        let Some(pair) = self.pairs.get_mut(index) else { return };
        pair.sent.rotate_right(1);
        pair.sent[0] = Some((transaction, now));
        pair.triggered = false;
        if in_use {
            // A first check has a round trip to be answered in before it is repeated.
            let patience = pair.rtt.map_or(REPEAT, |rtt| REPEAT.max(2 * rtt));
            pair.due = now + if pair.unanswered == 0 { patience } else { REPEAT };
            pair.unanswered_since.get_or_insert(now);
            pair.unanswered = pair.unanswered.saturating_add(1);
        } else {
            let wait = WAITS_MS.get(usize::from(pair.tries)).copied().unwrap_or(2000);
            pair.due = now + Duration::from_millis(wait);
            pair.tries = pair.tries.saturating_add(1);
            self.next = now + PACE;
        }
    }

    /// Nothing may be sent to unproven addresses before `until`.
    pub(crate) fn postpone(&mut self, until: Instant) {
        self.next = self.next.max(until);
    }

    /// When [`Self::poll`] or [`Self::lost`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let checking = self.pairs.iter().filter(|pair| self.is_open(pair)).map(|pair| pair.due);
        let checking = checking.min().map(|due| due.max(self.next));
        let in_use = self.in_use.map(|index| self.pairs[index].due);
        checking.into_iter().chain(in_use).min()
    }

    /// Whether the pair in use has just stopped answering. All pairs are then checked from the beginning.
    pub(crate) fn lost(&mut self, now: Instant) -> bool {
        let silent = self.in_use.is_some_and(|index| {
            let pair = &self.pairs[index];
            let patience = SILENCE.max(pair.rtt.map_or(SILENCE, |rtt| 3 * rtt));
            pair.unanswered >= MIN_UNANSWERED
                && pair.unanswered_since.is_some_and(|since| now.saturating_duration_since(since) >= patience)
        });
        if silent {
            self.in_use = None;
            self.pairs.iter_mut().for_each(|pair| pair.begin(now));
        }
        silent
    }

    /// An authentic answer. Says whether it belongs to a check that went the same way.
    pub(crate) fn answered(
        &mut self,
        transaction: &TransactionId,
        base: SocketAddr,
        from: SocketAddr,
        now: Instant,
    ) -> bool {
        let Some((index, sent_at)) = self.pairs.iter().enumerate().find_map(|(index, pair)| {
            let sent = pair.sent.iter().flatten().find(|(id, _)| id == transaction)?;
            Some((index, sent.1))
        }) else {
            return false;
        };
        let pair = &mut self.pairs[index];
        // RFC 8445 section 7.2.5.2.1: an answer by another way proves nothing about this one.
        if pair.remote != from || pair.base != base {
            return false;
        }
        pair.rtt = Some(now.saturating_duration_since(sent_at));
        (pair.state, pair.tries, pair.unanswered_since, pair.unanswered) = (State::Valid, 0, None, 0);
        let last = pair.last_sent().unwrap_or(now);
        pair.due = last + UNNAMED;
        self.choose(index, now);
        if self.in_use == Some(index) && self.pairs[index].due > now {
            self.pairs[index].due = last + if self.busy { BUSY } else { QUIET };
        }
        true
    }

    /// An authentic check of the peer's came.
    pub(crate) fn requested(
        &mut self,
        base: (usize, SocketAddr),
        remote: SocketAddr,
        priority: u32,
        nominates: bool,
        now: Instant,
    ) {
        let index = self.find(base.1, remote).or_else(|| {
            if self.peer_reflexive >= MAX_PEER_REFLEXIVE {
                return None;
            }
            self.peer_reflexive += 1;
            let priority = self.pair_priority(base.0, priority);
            self.pairs.push(Pair::new(base.1, remote, priority, now));
            Some(self.pairs.len() - 1)
        });
        let Some(index) = index else { return };
        let pair = &mut self.pairs[index];
        if pair.state == State::Failed {
            pair.begin(now);
        }
        if pair.state == State::Checking {
            let soonest = pair.last_sent().map_or(now, |last| last + REPEAT);
            pair.due = pair.due.min(soonest.max(now));
            pair.triggered = true;
        }
        if nominates && !self.controlling {
            self.nominations += 1;
            pair.nomination = self.nominations;
            if pair.state == State::Valid {
                self.choose(index, now);
            }
        }
    }

    /// `index` is valid: is it better than what is in use?
    fn choose(&mut self, index: usize, now: Instant) {
        let rank = |index: usize| match self.controlling {
            true => self.pairs[index].priority,
            false => u64::from(self.pairs[index].nomination),
        };
        if self.in_use == Some(index)
            || rank(index) == 0
            || self.in_use.is_some_and(|used| rank(used) >= rank(index))
        {
            return;
        }
        self.in_use = Some(index);
        let pair = &mut self.pairs[index];
        (pair.unanswered_since, pair.unanswered) = (None, 0);
        // The controlling side says so at once; the other makes sure of it, where its own check was long ago.
        pair.due = now;
    }

    pub(crate) fn we_control(&self) -> bool {
        self.controlling
    }

    /// The pair in use.
    pub(crate) fn in_use(&self) -> Option<&Pair> {
        self.pairs.get(self.in_use?)
    }

    /// Whether all was tried in vain.
    pub(crate) fn exhausted(&self) -> bool {
        self.in_use.is_none() && self.pairs.iter().all(|pair| pair.state != State::Checking)
    }

    /// Different addresses of the peer that were tried.
    pub(crate) fn tried(&self) -> usize {
        let mut tried: Vec<_> =
            self.pairs.iter().filter(|pair| pair.sent[0].is_some()).map(|pair| pair.remote).collect();
        tried.sort();
        tried.dedup();
        tried.len()
    }
}
