//! One loaded enforcer on a BPF file system of its own, and `BPF_PROG_TEST_RUN`.

use std::path::PathBuf;

use aya::programs::{TestRun as _, TestRunOptions};
use lattice_policy::{Action, Entry, Match, PortRange, Proto, Reason, RuleId, Table};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::super::{Enforcer, Options, program};
use super::packet::{OWN4, OWN6};
use crate::{AttachMode, Events, Flow, bpffs};

const PASS: u32 = u32::MAX;
const DROP: u32 = 2;
const REDIRECT: u32 = 7;

pub(super) struct Fixture {
    pub(super) enforcer: Enforcer,
    pub(super) events: Events,
    pub(super) pins: Pins,
}

/// A mounted BPF file system.
pub(super) struct Pins {
    pub(super) dir: PathBuf,
    _parent: tempfile::TempDir,
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Pass,
    Drop,
    /// Sent back, as these bytes.
    Answer(Vec<u8>),
}

impl Fixture {
    pub(super) fn new() -> Self {
        let pins = Pins::mount();
        let own = vec![OWN4.into(), OWN6.parse().unwrap()];
        let options = Options { pin_dir: pins.dir.clone(), own, attach: AttachMode::Auto };
        let mut enforcer = Enforcer::load(&options).unwrap();
        Self { events: enforcer.events().unwrap(), enforcer, pins }
    }

    pub(super) fn with(table: &Table) -> Self {
        let mut fixture = Self::new();
        fixture.enforcer.apply(table, 1).unwrap();
        fixture
    }

    pub(super) fn run(&mut self, name: &'static str, frame: &[u8], mark: u32) -> Outcome {
        let program = program(&mut self.enforcer.ebpf, name).unwrap();
        let mut out = vec![0; 4096];
        // `struct __sk_buff`: its third word is the mark.
        let mut context = [0; 192];
        context[8..12].copy_from_slice(&mark.to_ne_bytes());
        let run = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let done = program.test_run(run).unwrap();
        match done.return_value {
            PASS => Outcome::Pass,
            DROP => Outcome::Drop,
            REDIRECT => {
                out.truncate(done.data_size_out as usize);
                Outcome::Answer(out)
            }
            other => panic!("return value {other}"),
        }
    }

    pub(super) fn told(&mut self) -> Vec<Flow> {
        let mut flows = Vec::new();
        self.events.drain(&mut |flow| flows.push(flow));
        flows
    }

    /// Runs a frame and says which reason counted it.
    pub(super) fn reason(&mut self, name: &'static str, frame: &[u8]) -> Reason {
        let before = self.enforcer.stats().unwrap();
        let outcome = self.run(name, frame, 0);
        let after = self.enforcer.stats().unwrap();
        let counted: Vec<Reason> =
            before.iter().zip(&after).filter(|(b, a)| b.1 != a.1).map(|(_, a)| a.0).collect();
        let [reason] = counted[..] else { panic!("counted as {counted:?}") };
        let passes = matches!(reason, Reason::RuleAllow | Reason::Established | Reason::LinkControl);
        assert_eq!(passes, outcome == Outcome::Pass, "{reason:?}: {outcome:?}");
        reason
    }

    pub(super) fn egress(&mut self, frame: &[u8]) -> Reason {
        self.reason("egress_l2", frame)
    }

    pub(super) fn ingress(&mut self, frame: &[u8]) -> Reason {
        self.reason("ingress_l2", frame)
    }

    pub(super) fn answer(&mut self, frame: &[u8]) -> Vec<u8> {
        match self.run("egress_l2", frame, 0) {
            Outcome::Answer(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }
}

impl Pins {
    fn mount() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("pins");
        // In a mount namespace of this thread: the kernel unmounts it even if the test is killed.
        unshare(CloneFlags::CLONE_NEWNS).expect("needs CAP_SYS_ADMIN: run the tests as root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        bpffs::mount(&dir).unwrap();
        Self { dir, _parent: parent }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = bpffs::unmount(&self.dir);
    }
}

pub(super) fn line(proto: Proto, ports: Option<(u16, u16)>, action: Action, rule: u32) -> Match {
    Match { proto, ports: ports.map(|(lo, hi)| PortRange { lo, hi }), action, rule: RuleId(rule) }
}

pub(super) fn entry(net: &str, matches: &[Match]) -> Entry {
    Entry { net: net.parse().unwrap(), matches: matches.to_vec() }
}
