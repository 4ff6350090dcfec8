//! What happened, for a reader: the last lines of it.

use std::{collections::VecDeque, fmt::Display, time::Instant};

/// Lines kept.
const LINES: usize = 600;

/// A log that writes nothing unless asked to, since a run that passes needs none.
#[derive(Debug)]
pub(crate) struct Trace {
    start: Instant,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    pub(crate) fn new(start: Instant, on: bool) -> Self {
        Self { start, lines: on.then(VecDeque::new) }
    }

    pub(crate) fn note<T: Display>(&mut self, now: Instant, what: impl FnOnce() -> T) {
        let Some(lines) = &mut self.lines else { return };
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(format!("{:>10.4} {}", (now - self.start).as_secs_f64(), what()));
    }

    pub(crate) fn text(&self) -> String {
        self.lines.iter().flatten().map(|line| format!("{line}\n")).collect()
    }
}
