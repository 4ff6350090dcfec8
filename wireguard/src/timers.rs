//! When something is to be done for a peer although nothing comes (section 6 of the paper; the kernel's WireGuard has the
//! same five timers).
//!
//! | timer | set by | cleared by | does |
//! |---|---|---|---|
//! | retry | an initiation | the end of the handshake | begins the handshake anew, or gives up (6.4) |
//! | silence | data sent | anything received | begins a handshake: the peer may have forgotten us (6.2) |
//! | keepalive | data received | anything sent | an empty message, so that the peer hears of us (6.5) |
//! | persistent | anything sent or received | – | an empty message, so that a NAT on the way does not forget us |
//! | forget | a new session, giving up | a newer session | wipes all sessions and handshakes (6.3) |

use std::time::{Duration, Instant};

use crate::limits::{FORGET_AFTER, KEEPALIVE_TIMEOUT, MAX_JITTER_MS, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT};

/// The timers of one peer.
#[derive(Default)]
pub(crate) struct Timers {
    retry: Option<Instant>,
    silence: Option<Instant>,
    keepalive: Option<Instant>,
    persistent: Option<Instant>,
    forget: Option<Instant>,
    interval: Option<Duration>,
    /// No packet makes a handshake begin before.
    not_before: Option<Instant>,
    /// Since when the peer is asked in vain.
    attempt_since: Option<Instant>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// To begin a handshake, over again if one is under way, unless one began only just now.
    Initiate,
    /// To ask the peer no more: nobody waits for it.
    GiveUp,
    /// To send an empty message.
    Keepalive,
    /// To wipe all secrets.
    Forget,
}

impl Timers {
    /// Sets the interval of persistent keepalives. If that changes it, the first is due at once.
    pub(crate) fn set_interval(&mut self, seconds: Option<u16>, now: Instant) {
        let interval =
            seconds.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into()));
        if self.interval != interval {
            self.interval = interval;
            self.persistent = interval.map(|_| now);
        }
    }

    /// Whether the peer is to be kept connected.
    pub(crate) fn is_persistent(&self) -> bool {
        self.interval.is_some()
    }

    /// Whether a handshake may begin that nothing but a packet calls for. If not, one begins as soon as it may.
    pub(crate) fn may_initiate(&mut self, now: Instant) -> bool {
        let Some(again) = self.not_before else { return true };
        if now < again {
            self.retry.get_or_insert(again);
        }
        now >= again
    }

    /// `random` chooses the jitter.
    pub(crate) fn initiation_sent(&mut self, random: u16, now: Instant) {
        let jitter = Duration::from_millis((random % (MAX_JITTER_MS + 1)).into());
        self.retry = Some(now + REKEY_TIMEOUT + jitter);
        self.not_before = Some(now + REKEY_TIMEOUT);
        self.attempt_since.get_or_insert(now);
        self.anything_sent(now);
    }

    /// The peer has shown that its answer may take until then.
    pub(crate) fn postpone_retry(&mut self, until: Instant) {
        self.retry = self.retry.map(|retry| retry.max(until));
        self.not_before = self.not_before.max(Some(until));
    }

    /// A packet waits for a session: the peer is worth being asked for longer.
    pub(crate) fn packet_queued(&mut self, now: Instant) {
        self.attempt_since = Some(now);
    }

    /// A new session: one more that is to be forgotten some day.
    pub(crate) fn session_made(&mut self, now: Instant) {
        self.forget = Some(now + FORGET_AFTER);
    }

    /// Both ends are known to have the session.
    pub(crate) fn handshake_completed(&mut self) {
        (self.retry, self.attempt_since) = (None, None);
    }

    pub(crate) fn data_sent(&mut self, now: Instant) {
        self.anything_sent(now);
        self.silence.get_or_insert(now + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT);
    }

    /// An authenticated message, of whatever type.
    pub(crate) fn anything_sent(&mut self, now: Instant) {
        self.keepalive = None;
        self.persistent = self.interval.map(|interval| now + interval);
    }

    pub(crate) fn data_received(&mut self, now: Instant) {
        self.anything_received(now);
        self.keepalive.get_or_insert(now + KEEPALIVE_TIMEOUT);
    }

    /// An authentic message, of whatever type.
    pub(crate) fn anything_received(&mut self, now: Instant) {
        self.silence = None;
        self.persistent = self.interval.map(|interval| now + interval);
    }

    /// Starts anew, without sessions.
    pub(crate) fn reset(&mut self) {
        *self = Self { interval: self.interval, persistent: self.persistent, ..Self::default() };
    }

    /// When the next of them is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        let all = [self.retry, self.silence, self.keepalive, self.persistent, self.forget];
        all.into_iter().flatten().min()
    }

    /// What is due, one after the other; `None` when there is no more. However late the call, it is due once.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Due> {
        let is_due = |at: &mut Instant| *at <= now;
        if self.forget.take_if(is_due).is_some() {
            return Some(Due::Forget);
        }
        if self.retry.take_if(is_due).is_some() {
            let is_vain = |since| now.saturating_duration_since(since) >= REKEY_ATTEMPT_TIME;
            if !self.attempt_since.is_some_and(is_vain) {
                return Some(Due::Initiate);
            }
            (self.attempt_since, self.keepalive) = (None, None);
            self.forget.get_or_insert(now + FORGET_AFTER);
            return Some(Due::GiveUp);
        }
        if self.silence.take_if(is_due).is_some() {
            return Some(Due::Initiate);
        }
        if self.keepalive.take_if(is_due).is_some() {
            return Some(Due::Keepalive);
        }
        let interval = self.interval?;
        self.persistent.take_if(is_due)?;
        self.persistent = Some(now + interval);
        Some(Due::Keepalive)
    }
}
