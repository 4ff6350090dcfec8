//! The programs on single frames, by `BPF_PROG_TEST_RUN`, without any network: for tests that hold this enforcer to
//! another one, and for benchmarks. Behind the feature `harness`.

use std::{
    env,
    net::IpAddr,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use lattice_policy::{Action, Direction, Reason};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{
    AttachMode, EbpfError, Enforcer, Options, bpffs,
    enforcer::{load_all, program, refused},
    event,
};

const PASS: u32 = u32::MAX;
const REDIRECT: u32 = 7;

/// One loaded enforcer on a BPF file system of its own, attached to nothing.
#[derive(Debug)]
pub struct Harness {
    /// Applies policies, tells verdicts and counts.
    pub enforcer: Enforcer,
    /// What the reasons counted up to the last judgement.
    counted: Option<Vec<(Reason, u64)>>,
    /// Declared last: unmounted when the enforcer is gone.
    pins: Pins,
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on as it was.
    Pass,
    /// It is gone.
    Drop,
    /// It was turned into these bytes and goes back to its sender.
    Answer(Vec<u8>),
}

/// A BPF file system that nobody else sees, unmounted when dropped.
#[derive(Debug)]
pub struct Pins {
    /// Where it is mounted.
    pub dir: PathBuf,
}

// === impl Harness ===

impl Harness {
    /// Loads the programs for a sandbox with the addresses `own`. Moves the calling **thread** into a mount namespace of
    /// its own.
    ///
    /// # Errors
    /// As [`Enforcer::load`] and [`bpffs::mount`].
    pub fn new(own: &[IpAddr]) -> Result<Self, EbpfError> {
        let pins = Pins::mount()?;
        let options = Options { pin_dir: pins.dir.clone(), own: own.to_vec(), attach: AttachMode::Auto };
        Ok(Self { enforcer: Enforcer::load(&options)?, counted: None, pins })
    }

    /// Takes the enforcer over with other addresses, as the next process would.
    ///
    /// # Errors
    /// As [`Enforcer::load`].
    pub fn reload(self, own: &[IpAddr]) -> Result<Self, EbpfError> {
        let Self { enforcer, pins, .. } = self;
        drop(enforcer);
        let options = Options { pin_dir: pins.dir.clone(), own: own.to_vec(), attach: AttachMode::Auto };
        Ok(Self { enforcer: Enforcer::load(&options)?, counted: None, pins })
    }

    /// Where the pins are.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// What the policy says of an Ethernet frame that leaves (`Egress`) or arrives. A flow that it lets in is known from
    /// then on, as on a link. Takes a few microseconds.
    ///
    /// # Errors
    /// When the kernel does not run it: it wants an Ethernet header and as much after it as the shortest IP header.
    pub fn judge(&mut self, frame: &[u8], direction: Direction) -> Result<(Action, Reason), EbpfError> {
        let before = match self.counted.take() {
            Some(counted) => counted,
            None => self.enforcer.stats()?,
        };
        self.test_run(frame, direction, 0, 1, &mut [])?;
        let after = self.enforcer.stats()?;
        let counted = before.iter().zip(&after).find(|(before, after)| before.1 != after.1);
        let reason = counted.map(|(_, after)| after.0).ok_or(EbpfError::Object("reason for this frame"))?;
        self.counted = Some(after);
        Ok((event::action(reason), reason))
    }

    /// What becomes of an Ethernet frame whose `skb->mark` is `mark`.
    ///
    /// # Errors
    /// As [`judge`](Self::judge).
    pub fn run(&mut self, frame: &[u8], direction: Direction, mark: u32) -> Result<Outcome, EbpfError> {
        let mut out = vec![0; frame.len().max(256)];
        let (code, length, _) = self.test_run(frame, direction, mark, 1, &mut out)?;
        Ok(match code {
            PASS => Outcome::Pass,
            REDIRECT => {
                out.truncate(length);
                Outcome::Answer(out)
            }
            _ => Outcome::Drop,
        })
    }

    /// How long the program takes for `frame`: the mean of `repeat` runs. A frame that is answered is another one after
    /// its first run.
    ///
    /// # Errors
    /// As [`judge`](Self::judge).
    pub fn time(&mut self, frame: &[u8], direction: Direction, repeat: u32) -> Result<Duration, EbpfError> {
        Ok(self.test_run(frame, direction, 0, repeat, &mut [])?.2)
    }

    fn test_run(
        &mut self,
        frame: &[u8],
        direction: Direction,
        mark: u32,
        repeat: u32,
        out: &mut [u8],
    ) -> Result<(u32, usize, Duration), EbpfError> {
        self.counted = None;
        let name = match direction {
            Direction::Egress => "egress_l2",
            Direction::Ingress => "ingress_l2",
        };
        // `struct __sk_buff`: its third word is the mark.
        let mut context = [0; 192];
        if let Some(word) = context.get_mut(8..12) {
            word.copy_from_slice(&mark.to_ne_bytes());
        }
        let run = TestRunOptions {
            data_in: Some(frame),
            data_out: (!out.is_empty()).then_some(out),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        };
        let ebpf = &mut self.enforcer.ebpf;
        load_all(ebpf, &[name])?;
        let program: &SchedClassifier = program(ebpf, name)?;
        let done = program.test_run(run).map_err(|e| refused(name, e))?;
        Ok((done.return_value, done.data_size_out as usize, done.duration))
    }
}

// === impl Pins ===

impl Pins {
    /// Mounts a new one, in a mount namespace of the calling thread: the kernel unmounts it even if the test is killed.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`.
    pub fn mount() -> Result<Self, EbpfError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("lattice-harness-{}-{number}", process::id()));
        let fail = |e: nix::Error| EbpfError::Bpffs { doing: "mount", path: dir.clone(), source: e.into() };
        unshare(CloneFlags::CLONE_NEWNS).map_err(fail)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .map_err(fail)?;
        bpffs::mount(&dir)?;
        Ok(Self { dir })
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = bpffs::unmount(&self.dir);
    }
}
