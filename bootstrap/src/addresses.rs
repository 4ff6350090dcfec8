//! Tells whoever must know the links, addresses and routes of the underlay, whenever they change: a device that finds paths, a way out of
//! the overlay, a policy.

use std::{
    io,
    os::fd::AsFd as _,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lattice_overlay::{Netns, PathFinder, link::Changes};
use nix::poll::PollTimeout;

use crate::bell::Bell;

/// How long after the news of a change a path finder looks at the addresses: one seldom comes alone.
const SETTLE: Duration = Duration::from_millis(50);

/// Between two looks passes so many times what one takes, so that a host with many routes that change all the time is not slowed down.
const PAUSE: u32 = 5;
/// But no longer: what a look takes may be waiting, and who follows is late by as much.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A look that failed is repeated after the first, then after twice as long each time, whether or not there is news: what it did not
/// see may be what must be closed.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// What became of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Everything is known now.
    Done,
    /// Something is not, and why is logged.
    Failed,
    /// Nobody wants to know any more.
    Last,
}

/// The running thread; dropping it ends it.
pub(crate) struct Addresses {
    stop: Bell,
    thread: Option<JoinHandle<()>>,
}

impl Addresses {
    /// Tells `finder` those of `underlay`, with the device's `port`, now and whenever they change.
    pub(crate) fn start(finder: PathFinder, underlay: Arc<Netns>, port: u16) -> io::Result<Self> {
        // An address outlives its link's being up.
        let changes = Changes::of_links_and_addresses(&underlay)?;
        Self::follow(changes, SETTLE, move || match lattice_overlay::endpoints(&underlay, port) {
            Ok(addresses) => finder.set_local(addresses).map_or(Look::Last, |()| Look::Done),
            Err(error) => {
                tracing::warn!(%error, "cannot list this host's addresses");
                Look::Failed
            }
        })
    }

    /// Calls `look` now, `settle` or more after the first news of `changes`, and again where it failed, until it is the last.
    pub(crate) fn follow(
        changes: Changes,
        settle: Duration,
        look: impl FnMut() -> Look + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Bell::new()?;
        let stopped = stop.clone();
        let run = move || {
            if let Err(error) = watch(&stopped, &changes, settle, look) {
                tracing::error!(%error, "this host's addresses and routes are not followed any more");
            }
        };
        let thread = thread::Builder::new().name("addresses".into()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.stop.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Until `stopped` rings or `look` is the last.
fn watch(
    stopped: &Bell,
    changes: &Changes,
    settle: Duration,
    mut look: impl FnMut() -> Look,
) -> io::Result<()> {
    let mut failed = 0;
    loop {
        let begun = Instant::now();
        let news = match look() {
            Look::Last => return Ok(()),
            Look::Done => {
                failed = 0;
                PollTimeout::NONE
            }
            Look::Failed => {
                failed += 1;
                timeout(again(failed))
            }
        };
        let pause = timeout(pause(begun.elapsed(), settle));
        if stopped.wait(changes.as_fd(), news)? || stopped.wait_with([], pause)?.0 {
            return Ok(());
        }
        changes.drain();
    }
}

/// How long after the last of so many failed looks there is another.
fn again(failed: u32) -> Duration {
    let [first, longest] = AGAIN;
    first.saturating_mul(2_u32.saturating_pow(failed.saturating_sub(1))).min(longest)
}

/// How long after the news that follows a look that took so long there is another.
fn pause(took: Duration, settle: Duration) -> Duration {
    settle.max(took.saturating_mul(PAUSE).min(LONGEST_PAUSE))
}

fn timeout(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_look_that_fails_is_repeated_without_news_and_the_others_are_not() {
        let netns = Netns::create().unwrap();
        let changes = Changes::of_all(&netns).unwrap();
        let (looked, looks) = mpsc::channel();
        let mut all = [Look::Failed, Look::Done, Look::Last].into_iter();
        let look = move || {
            let _ = looked.send(());
            all.next().unwrap()
        };
        let _following = Addresses::follow(changes, Duration::from_millis(1), look).unwrap();
        for _ in 0..2 {
            looks.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        assert!(looks.recv_timeout(AGAIN[0] * 2).is_err(), "nothing is new");
        lattice_overlay::link::set_up(&netns, "lo").unwrap();
        looks.recv_timeout(Duration::from_secs(30)).unwrap();
    }

    #[test]
    fn pauses_have_a_bound() {
        assert_eq!([1, 2, 3, 5, 6, 1000].map(|failed| again(failed).as_secs()), [1, 2, 4, 16, 30, 30]);
        let paused = |took| pause(Duration::from_millis(took), SETTLE).as_millis();
        assert_eq!([0, 10, 20, 200, 50_000].map(paused), [50, 50, 100, 1000, 1000]);
    }
}
