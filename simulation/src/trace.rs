//! What happened, for a reader: the last lines of it.

use std::{collections::VecDeque, fmt::Display, time::Instant};

/// Events kept.
const EVENTS: usize = 1000;
/// Datagrams kept: there are many more of them, and the last say enough.
const DATAGRAMS: usize = 40;

/// A log that writes nothing unless asked to, since a run that passes needs none.
#[derive(Debug)]
pub(crate) struct Trace {
    start: Instant,
    on: bool,
    events: VecDeque<String>,
    datagrams: VecDeque<String>,
}

impl Trace {
    pub(crate) fn new(start: Instant, on: bool) -> Self {
        Self { start, on, events: VecDeque::new(), datagrams: VecDeque::new() }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    pub(crate) fn note<T: Display>(&mut self, now: Instant, what: impl FnOnce() -> T) {
        if self.on {
            push(&mut self.events, EVENTS, now - self.start, what());
        }
    }

    pub(crate) fn note_datagram<T: Display>(&mut self, now: Instant, what: impl FnOnce() -> T) {
        if self.on {
            push(&mut self.datagrams, DATAGRAMS, now - self.start, what());
        }
    }

    pub(crate) fn text(&self) -> String {
        let lines =
            |lines: &VecDeque<String>| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        format!("{}the last datagrams:\n{}", lines(&self.events), lines(&self.datagrams))
    }
}

fn push(lines: &mut VecDeque<String>, most: usize, time: std::time::Duration, what: impl Display) {
    if lines.len() == most {
        lines.pop_front();
    }
    lines.push_back(format!("{:>10.4} {what}", time.as_secs_f64()));
}
