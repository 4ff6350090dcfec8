//! Memory that ran out, as the kernel tells it.
//!
//! Version 1 signals an eventfd that was registered for `memory.oom_control`, and does so once more when the group goes. Version 2
//! changes `memory.events`, for which inotify(7) wakes. Both files are held open: those of a removed group say ENODEV, also when
//! another group has its name by then.

use std::{
    fs::File,
    future::pending,
    io::{self, Seek as _},
    mem,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        eventfd::{EfdFlags, EventFd},
        inotify::{AddWatchFlags, InitFlags, Inotify},
    },
    unistd,
};
use tokio::io::unix::AsyncFd;

use super::{
    epoll,
    files::{self, Table},
};

/// How long version 1 may take from the signal to the count of the kill, of which it gives no sign: so often, and so far apart, we look.
const LOOKS: u32 = 20;
const APART: Duration = Duration::from_millis(10);

/// Tells each time that memory runs out in a group.
#[derive(Debug)]
pub struct OomWatch {
    wakes: AsyncFd<OwnedFd>,
    counter: File,
    seen: u64,
    /// How often to look again after each signal: version 2 counts first.
    looks: u32,
    /// What is left of them.
    left: u32,
}

impl OomWatch {
    pub(super) fn v1(control: &Path) -> io::Result<Self> {
        let mut counter = File::open(control)?;
        let seen = kills(&files::read_open(&mut counter)?);
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let registration = format!("{} {}", event.as_raw_fd(), counter.as_raw_fd());
        files::try_write(&control.with_file_name("cgroup.event_control"), &registration)?;
        Ok(Self { wakes: epoll::readable(event.into())?, counter, seen, looks: LOOKS, left: 0 })
    }

    pub(super) fn v2(events: &Path) -> io::Result<Self> {
        let mut counter = File::open(events)?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(events, AddWatchFlags::IN_MODIFY)?;
        let seen = kills(&files::read_open(&mut counter)?);
        Ok(Self { wakes: epoll::readable(inotify.into())?, counter, seen, looks: 0, left: 0 })
    }

    /// Resolves each time memory runs out, when the kill is counted ([`super::Cgroup::oom_kills`]), also of a kernel that kills nobody or does
    /// not count; never when the group is gone. Cancel-safe. Several kills at once may be told as one.
    pub async fn next(&mut self) {
        loop {
            if self.left == 0 {
                // It fails only where the runtime ends.
                let Ok(mut ready) = self.wakes.readable().await else { return pending().await };
                drain(ready.get_inner());
                ready.clear_ready();
                self.left = self.looks;
            }
            let Ok(text) = self.counter.rewind().and_then(|()| files::read_open(&mut self.counter)) else {
                self.left = 0;
                return pending().await;
            };
            let now = kills(&text);
            if mem::replace(&mut self.seen, now) < now {
                self.left = 0;
                return;
            }
            if self.left > 0 {
                tokio::time::sleep(APART).await;
                self.left -= 1;
                // The kernel may signal one kill more than once.
                if self.left == 0 && (!text.contains("oom_kill ") || text.contains("under_oom 1")) {
                    return;
                }
            }
        }
    }
}

/// What woke us carries nothing that the counter does not say.
fn drain(wakes: &OwnedFd) {
    let mut buffer = [0; 4096];
    while matches!(unistd::read(wakes, &mut buffer), Ok(1..) | Err(Errno::EINTR)) {}
}

/// In `memory.oom_control` of version 1 (since Linux 4.13) as in `memory.events` of version 2.
pub(super) fn kills(text: &str) -> u64 {
    Table::parse(text).get("oom_kill")
}
