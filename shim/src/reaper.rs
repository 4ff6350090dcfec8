//! Every child that ends is waited for here: those that we start, and those of runsc's that become ours because we are
//! the subreaper (`prctl(2)`, PR_SET_CHILD_SUBREAPER).
//!
//! To the kernel, a child belongs to the thread that started it, and an orphan goes to the subreaper's first thread. So
//! the reaper lives on the process's first thread, and takes the children of that thread only: `Command::output` on any other
//! thread, as phase one calls `nft`, is not robbed of its child. `tokio::process` must not be used on the first one.

mod wait;

use std::{
    collections::{HashMap, VecDeque},
    io,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
    time::{Duration, Instant, SystemTime},
};

use nix::{sys::prctl, unistd::Pid};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::procfs;

/// How long an end is remembered for who asks later.
const KEEP: Duration = Duration::from_secs(60);
/// How many ends are: a thousand short execs in a minute are within reason.
const KEEP_MOST: usize = 1024;
/// A process of the sandbox's is at most this far below us: shim, runsc, sandbox, and what runsc puts between.
const MAX_DEPTH: usize = 8;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// As a shell tells it: 128 + n for signal n.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

/// Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Reaper {
    table: Arc<Mutex<Table>>,
    thread: ThreadId,
}

/// A process whose end is awaited.
#[derive(Debug)]
pub struct Awaited {
    pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
}

#[derive(Debug, Default)]
struct Table {
    awaited: HashMap<Pid, watch::Sender<Option<Exit>>>,
    /// The newest last.
    ended: VecDeque<(Pid, Exit, Instant)>,
}

impl Reaper {
    /// Becomes the subreaper and begins to wait. Once per process, on its first thread, inside a `current_thread` runtime.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start() -> io::Result<Self> {
        prctl::set_child_subreaper(true)?;
        let signals = signal(SignalKind::child())?;
        let reaper = Self { table: Arc::default(), thread: thread::current().id() };
        tokio::spawn(reaper.clone().run(signals));
        Ok(reaper)
    }

    /// Starts `command`; its end is never missed. Must be called on the thread on which the reaper started, and must not be
    /// given piped streams that std would own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Awaited> {
        if thread::current().id() != self.thread {
            return Err(io::Error::other("a process was to be started on another thread than the reaper's"));
        }
        // Held over the fork, and nothing is awaited in between: its end cannot be taken before it is registered.
        let mut table = self.table();
        let pid = Pid::from_raw(command.spawn()?.id().cast_signed());
        table.forget(pid);
        Ok(table.subscribe(pid))
    }

    /// Awaits a process that is or becomes our child, such as the sandbox that `runsc create` left. Its end counts even when it
    /// came before this call, within the last minute.
    pub fn adopt(&self, pid: Pid) -> Awaited {
        let mut table = self.table();
        if let Some(exit) = table.end_of(pid).filter(|_| !is_below_us(pid)) {
            return Awaited { pid, exit: watch::channel(Some(exit)).1 };
        }
        table.forget(pid);
        table.subscribe(pid)
    }

    async fn run(self, mut signals: Signal) {
        loop {
            self.reap();
            if signals.recv().await.is_none() {
                return;
            }
        }
    }

    fn reap(&self) {
        let mut table = self.table();
        loop {
            match wait::next_ended() {
                Ok(Some((pid, status))) => table.end(pid, Exit { status, at: SystemTime::now() }),
                Ok(None) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return tracing::error!(%error, "cannot wait for children"),
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited {
    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Resolves at its end. Cancel-safe; may be called again.
    pub async fn exit(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            // The table is gone without an end: so is the runtime, and whoever awaits.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl Table {
    fn subscribe(&mut self, pid: Pid) -> Awaited {
        self.awaited.retain(|_, sender| !sender.is_closed());
        let sender = self.awaited.entry(pid).or_insert_with(|| watch::channel(None).0);
        Awaited { pid, exit: sender.subscribe() }
    }

    fn end(&mut self, pid: Pid, exit: Exit) {
        if let Some(sender) = self.awaited.remove(&pid) {
            sender.send_replace(Some(exit));
        }
        let now = Instant::now();
        self.ended.retain(|(_, _, at)| now.duration_since(*at) < KEEP);
        if self.ended.len() == KEEP_MOST {
            self.ended.pop_front();
        }
        self.ended.push_back((pid, exit, now));
    }

    fn end_of(&self, pid: Pid) -> Option<Exit> {
        let (_, exit, at) = self.ended.iter().rfind(|(ended, ..)| *ended == pid)?;
        (at.elapsed() < KEEP).then_some(*exit)
    }

    /// The pid has been given to another process since.
    fn forget(&mut self, pid: Pid) {
        self.ended.retain(|(ended, ..)| *ended != pid);
    }
}

/// Whether `pid` lives and descends from this process: then an end that was kept is of another, earlier one.
fn is_below_us(pid: Pid) -> bool {
    let (us, mut at) = (Pid::this(), pid);
    for _ in 0..MAX_DEPTH {
        match procfs::stat(at) {
            Some(stat) if stat.parent == us => return true,
            Some(stat) => at = stat.parent,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests;
