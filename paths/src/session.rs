//! What goes on with one peer while there is traffic: signals, checks, and which path is best now.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use lattice_wire::signal::{Candidate, CandidateKind, MAX_CANDIDATES, Signal};
use lattice_wireguard::Path;

use crate::{
    address,
    checks::{self, Checks},
    limits::{Bucket, PEER_PROBES, PEER_PROBES_BURST},
    peer::Peer,
    remote::{Remote, Taken},
    shared::{Shared, Transmit},
    signalling::Signalling,
    stun::{self, Message, TransactionId},
};

/// How long a session lasts after the last traffic; and after a signal of the peer's that nobody of ours asked for.
const AFTER_TRAFFIC: Duration = Duration::from_secs(180);
const AFTER_SIGNAL: Duration = Duration::from_secs(30);
/// There is traffic if a packet for the peer was there so recently.
const BUSY: Duration = Duration::from_secs(2);
/// A path that stopped answering is looked for with what is known, and after this with new credentials.
const SEARCH: Duration = Duration::from_secs(1);
/// How long the old direct path is used on while the peer begins anew.
const HOLD: Duration = Duration::from_secs(1);
/// Waits between searches that found nothing: peers that only a relay reaches cost little.
const BACKOFF_SECS: [u64; 4] = [30, 60, 300, 900];
/// The same for peers that not even a relay reaches, while somebody wants to.
const UNREACHED_SECS: [u64; 2] = [5, 10];

pub(crate) struct Session {
    pub(crate) signalling: Signalling,
    pub(crate) remote: Option<Remote>,
    pub(crate) checks: Checks,
    probes: Bucket,
    until: Instant,
    wanted: Option<Instant>,
    restart_at: Option<Instant>,
    failures: usize,
    hold: Option<(Path, Instant)>,
}

impl Session {
    pub(crate) fn new(we_control: bool, shared: &mut Shared, now: Instant) -> Self {
        Self {
            signalling: Signalling::new(&mut *shared.random, now),
            remote: None,
            checks: Checks::new(we_control, now),
            probes: Bucket::per_second(PEER_PROBES_BURST, PEER_PROBES),
            until: now + AFTER_SIGNAL,
            wanted: None,
            restart_at: None,
            failures: 0,
            hold: None,
        }
    }

    /// There is a packet for the peer. Says whether that changes anything.
    pub(crate) fn wants(&mut self, now: Instant) -> bool {
        let is_news = self.wanted.is_none_or(|last| now.saturating_duration_since(last) >= BUSY / 4)
            || self.restart_at.is_some_and(|at| at <= now);
        if is_news {
            self.wanted = Some(now);
            self.saw_traffic(now);
        }
        is_news
    }

    pub(crate) fn saw_traffic(&mut self, now: Instant) {
        self.until = self.until.max(now + AFTER_TRAFFIC);
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }

    pub(crate) fn heard(
        &mut self,
        signal: Signal,
        peer_endpoints: &[SocketAddr],
        we_control: bool,
        shared: &mut Shared,
        now: Instant,
    ) {
        self.until = self.until.max(now + AFTER_SIGNAL);
        if signal.answers != Some(self.signalling.epoch) {
            return self.signalling.answer(signal.epoch, now);
        }
        let epoch = signal.epoch;
        match Remote::take(&mut self.remote, signal) {
            Taken::Stale => return,
            Taken::First | Taken::Update => {}
            Taken::Restart => {
                self.hold = self.direct().map(|path| (path, now + HOLD));
                self.checks = Checks::new(we_control, now);
                self.restart_at = None;
            }
        }
        self.add_pairs(peer_endpoints, shared, now);
        self.signalling.tell(epoch, now);
        if self.remote.as_ref().is_some_and(Remote::is_restless) {
            self.restart(peer_endpoints, we_control, shared, now);
        }
    }

    /// The world sees us elsewhere, or at all: what was tried in vain again and again may go now.
    pub(crate) fn mapped_anew(&mut self, now: Instant) {
        self.signalling.say(now);
        if self.failures > 1 {
            self.failures = 0;
            self.restart_at = self.restart_at.map(|at| at.min(now + SEARCH));
        }
    }

    /// Our addresses changed, or how the world sees us.
    pub(crate) fn moved(
        &mut self,
        peer_endpoints: &[SocketAddr],
        we_control: bool,
        shared: &mut Shared,
        now: Instant,
    ) {
        let bases = shared.gather.bases();
        self.checks.retain_bases(bases);
        if self.checks.in_use().is_some() {
            self.add_pairs(peer_endpoints, shared, now);
            return self.signalling.say(now);
        }
        self.hold = None;
        self.restart(peer_endpoints, we_control, shared, now);
    }

