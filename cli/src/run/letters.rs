//! Signals on their way to the command. Under gVisor a program carries each of them, and fails as long as the command has not begun.

use std::{
    io,
    time::{Duration, Instant},
};

use nix::{poll::PollTimeout, sys::signal::Signal, unistd::Pid};

/// How long after a failure it is tried again, in milliseconds.
const AGAIN: u16 = 50;

/// How long a signal is tried: longer than gVisor takes to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Done,
    /// This child of ours carries it, and ends with 0 when the command has it.
    By(Pid),
}

/// Those that the command does not have yet. At most one of each number waits, as with pending signals of the kernel's (`signal(7)`); one that
/// is being carried may have arrived, so the next of its number waits for the carrier's end.
#[derive(Debug, Default)]
pub(super) struct Letters(Vec<Letter>);

#[derive(Debug)]
struct Letter {
    signal: Signal,
    until: Instant,
    carrier: Option<Pid>,
    /// When it is to be tried next.
    at: Instant,
}

impl Letters {
    pub(super) fn add(&mut self, signal: Signal) {
        let now = Instant::now();
        if !self.0.iter().any(|letter| letter.signal == signal && letter.carrier.is_none()) {
            self.0.push(Letter { signal, until: now + PATIENCE, carrier: None, at: now });
        }
    }

    /// Tries those that nobody carries and that are due; how long to wait before the next time.
    pub(super) fn send(&mut self, deliver: impl Fn(Signal) -> io::Result<Delivery>) -> PollTimeout {
        let now = Instant::now();
        let carried: Vec<Signal> =
            self.0.iter().filter(|one| one.carrier.is_some()).map(|one| one.signal).collect();
        let is_waiting = |letter: &Letter| letter.carrier.is_none() && !carried.contains(&letter.signal);
        self.0.retain(|letter| letter.carrier.is_some() || now < letter.until);
        self.0.retain_mut(|letter| {
            if !is_waiting(letter) || now < letter.at {
                return true;
            }
            match deliver(letter.signal) {
                Ok(Delivery::Done) => return false,
                Ok(Delivery::By(carrier)) => letter.carrier = Some(carrier),
                Err(_) => letter.delay(now),
            }
            true
        });
        if self.0.iter().any(is_waiting) { AGAIN.into() } else { PollTimeout::NONE }
    }

    /// Notes that a child has ended, which may have carried one of them.
    pub(super) fn carrier_ended(&mut self, child: Pid, is_done: bool) {
        let Some(at) = self.0.iter().position(|letter| letter.carrier == Some(child)) else { return };
        let signal = self.0[at].signal;
        let next_waits = self.0.iter().any(|letter| letter.signal == signal && letter.carrier.is_none());
        // With one that waits already it is one, as two that are pending are.
        if is_done || next_waits {
            self.0.remove(at);
        } else {
            self.0[at].carrier = None;
            self.0[at].delay(Instant::now());
        }
    }
}

impl Letter {
    fn delay(&mut self, now: Instant) {
        self.at = now + Duration::from_millis(AGAIN.into());
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, thread};

    use super::*;

    #[test]
    fn a_signal_is_carried_until_it_arrives_and_no_further() {
        let (mut letters, sent) = (Letters::default(), Cell::new(0));
        let send = |letters: &mut Letters| {
            letters.send(|_| {
                sent.set(sent.get() + 1);
                Ok(Delivery::By(Pid::from_raw(sent.get())))
            })
        };
        letters.add(Signal::SIGTERM);
        letters.add(Signal::SIGTERM);
        assert_eq!(send(&mut letters), PollTimeout::NONE);
        assert_eq!(sent.get(), 1, "one of a kind");
        letters.carrier_ended(Pid::from_raw(1), false);
        assert_eq!(send(&mut letters), PollTimeout::from(AGAIN));
        assert_eq!(sent.get(), 1, "not at once");
        thread::sleep(Duration::from_millis(u64::from(AGAIN) + 5));
        send(&mut letters);
        assert_eq!(sent.get(), 2);
        letters.carrier_ended(Pid::from_raw(77), true);
        assert_eq!(letters.0.len(), 1, "somebody else");
        letters.carrier_ended(Pid::from_raw(2), true);
        assert!(letters.0.is_empty());
    }

    #[test]
    fn one_more_of_a_kind_waits_for_the_carrier_of_the_last() {
        let (mut letters, sent) = (Letters::default(), Cell::new(0));
        let send = |letters: &mut Letters| {
            letters.send(|_| {
                sent.set(sent.get() + 1);
                Ok(Delivery::By(Pid::from_raw(sent.get())))
            })
        };
        let interrupt = |letters: &mut Letters| {
            letters.add(Signal::SIGINT);
            letters.add(Signal::SIGINT);
            assert_eq!(send(letters), PollTimeout::NONE);
        };
        interrupt(&mut letters);
        interrupt(&mut letters);
        assert_eq!((sent.get(), letters.0.len()), (1, 2), "in their order, and one that waits");
        letters.carrier_ended(Pid::from_raw(1), true);
        assert_eq!(send(&mut letters), PollTimeout::NONE);
        assert_eq!(sent.get(), 2, "the second press of Ctrl-C");
        interrupt(&mut letters);
        letters.carrier_ended(Pid::from_raw(2), false);
        assert_eq!(letters.0.len(), 1, "neither has arrived: they are one");
        send(&mut letters);
        assert_eq!(sent.get(), 3);
        letters.carrier_ended(Pid::from_raw(3), true);
        assert!(letters.0.is_empty());
    }
}
