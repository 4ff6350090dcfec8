//! A sandbox that tries the same things over and over, for tests that change the policy under it.

use std::{process::Command, time::Duration};

use nix::sys::signal::Signal;

use crate::{Host, Lab, Process, agent, lab::wait_until, remains};

const LIMIT: Duration = Duration::from_secs(60);

/// An agent that fetches `targets` (`host:port`) by HTTP over and over, one line for each attempt: `<target> <ok or no>`.
pub struct Prober(pub Process);

impl Prober {
    /// A sandbox with these rules.
    pub fn start(lab: &Lab, host: &Host, name: &str, egress: &[&str], targets: &[String]) -> Self {
        Self::run(agent::start(lab, host, name, egress), lab, name, targets)
    }

    /// The sandbox that `start` starts, which has no agent binary yet.
    pub fn run(mut start: Command, lab: &Lab, name: &str, targets: &[String]) -> Self {
        let script = format!(
            "while :; do for t in {}; do curl -sf -m 3 -o /dev/null http://$t/ && echo $t ok || echo $t no; done; sleep 0.05; done",
            targets.join(" ")
        );
        start.args(["--agent-binary", "/bin/sh", "--", "-c", &script]);
        Self(Process::spawn(start, name, lab.dir.path()))
    }

    /// Waits until every one of `expected` was the result of three attempts in a row that began after now.
    ///
    /// # Panics
    /// When that never is so.
    pub fn await_results(&mut self, what: &str, expected: &[(&str, &str)]) {
        let from = self.0.output().0.len();
        wait_until(LIMIT, what, || {
            let out = self.0.output().0;
            let new = out.get(from..).unwrap_or_default();
            // The first whole line may be of an attempt from before.
            expected.iter().all(|(target, result)| {
                let results: Vec<&str> = new
                    .lines()
                    .skip(1)
                    .filter_map(|line| line.strip_prefix(target)?.strip_prefix(' '))
                    .collect();
                results.len() >= 3 && results.iter().rev().take(3).all(|got| got == result)
            })
        });
    }

    /// Ends it, and sees that it leaves nothing.
    ///
    /// # Panics
    /// When it leaves something.
    pub fn end(self, host: &Host) {
        self.0.signal(Signal::SIGTERM);
        self.0.finish(LIMIT);
        remains::assert_none(host);
    }
}