    fn restart(
        &mut self,
        peer_endpoints: &[SocketAddr],
        we_control: bool,
        shared: &mut Shared,
        now: Instant,
    ) {
        self.signalling.restart(&mut *shared.random, now);
        self.remote.iter_mut().for_each(Remote::forget_retired);
        self.checks = Checks::new(we_control, now);
        self.restart_at = None;
        self.add_pairs(peer_endpoints, shared, now);
    }

    /// Pairs of what the peer told and what the map says, as far as they may be probed.
    pub(crate) fn add_pairs(&mut self, peer_endpoints: &[SocketAddr], shared: &Shared, now: Instant) {
        let Some(remote) = &self.remote else { return };
        let reflexive = shared.gather.reflexive();
        let is_ours =
            |address: &SocketAddr| shared.gather.bases().contains(address) || reflexive.contains(address);
        let told = remote.candidates.iter().copied();
        let all = told.chain(peer_endpoints.iter().map(|endpoint| (CandidateKind::Host, *endpoint)));
        let remotes: Vec<_> =
            all.filter(|(_, at)| address::may_be_probed(*at, &shared.pool) && !is_ours(at)).collect();
        self.checks.add(shared.gather.bases(), &remotes, now);
    }

    /// A check of the peer's with one of our credentials.
    pub(crate) fn requested(
        &mut self,
        message: &Message<'_>,
        base: (usize, SocketAddr),
        from: SocketAddr,
        now: Instant,
    ) -> Option<Transmit> {
        let receiver = message.receiver?;
        let is_present = self.signalling.credentials.ufrag == receiver;
        let ours = match is_present {
            true => &self.signalling.credentials,
            false => self.signalling.previous.as_ref().filter(|previous| previous.ufrag == receiver)?,
        };
        // The roles follow from the ids: who claims ours lies.
        if !message.is_authentic(&ours.key) || message.controlling != Some(!self.checks.we_control()) {
            return None;
        }
        let payload = stun::answer(message.transaction, from, Some(&ours.key));
        if is_present && self.remote.is_some() {
            self.signalling.confirm();
        }
        self.checks.requested(base, from, message.priority?, message.use_candidate, now);
        Some(Transmit { local: base.1, remote: from, payload })
    }

    /// An answer to a check of ours.
    pub(crate) fn answered(
        &mut self,
        message: &Message<'_>,
        base: SocketAddr,
        from: SocketAddr,
        now: Instant,
    ) -> bool {
        let authentic = self.remote.as_ref().is_some_and(|remote| message.is_authentic(&remote.key));
        authentic && self.checks.answered(&message.transaction, base, from, now)
    }

    /// Does what is due. `note` hears of each check's transaction.
    pub(crate) fn step(
        &mut self,
        peer_endpoints: &[SocketAddr],
        we_control: bool,
        shared: &mut Shared,
        now: Instant,
        mut note: impl FnMut(TransactionId),
    ) -> Option<Signal> {
        self.checks.set_busy(self.wanted.is_some_and(|at| now.saturating_duration_since(at) < BUSY), now);
        if self.checks.lost(now) {
            self.restart_at = Some(now + SEARCH);
        }
        self.check(shared, now, &mut note);
        if self.checks.in_use().is_some() {
            (self.restart_at, self.failures, self.hold) = (None, 0, None);
        } else if self.restart_at.is_none()
            && self.checks.exhausted()
            && (self.remote.is_some() || self.signalling.exhausted())
        {
            let theirs = self.remote.as_ref().map(|remote| remote.relays.as_slice());
            let is_relayed = theirs.is_some_and(|theirs| shared.relays.best(theirs).is_some());
            let waits: &[u64] = if is_relayed { &BACKOFF_SECS } else { &UNREACHED_SECS };
            let wait = waits[self.failures.min(waits.len() - 1)];
            self.failures += 1;
            self.restart_at = Some(now + Duration::from_secs(wait));
        }
        // Nobody is looked for whom nobody wants to reach.
        let is_wanted = self.wanted.is_some_and(|at| now.saturating_duration_since(at) < AFTER_SIGNAL);
        if is_wanted && self.restart_at.is_some_and(|at| at <= now) {
            self.restart(peer_endpoints, we_control, shared, now);
            self.check(shared, now, &mut note);
        } else if let (Some(at), Some(wanted)) = (self.restart_at, self.wanted) {
            // It waits for `wants`, not for its time.
            if !is_wanted && at <= now {
                self.restart_at = Some(at.max(wanted + AFTER_SIGNAL));
            }
        }
        self.hold = self.hold.filter(|(_, until)| *until > now);
        let heading = self.signalling.poll(self.remote.as_ref().map(|remote| remote.epoch), now)?;
        Some(Signal {
            epoch: self.signalling.epoch,
            seq: heading.seq,
            answers: heading.answers,
            ufrag: self.signalling.credentials.ufrag.clone(),
            password: self.signalling.credentials.password.clone(),
            candidates: our_candidates(shared),
            relays: shared.relays.names(),
        })
    }

