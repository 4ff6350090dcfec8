//! Whether a relay is still there: what is asked of it, when, and when it counts as gone. Pure.
//!
//! ```text
//!  datagram sent ─ nothing heard ─► 0.2 s after the last sign of it: a ping ─► each 0.15 s one more ─► silent for 0.5 s: gone
//!  anything heard: nothing is asked before the next datagram is sent
//! ```
//!
//! By TCP it may be silent for 1.5 s: what was lost holds up all that is behind it until it was sent again, the answers too.
//!
//! So a relay that dies is given up within a second, by TCP two, while somebody waits for it, and a connection without traffic costs a ping each
//! ten seconds, which also keeps it open in NATs. Before the first datagram after a silence it is asked at once.

use std::time::{Duration, Instant};

use super::Transport;

/// After a datagram of ours, so long after the relay was heard of last it is asked whether it is there.
const CONSENT: Duration = Duration::from_millis(200);
/// An unanswered ping is repeated so soon, or after half a round trip where that is longer.
const REPEAT: Duration = Duration::from_millis(150);
/// So long may pings stay unanswered, or three round trips where that is longer.
const SILENCE: Duration = Duration::from_millis(500);
/// By TCP: two of its retransmission timeouts, 0.2 s and 0.4 s, and as much again.
const SILENCE_TCP: Duration = Duration::from_millis(1500);
/// And so long before the first round trip is known.
const UNMEASURED: Duration = Duration::from_secs(3);
/// Pings that must have gone unanswered.
const MIN_UNANSWERED: u32 = 3;
/// How often the round trip is measured while there is traffic, and a ping without any.
const MEASURE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(10);
/// Pings whose answers tell a round trip.
const REMEMBERED: usize = 8;

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send a ping of that number, and ask again.
    Ping(u64),
    /// Nothing before then.
    Wait(Instant),
    /// Nothing before then or the next datagram of ours, whichever is sooner.
    Rest(Instant),
    /// Give the relay up.
    Gone,
}

/// What is known of one connection's other end.
#[derive(Debug)]
pub(super) struct Consent {
    silence: Duration,
    heard: Instant,
    /// When a datagram of ours went out last.
    sent: Option<Instant>,
    /// The last pings and when they were sent; a ping's place is its number's remainder.
    pings: [Option<(u64, Instant)>; REMEMBERED],
    number: u64,
    last_ping: Option<Instant>,
    unanswered: u32,
    /// The first of those.
    unanswered_since: Option<Instant>,
    /// The transport's count of other signs that is known of.
    signs: u64,
    rtt: Option<Duration>,
}

impl Consent {
    /// A new connection, whose other end has just been heard of.
    pub(super) fn new(now: Instant, transport: Transport) -> Self {
        Self {
            silence: match transport {
                Transport::Quic => SILENCE,
                Transport::Tcp => SILENCE_TCP,
            },
            heard: now,
            sent: None,
            pings: [None; REMEMBERED],
            number: 0,
            last_ping: None,
            unanswered: 0,
            unanswered_since: None,
            signs: 0,
            rtt: None,
        }
    }

    /// Datagrams went out.
    pub(super) fn sent(&mut self, now: Instant) {
        self.sent = Some(now);
    }

    /// The relay gave a sign.
    pub(super) fn heard(&mut self, now: Instant) {
        (self.heard, self.unanswered, self.unanswered_since) = (now, 0, None);
    }

    /// An answer to the ping `number`; its round trip, if that is known.
    pub(super) fn pong(&mut self, number: u64, now: Instant) -> Option<Duration> {
        self.heard(now);
        let ping = &mut self.pings[(number % REMEMBERED as u64) as usize];
        let (_, sent) = ping.take_if(|(known, _)| *known == number)?;
        self.rtt = Some(now.saturating_duration_since(sent));
        self.rtt
    }

    /// What is due. `signs` counts other signs of the relay that the transport knows of: one that came after a ping is as good as an
    /// answer, one from before says nothing.
    pub(super) fn next(&mut self, now: Instant, signs: impl Fn() -> u64) -> Next {
        if self.unanswered > 0 {
            let signs = signs();
            if std::mem::replace(&mut self.signs, signs) != signs {
                self.heard(now);
            }
        }
        let next = self.due(now);
        if self.unanswered == 1 && matches!(next, Next::Ping(_)) {
            self.signs = signs();
        }
        next
    }

