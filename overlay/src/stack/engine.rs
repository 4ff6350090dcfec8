//! The task that moves the packets. It waits, as all tasks of the thread do, in one `epoll_wait(2)`; a turn then runs to its end:
//!
//! ```text
//!   datagrams ─► opened, judged ─► stack ─► sockets are woken ─► their tasks read and write ─► stack ─► judged, sealed ─► sent, all at once
//! ```
//!
//! Nothing is polled while nothing happens: a timer is set for what WireGuard, the paths or a connection wants next, and none otherwise.

use std::{
    future::poll_fn,
    io,
    os::fd::AsFd,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep};

use super::{
    epoll::Watched,
    state::{Shared, State},
};
use crate::device::core::More;

/// When to look again at what there was no descriptor to watch by: an agent's connections may have them all.
const RETRY: Duration = Duration::from_millis(20);

/// The engine.
pub(super) struct Engine {
    shared: Rc<Shared>,
    wake: Watched,
    udp: Watched,
    bells: Vec<Watched>,
    /// Tells when the underlay's socket has room again, while it has none.
    room: Option<Watched>,
    /// The relays changed, and there was no descriptor to watch them all by.
    lacks_bells: bool,
    /// Datagrams were left where the last ones came from.
    more: bool,
    timer: Timer,
}

/// A timer that is seldom set. What it is for mostly moves to later; it then fires once for nothing instead of being set at every turn.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// By the device's clock; none while it is not set.
    at: Option<Instant>,
}

/// What the engine was woken for.
#[derive(Debug, Clone, Copy, Default)]
struct Ready {
    command: bool,
    datagram: bool,
    relay: bool,
    other: bool,
}

impl Engine {
    /// # Errors
    /// When there is no descriptor left.
    pub(super) fn new(shared: Rc<Shared>) -> io::Result<Self> {
        let state = shared.state();
        let wake = Watched::readable(state.core.wake().as_fd())?;
        let udp = Watched::readable(state.core.outside.udp.as_fd())?;
        drop(state);
        Ok(Self {
            shared,
            wake,
            udp,
            bells: Vec::new(),
            room: None,
            lacks_bells: false,
            more: false,
            timer: Timer::new(),
        })
    }

    /// Runs until told to stop.
    pub(super) async fn run(mut self) {
        loop {
            let ready = self.wait().await;
            self.shared.turns.set(self.shared.turns.get() + 1);
            if !self.begin_turn(ready) {
                let mut state = self.shared.state();
                let now = state.now();
                state.stop(now);
                state.finish();
                return;
            }
            self.end_turn().await;
        }
    }

    /// Takes what has come in and has the sockets' tasks woken. False when it is time to stop.
    fn begin_turn(&mut self, ready: Ready) -> bool {
        let shared = Rc::clone(&self.shared);
        let state = &mut *shared.state();
        let now = state.core.begin(&mut state.kept.returns);
        if ready.command {
            self.wake.clear();
            let done = state.handle_commands(now);
            self.lacks_bells |= done.relays;
            if done.stop {
                return false;
            }
        }
        if self.lacks_bells {
            self.lacks_bells = self.watch_relays(state).is_err();
        }
        let (datagrams, relays) = state.receive(now, ready.datagram, ready.relay || self.lacks_bells);
        self.more = ready.datagram && datagrams == More::Maybe;
        if datagrams == More::No {
            self.udp.clear();
        }
        if relays == More::No {
            self.bells.iter().for_each(Watched::clear);
        }
        state.handle_timeout(now);
        if state.core.outside.udp.is_full() {
            state.core.outside.udp.flush();
        }
        // What the tasks have written so far is sent by this: they need not be waited for unless they were told something.
        shared.is_used.set(state.poll(now));
        true
    }

    /// Lets the tasks work that were woken, then sends all there is.
    async fn end_turn(&mut self) {
        // Nor may a flood of datagrams that tells nobody anything keep them from working.
        if self.shared.is_used.get() || self.more {
            after_others().await;
        }
        let shared = Rc::clone(&self.shared);
        shared.is_used.set(false);
        let state = &mut *shared.state();
        let now = state.now();
        let told = state.poll(now);
        state.finish();
        if told || state.has_more() {
            shared.is_used.set(true);
        }
        self.watch_room(state);
        let lacks = self.lacks_bells || (self.room.is_none() && state.core.outside.udp.is_full());
        let retry = lacks.then(|| now + RETRY);
        let next = state.poll_timeout().into_iter().chain(retry).min();
        self.timer.set(next, now);
    }

    /// Waits for something to do.
    async fn wait(&mut self) -> Ready {
        poll_fn(|context| {
            let mut ready = Ready { other: self.shared.is_used.get(), ..Ready::default() };
            if !ready.other {
                *self.shared.engine.borrow_mut() = Some(context.waker().clone());
            }
            ready.command = self.wake.is_ready(context);
            ready.datagram = self.udp.is_ready(context);
            for bell in &self.bells {
                ready.relay |= bell.is_ready(context);
            }
            if let Some(room) = &self.room {
                ready.other |= room.is_ready(context);
            }
            ready.other |= self.timer.poll(context);
            let any = ready.command || ready.datagram || ready.relay || ready.other;
            if any { Poll::Ready(ready) } else { Poll::Pending }
        })
        .await
    }

    fn watch_relays(&mut self, state: &State) -> io::Result<()> {
        let relays = &state.core.outside.relays;
        let bells = (0..relays.len()).filter_map(|index| relays.bell(index));
        self.bells = bells.map(Watched::readable).collect::<io::Result<_>>()?;
        Ok(())
    }

    /// Only while the socket is full: each packet that leaves it would wake us otherwise.
    fn watch_room(&mut self, state: &State) {
        let udp = &state.core.outside.udp;
        self.room = match self.room.take() {
            _ if !udp.is_full() => None,
            Some(room) => {
                room.clear();
                Some(room)
            }
            None => Watched::writable(udp.as_fd()).ok(),
        };
    }
}

impl Timer {
    fn new() -> Self {
        Self { sleep: Box::pin(sleep(Duration::ZERO)), at: None }
    }

    fn set(&mut self, at: Option<Instant>, now: Instant) {
        let Some(at) = at else { return };
        if self.at.is_none_or(|set| at < set) {
            let left = at.saturating_duration_since(now);
            self.sleep.as_mut().reset(tokio::time::Instant::now() + left);
            self.at = Some(at);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let has_fired = self.at.is_some() && self.sleep.as_mut().poll(context).is_ready();
        if has_fired {
            self.at = None;
        }
        has_fired
    }
}

/// Lets all tasks work that were woken before.
async fn after_others() {
    let mut has_waited = false;
    poll_fn(|context| {
        if has_waited {
            return Poll::Ready(());
        }
        has_waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
