//! What of a flow the owner has not been told.

use smoltcp::socket::tcp::State;

use super::Flow;
use crate::{Cause, Event, event::Events};

/// What was told, and what is waited for.
#[derive(Debug)]
pub(super) struct News {
    told_established: bool,
    told_end: bool,
    told_broken: bool,
    /// The owner has read everything, and waits.
    pub(super) awaits_data: bool,
    /// The owner could not write, and waits.
    pub(super) awaits_room: bool,
    /// The owner has read the end of the stream.
    pub(super) has_read_end: bool,
    cause: Option<Cause>,
}

impl Default for News {
    fn default() -> Self {
        Self {
            told_established: false,
            told_end: false,
            told_broken: false,
            awaits_data: true,
            awaits_room: false,
            has_read_end: false,
            cause: None,
        }
    }
}

impl News {
    /// Why the flow breaks; the first reason counts.
    pub(super) fn set_cause(&mut self, cause: Cause) {
        self.cause.get_or_insert(cause);
    }
}

/// What is to become of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Lives,
    /// It has ended in order, with what the owner has not read.
    Drains,
    /// It is to be forgotten.
    Ends,
}

impl Flow {
    /// Tells the owner what is new, and the stack what to do.
    pub(crate) fn tell(&mut self, events: &mut Events) -> Fate {
        let state = self.state();
        if let Some(cause) = self.news.cause {
            if !self.is_orphan && !self.news.told_broken {
                self.news.told_broken = true;
                events.push(Event::Broken { flow: self.id, cause });
            }
            // What came before a reset is still the owner's, as in a kernel.
            let is_readable = cause == Cause::Reset && self.news.told_established && self.has_data();
            if is_readable && !self.is_orphan && self.is_silent() {
                return Fate::Drains;
            }
            self.is_orphan = true;
            return if state != State::Closed || self.is_silent() { Fate::Ends } else { Fate::Lives };
        }
        if self.is_orphan {
            let is_over =
                self.is_detached || matches!(state, State::TimeWait | State::Listen) || self.is_silent();
            return if is_over { Fate::Ends } else { Fate::Lives };
        }
        if matches!(state, State::Listen | State::SynSent | State::SynReceived) {
            return Fate::Lives;
        }
        if !self.news.told_established {
            self.news.told_established = true;
            events.push(Event::Established(self.id));
        }
        let socket = self.sockets.get::<smoltcp::socket::tcp::Socket<'_>>(self.handle);
        if self.news.awaits_data && socket.can_recv() {
            self.news.awaits_data = false;
            events.push(Event::Readable(self.id));
        }
        let room = socket.send_capacity() - socket.send_queue();
        if self.news.awaits_room && socket.may_send() && room >= socket.send_capacity() / 4 {
            self.news.awaits_room = false;
            events.push(Event::Writable(self.id));
        }
        let has_ended = matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if has_ended && !self.news.told_end {
            self.news.told_end = true;
            events.push(Event::PeerClosed(self.id));
        }
        if !matches!(state, State::TimeWait | State::Closed) {
            return Fate::Lives;
        }
        if self.news.has_read_end {
            events.push(Event::Closed(self.id));
            return Fate::Ends;
        }
        Fate::Drains
    }
}