    fn due(&mut self, now: Instant) -> Next {
        if let (Some(since), Some(last)) = (self.unanswered_since, self.last_ping) {
            let silent = now.saturating_duration_since(since)
                >= self.rtt.map_or(UNMEASURED, |rtt| self.silence.max(3 * rtt));
            if silent && self.unanswered >= MIN_UNANSWERED {
                return Next::Gone;
            }
            let again = last + REPEAT.max(self.rtt.unwrap_or_default() / 2);
            return if again <= now { self.ping(now) } else { Next::Wait(again) };
        }
        let Some(last) = self.last_ping else { return self.ping(now) };
        let waits = self.sent.is_some_and(|sent| sent > self.heard);
        let is_busy = self.sent.is_some_and(|sent| now.saturating_duration_since(sent) < MEASURE);
        let regular = last + if is_busy { MEASURE } else { IDLE };
        let due = if waits { regular.min(self.heard + CONSENT) } else { regular };
        match due {
            due if due <= now => self.ping(now),
            due if waits => Next::Wait(due),
            due => Next::Rest(due),
        }
    }

    fn ping(&mut self, now: Instant) -> Next {
        self.number += 1;
        self.pings[(self.number % REMEMBERED as u64) as usize] = Some((self.number, now));
        self.last_ping = Some(now);
        self.unanswered = self.unanswered.saturating_add(1);
        self.unanswered_since.get_or_insert(now);
        Next::Ping(self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A relay at some distance, in virtual time.
    struct Run {
        consent: Consent,
        start: Instant,
        now: Instant,
        rtt: Duration,
        signs: u64,
        lives_until: Instant,
        answers: Vec<(Instant, u64)>,
        pings: usize,
    }

    impl Run {
        fn new(rtt: Duration, transport: Transport) -> Self {
            let now = Instant::now();
            let forever = now + Duration::from_secs(1 << 30);
            let consent = Consent::new(now, transport);
            Self { consent, start: now, now, rtt, signs: 0, lives_until: forever, answers: vec![], pings: 0 }
        }

        /// Passes `time`, sending a datagram at each multiple of `every` and hearing an answer to it when `talks`; how long after the
        /// relay's death it was given up.
        fn pass(&mut self, time: Duration, every: Option<Duration>, talks: bool) -> Option<Duration> {
            let end = self.now + time;
            while self.now < end {
                let ms = self.now.duration_since(self.start).as_millis();
                if every.is_some_and(|every| ms.is_multiple_of(every.as_millis())) {
                    self.consent.sent(self.now);
                    if talks && self.now + self.rtt < self.lives_until {
                        self.answers.push((self.now + self.rtt, 0));
                    }
                }
                let now = self.now;
                for (_, number) in self.answers.extract_if(.., |(at, _)| *at <= now) {
                    self.consent.pong(number, now);
                }
                loop {
                    match self.consent.next(self.now, || self.signs) {
                        Next::Gone => return Some(self.now.duration_since(self.lives_until)),
                        Next::Ping(number) => {
                            self.pings += 1;
                            if self.now + self.rtt < self.lives_until {
                                self.answers.push((self.now + self.rtt, number));
                            }
                        }
                        Next::Wait(at) | Next::Rest(at) => {
                            assert!(at > self.now);
                            break;
                        }
                    }
                }
                self.now += MS;
            }
            None
        }
    }

    #[test]
    fn a_relay_that_falls_silent_is_given_up_within_a_second_of_traffic() {
        for (rtt, talks) in [(5, true), (5, false), (60, true), (100, false)] {
            for phase in (0..1000).step_by(37) {
                let mut run = Run::new(rtt * MS, Transport::Quic);
                assert_eq!(run.pass(Duration::from_secs(3) + phase * MS, Some(20 * MS), talks), None);
                run.lives_until = run.now;
                let noticed = run.pass(Duration::from_secs(3), Some(20 * MS), talks).unwrap();
                assert!(noticed < 900 * MS, "{rtt} ms, {talks}, {phase}: {noticed:?}");
            }
        }
    }

    #[test]
    fn by_tcp_a_second_of_retransmissions_is_no_silence_and_a_death_is_noticed_within_two_seconds() {
        for phase in (0..1000).step_by(37) {
            let mut run = Run::new(5 * MS, Transport::Tcp);
            assert_eq!(run.pass(Duration::from_secs(3) + phase * MS, Some(20 * MS), true), None);
            run.rtt = 1000 * MS;
            assert_eq!(run.pass(1100 * MS, Some(20 * MS), true), None, "{phase}");
            run.rtt = 5 * MS;
            assert_eq!(run.pass(Duration::from_secs(20), Some(20 * MS), true), None, "{phase}");
            run.lives_until = run.now;
            let noticed = run.pass(Duration::from_secs(5), Some(20 * MS), true).unwrap();
            assert!(noticed < 1900 * MS, "{phase}: {noticed:?}");
        }
    }

    #[test]
    fn a_sign_of_the_transport_counts_once_and_only_after_a_ping() {
        let mut run = Run::new(5 * MS, Transport::Quic);
        assert_eq!(run.pass(Duration::from_secs(1), Some(20 * MS), false), None);
        run.lives_until = run.now;
        run.signs = 7;
        for _ in 0..100 {
            assert_eq!(run.pass(100 * MS, Some(20 * MS), false), None, "it gives signs");
            run.signs += 1;
        }
        let silent_since = run.now;
        run.pass(Duration::from_secs(3), Some(20 * MS), false).unwrap();
        assert!(run.now - silent_since < 1000 * MS, "{:?}", run.now - silent_since);
    }

    #[test]
    fn a_sign_that_is_learned_of_late_does_not_count_again() {
        let start = Instant::now();
        let mut consent = Consent::new(start, Transport::Quic);
        assert_eq!(consent.next(start, || 0), Next::Ping(1));
        // Long asleep: the sign is taken note of, and the regular ping is due at once.
        let late = start + IDLE;
        assert_eq!(consent.next(late, || 1), Next::Ping(2));
        assert_eq!(consent.next(late + REPEAT, || 1), Next::Ping(3), "nothing answers");
    }

    #[test]
    fn one_that_died_while_nobody_sent_anything_is_given_up_as_soon_after_the_first_datagram() {
        let mut run = Run::new(5 * MS, Transport::Quic);
        assert_eq!(run.pass(Duration::from_secs(25), None, false), None);
        run.lives_until = run.now;
        assert_eq!(run.pass(Duration::from_secs(4), None, false), None, "nobody asks");
        run.lives_until = run.now;
        let noticed = run.pass(Duration::from_secs(3), Some(20 * MS), true).unwrap();
        assert!(noticed < 700 * MS, "{noticed:?}");
    }

    #[test]
    fn idleness_costs_a_ping_in_ten_seconds_and_one_way_traffic_five_a_second() {
        let mut run = Run::new(5 * MS, Transport::Quic);
        assert_eq!(run.pass(Duration::from_secs(600), None, false), None);
        assert!(run.pings <= 61, "{}", run.pings);
        let before = run.pings;
        assert_eq!(run.pass(Duration::from_secs(10), Some(20 * MS), false), None);
        assert!(run.pings - before <= 50, "{}", run.pings - before);
        let before = run.pings;
        assert_eq!(run.pass(Duration::from_secs(60), Some(20 * MS), true), None);
        assert!(run.pings - before <= 13, "{}", run.pings - before);
    }

    #[test]
    fn a_long_way_is_given_its_round_trips() {
        let mut run = Run::new(900 * MS, Transport::Quic);
        assert_eq!(run.pass(Duration::from_secs(30), Some(20 * MS), false), None);
        assert_eq!(run.pass(Duration::from_secs(30), None, false), None);
        run.lives_until = run.now;
        let noticed = run.pass(Duration::from_secs(10), Some(20 * MS), false).unwrap();
        assert!(noticed < 4 * run.rtt, "{noticed:?}");
    }
}
