//! `lattice sandbox start` as tests use it.

use std::process::Command;

use serde::Deserialize;

use crate::{Host, Lab, tools};

/// One line of the demo agent.
#[derive(Debug, Deserialize)]
pub struct Attempt {
    /// What it tried.
    pub probe: String,
    /// `ok` or the error.
    pub result: String,
    /// More on it.
    #[serde(default)]
    pub detail: serde_json::Value,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub ms: f64,
}

/// The lines of a demo agent's output.
///
/// # Panics
/// When one is no attempt.
pub fn attempts(stdout: &str) -> Vec<Attempt> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    stdout.lines().map(parse).collect()
}

/// Checks the phase lines of a start against `LATTICE_EXPECT`, if set: texts separated by `;`, such as
/// `wg0 kernel;ebpf/clsact`. The tests in virtual machines say with it what they are run for.
///
/// # Panics
/// When one is missing.
pub fn assert_expected(phases: &str) {
    let Ok(expected) = std::env::var("LATTICE_EXPECT") else { return };
    println!("{phases}");
    for text in expected.split(';') {
        assert!(phases.contains(text), "expected {text:?} here:\n{phases}");
    }
}

/// `lattice sandbox start --mode gvisor`, still without an agent binary. Adds a token on the first start.
pub fn start(lab: &Lab, host: &Host, name: &str, egress: &[&str]) -> Command {
    let mut lattice = lab.lattice(host);
    lattice
        .args(["sandbox", "start", "--mode", "gvisor", "--name", name, "--audit-file"])
        .arg(host.dir.join("audit.jsonl"));
    lattice.arg("--agent-rootfs").arg(tools::rootfs());
    for rule in egress {
        lattice.args(["--egress-allow", rule]);
    }
    if !host.dir.join("etc/sandbox-credentials.json").exists() {
        lattice.arg("--token-file").arg(lab.token_file(host));
    }
    lattice
}
