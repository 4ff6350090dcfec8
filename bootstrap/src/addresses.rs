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
            Ok(addresses) => finder.set_local(addresses).is_ok(),
            Err(error) => {
                tracing::warn!(%error, "cannot list this host's addresses");
                true
            }
        })
    }

    /// Calls `look` now, and `settle` or more after the first news of `changes`, until it says no.
    pub(crate) fn follow(
        changes: Changes,
        settle: Duration,
        mut look: impl FnMut() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Bell::new()?;
        let stopped = stop.clone();
        let run = move || {
            let mut begun = Instant::now();
            while look() {
                let pause =
                    PollTimeout::try_from(settle.max(begun.elapsed() * PAUSE)).unwrap_or(PollTimeout::MAX);
                let goes_on = matches!(stopped.wait(changes.as_fd(), PollTimeout::NONE), Ok(false))
                    && matches!(stopped.wait_with([], pause), Ok((false, _)));
                if !goes_on {
                    return;
                }
                changes.drain();
                begun = Instant::now();
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