    fn check(&mut self, shared: &mut Shared, now: Instant, note: &mut impl FnMut(TransactionId)) {
        let Some(remote) = &self.remote else { return };
        while let Some(due) = self.checks.poll(now) {
            if due.unproven && !(self.probes.ready_at(now) <= now && shared.probes.take(now)) {
                self.checks.postpone(self.probes.ready_at(now).max(shared.probes.ready_at(now)));
                continue;
            }
            if due.unproven {
                self.probes.take(now);
            }
            let mut transaction = [0; 12];
            (shared.random)(&mut transaction);
            let index = shared.gather.bases().iter().position(|base| *base == due.base).unwrap_or(0);
            let check = stun::Check {
                transaction,
                username: &format!("{}:{}", remote.ufrag, self.signalling.credentials.ufrag),
                priority: checks::peer_reflexive_priority(index),
                controlling: self.checks.we_control(),
                tie_breaker: shared.tie_breaker,
                nominate: due.nominate,
            };
            let payload = stun::check(&check, &remote.key);
            shared.transmit(Transmit { local: due.base, remote: due.remote, payload });
            self.checks.sent(due.index, transaction, now);
            note(transaction);
        }
    }

    /// Whether the peer was searched for, or called, to the end at least once.
    pub(crate) fn gave_up(&self) -> bool {
        self.failures > 0
    }

    fn direct(&self) -> Option<Path> {
        let pair = self.checks.in_use()?;
        Some(Path::Direct { remote: pair.remote, local: Some(pair.base.ip()) })
    }

    /// When [`Self::step`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let checks = self.remote.is_some().then(|| self.checks.poll_timeout()).flatten();
        let restart =
            self.restart_at.filter(|at| self.wanted.is_some_and(|wanted| *at < wanted + AFTER_SIGNAL));
        let hold = self.hold.map(|(_, until)| until);
        [checks, restart, hold, self.signalling.poll_timeout()]
            .into_iter()
            .flatten()
            .fold(self.until, Instant::min)
    }
}

/// The best path now; `None` leaves the search to WireGuard.
pub(crate) fn choose(peer: &Peer, shared: &Shared, now: Instant) -> Option<Path> {
    let session = peer.session.as_ref();
    let held = || session?.hold.map(|(path, _)| path);
    if let Some(direct) = session.and_then(|session| session.direct()).or_else(held) {
        return Some(direct);
    }
    let told = session.and_then(|session| session.remote.as_ref()).map(|remote| remote.relays.as_slice());
    let relay = match told.or(peer.relays.as_deref()) {
        // WireGuard found a way by itself: that is not disturbed before a check has confirmed it.
        Some(_) if peer.selected.is_none() && peer.fresh_until().is_some_and(|until| now < until) => None,
        Some(theirs) => shared.relays.best(theirs),
        // It may well be at our own relay. Where the map knows addresses, these are tried first: a static server signals nothing.
        None if peer.endpoints.is_empty() => shared.relays.first(),
        None => None,
    };
    relay.map(|relay| Path::Relay { relay, peer: peer.key })
}

/// Where we may be reached: our links' addresses, and what STUN servers see.
fn our_candidates(shared: &Shared) -> Vec<Candidate> {
    let reflexive = shared.gather.reflexive();
    let reflexive = reflexive.iter().take(MAX_CANDIDATES / 2).map(|at| (CandidateKind::Reflexive, *at));
    let hosts = shared.gather.bases().iter().map(|at| (CandidateKind::Host, *at));
    let all = hosts.take(MAX_CANDIDATES / 2).chain(reflexive);
    let useful = all.filter(|(_, at)| address::may_be_probed(*at, &shared.pool));
    useful.map(|(kind, address)| Candidate { kind, address }).collect()
}
