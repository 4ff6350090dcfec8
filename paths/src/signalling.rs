//! When a signal goes to a peer, and what it answers.
//!
//! ```text
//!  a ── epoch 7, answers nothing ─► b      b knows whom to answer
//!  a ◄── epoch 9, answers 7 ─────── b      a may believe it
//!  a ── epoch 7, answers 9 ───────► b      b may believe it; its checks tell a that it did
//! ```

use std::time::{Duration, Instant};

use ring::hmac;

use crate::{
    limits::{Bucket, SIGNAL_GAP, SIGNAL_REFILL, SIGNALS_BURST},
    stun,
};

/// The wait after the first signal; each next one is twice as long. NATS keeps nothing for who is not there: a first packet waits for this
/// where a signal was lost, and by a relay it is to arrive within half a second all the same.
const REPEAT: Duration = Duration::from_millis(150);
/// How often what nobody reacts to is said: for 19 s.
const TRIES: u32 = 8;

/// By which the peer's checks prove that they are the peer's.
pub(crate) struct Credentials {
    pub(crate) ufrag: String,
    pub(crate) password: String,
    pub(crate) key: hmac::Key,
}

impl Credentials {
    pub(crate) fn new(random: &mut dyn FnMut(&mut [u8])) -> Self {
        let (mut ufrag, mut password) = ([0; 10], [0; 20]);
        random(&mut ufrag);
        random(&mut password);
        let text = |bytes: &[u8]| data_encoding::BASE32_NOPAD.encode(bytes).to_ascii_lowercase();
        let (ufrag, password) = (text(&ufrag), text(&password));
        let key = stun::key(&password);
        Self { ufrag, password, key }
    }
}

/// Our side of the exchange with one peer.
pub(crate) struct Signalling {
    pub(crate) epoch: u64,
    seq: u64,
    pub(crate) credentials: Credentials,
    /// Those before: the peer goes on with them until it hears of the new ones.
    pub(crate) previous: Option<Credentials>,
    bucket: Bucket,
    due: Option<Instant>,
    last_sent: Option<Instant>,
    tries: u32,
    /// An epoch of the peer that wants an answer, whichever we hold for the present one.
    asked: Option<u64>,
    /// The last epoch that we answered.
    told: Option<u64>,
    /// The peer's checks show that it believes us.
    confirmed: bool,
}

/// What a signal says besides what [`crate::session`] knows.
pub(crate) struct Heading {
    pub(crate) seq: u64,
    pub(crate) answers: Option<u64>,
}

impl Signalling {
    pub(crate) fn new(random: &mut dyn FnMut(&mut [u8]), now: Instant) -> Self {
        Self {
            epoch: epoch(random),
            seq: 0,
            credentials: Credentials::new(random),
            previous: None,
            bucket: Bucket::new(SIGNALS_BURST, SIGNAL_REFILL),
            due: Some(now),
            last_sent: None,
            tries: 0,
            asked: None,
            told: None,
            confirmed: false,
        }
    }

    /// A new epoch.
    pub(crate) fn restart(&mut self, random: &mut dyn FnMut(&mut [u8]), now: Instant) {
        self.epoch = epoch(random);
        self.previous = Some(std::mem::replace(&mut self.credentials, Credentials::new(random)));
        self.seq = 0;
        self.say(now);
    }

    /// There is something new to say.
    pub(crate) fn say(&mut self, now: Instant) {
        (self.tries, self.confirmed) = (0, false);
        let soonest = self.last_sent.map_or(now, |last| now.max(last + SIGNAL_GAP));
        self.due = Some(self.due.map_or(soonest, |due| due.min(soonest)));
    }

    /// The peer's `epoch` wants an answer.
    pub(crate) fn answer(&mut self, epoch: u64, now: Instant) {
        self.asked = Some(epoch);
        self.say(now);
    }

    /// The peer began `epoch`, which names us rightly: it must be told that we know.
    pub(crate) fn tell(&mut self, epoch: u64, now: Instant) {
        if self.told != Some(epoch) {
            self.say(now);
        }
    }

    /// Whether the peer may still name us so.
    pub(crate) fn is_ours(&self, ufrag: &str) -> bool {
        let previous = self.previous.as_ref().is_some_and(|previous| previous.ufrag == ufrag);
        previous || self.credentials.ufrag == ufrag
    }

    /// A check with our present credentials came.
    pub(crate) fn confirm(&mut self) {
        if !self.confirmed && self.tries > 0 && self.asked.is_none() {
            (self.confirmed, self.due) = (true, None);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Whether nobody reacts, and nothing more will be said by itself.
    pub(crate) fn exhausted(&self) -> bool {
        self.due.is_none()
    }

    /// The heading of the signal that is due now; `present` is the peer's epoch as we believe it.
    pub(crate) fn poll(&mut self, present: Option<u64>, now: Instant) -> Option<Heading> {
        if self.due? > now {
            return None;
        }
        if !self.bucket.take(now) {
            self.due = Some(self.bucket.ready_at(now));
            return None;
        }
        self.seq += 1;
        self.tries += 1;
        self.last_sent = Some(now);
        self.due = (self.tries < TRIES).then(|| now + REPEAT * 2_u32.pow(self.tries - 1));
        let answers = self.asked.take().or(present);
        self.told = answers;
        Some(Heading { seq: self.seq, answers })
    }
}

fn epoch(random: &mut dyn FnMut(&mut [u8])) -> u64 {
    let mut bytes = [0; 8];
    random(&mut bytes);
    u64::from_le_bytes(bytes)
}
