//! The helper between this process and the command, from this process's end.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command},
    sync::Arc,
    time::{Duration, Instant},
};

use lattice_bootstrap::{Failure, Handed, InsideLink, Kind};
use lattice_overlay::userns::rights;
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::Signal,
    unistd::{getpgrp, tcgetpgrp},
};

use super::{
    channel::{Answer, Channel, Order, Start},
    environment,
};
use crate::signals;

/// More than the kernel takes for any of it.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a helper may take to end when it was told to.
const ENDING: Duration = Duration::from_secs(5);

/// That the command is to have namespaces.
pub(super) struct Namespaces {
    /// And gVisor, by this program.
    pub(super) runsc: Option<PathBuf>,
}

/// A running helper. Dropping it ends it, and the command.
pub(super) struct Helper {
    process: Child,
    channel: Arc<Channel>,
}

impl Helper {
    /// Starts it: this very program, with a socket that leads here. There must be no other thread yet, since what they start would be given that
    /// socket too.
    pub(super) fn start(namespaces: Option<&Namespaces>, command: &[OsString]) -> Result<Self, Failure> {
        let spawn = || -> io::Result<Self> {
            let (ours, its) = rights::pair()?;
            fcntl(&its, FcntlArg::F_SETFD(FdFlag::empty()))?;
            let mut helper = Command::new("/proc/self/exe");
            helper.arg0("lattice").args(["sandbox", "inside", "--channel", &its.as_raw_fd().to_string()]);
            if let Some(Namespaces { runsc }) = namespaces {
                helper.arg("--namespaces");
                if let Some(runsc) = runsc {
                    helper.arg("--runsc").arg(runsc);
                }
            }
            environment::without_secrets(helper.arg("--").args(command));
            Ok(Self { process: helper.spawn()?, channel: Arc::new(Channel::new(ours)) })
        };
        spawn()
            .map_err(|error| Failure::new(Kind::Internal, format!("cannot start this program anew: {error}")))
    }

    /// What it has made for the command, or why it cannot.
    pub(super) fn prepared(&self) -> Result<Handed, String> {
        let (answer, with) = self.answer()?;
        match (answer, <[OwnedFd; 3]>::try_from(with)) {
            (Answer::Prepared, Ok([link, udp, tcp])) => {
                let channel = self.channel.clone();
                let configure = move |link: &InsideLink| {
                    let InsideLink { addresses, mtu, loopback } = link.clone();
                    let order = Order::Link { addresses, mtu, loopback };
                    obey(&channel, &order).map_err(|reason| Failure::new(Kind::Kernel, reason))
                };
                Ok(Handed { link, udp: udp.into(), tcp: tcp.into(), configure: Box::new(configure) })
            }
            (Answer::Refused(reason), _) => Err(reason),
            _ => Err("the helper sent what was not asked for".into()),
        }
    }

    /// Has it run the command; where that cannot be executed, why, and the exit code that says so.
    ///
    /// # Errors
    /// When the helper could not do its own part.
    pub(super) fn run(&self, start: Start) -> Result<Result<(), (String, u8)>, Failure> {
        let failed = |reason| Failure::new(Kind::Kernel, reason);
        match ask(&self.channel, &Order::Start(start)).map_err(failed)? {
            Answer::NotRun(reason, code) => Ok(Err((reason, code))),
            answer => done(answer).map(Ok).map_err(failed),
        }
    }

    /// The way of signals to the command.
    pub(super) fn signaller(&self) -> Signaller {
        Signaller(self.channel.clone())
    }

    /// Returns when the helper has ended, or [`Helper::end`] was called: the command's exit code, 128+n when a signal ended it, if the helper has told.
    /// Blocks.
    pub(super) fn waiter(&self) -> impl FnOnce() -> Option<u8> + Send + use<> {
        let channel = self.channel.clone();
        move || {
            let mut code = None;
            while let Ok(Some((answer, _))) = channel.receive() {
                if let Answer::Ended(ended) = answer {
                    code = Some(ended);
                }
            }
            code
        }
    }

    /// Ends the command, if it still runs. `told` is its exit code, if it has ended by itself.
    ///
    /// # Errors
    /// Without a code: the helper has ended before the command.
    pub(super) fn end(mut self, told: Option<u8>) -> Result<u8, Failure> {
        let status = self.reap();
        let status = status
            .map_err(|error| Failure::new(Kind::Internal, format!("cannot wait for the command: {error}")))?;
        told.ok_or_else(|| {
            let text =
                format!("the command's helper has ended before it ({status}), and the command with it");
            Failure::new(Kind::Internal, text)
        })
    }

    fn answer(&self) -> Result<(Answer, Vec<OwnedFd>), String> {
        answer(&self.channel)
    }

    fn reap(&mut self) -> io::Result<std::process::ExitStatus> {
        self.channel.close();
        let deadline = Instant::now() + ENDING;
        loop {
            match self.process.try_wait()? {
                Some(status) => return Ok(status),
                None if Instant::now() > deadline => {
                    self.process.kill()?;
                    return self.process.wait();
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.reap();
    }
}

fn obey(channel: &Channel, order: &Order) -> Result<(), String> {
    ask(channel, order).and_then(done)
}

fn ask(channel: &Channel, order: &Order) -> Result<Answer, String> {
    channel.send(order, &[]).map_err(|error| format!("the helper has ended: {error}"))?;
    answer(channel).map(|(answer, _)| answer)
}

fn done(answer: Answer) -> Result<(), String> {
    match answer {
        Answer::Done => Ok(()),
        Answer::Failed(reason) | Answer::Refused(reason) | Answer::NotRun(reason, _) => Err(reason),
        Answer::Prepared | Answer::Ended(_) => Err("the helper sent what was not asked for".into()),
    }
}

fn answer(channel: &Channel) -> Result<(Answer, Vec<OwnedFd>), String> {
    match channel.receive_within(PATIENCE) {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err("the helper has ended".into()),
        Err(error) => Err(format!("the helper did not answer: {error}")),
    }
}

/// Gives the command signals.
pub(super) struct Signaller(Arc<Channel>);

impl signals::Receiver for Signaller {
    fn send(&self, signal: Signal) -> Result<(), String> {
        match self.0.send(&Order::Signal(signal as i32), &[]) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    /// The command is in our process group. When that is the terminal's foreground, what the user types there reaches both.
    fn has_it_from_the_terminal(&self, signal: Signal) -> bool {
        let typed = matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGWINCH);
        typed
            && std::fs::File::open("/dev/tty")
                .is_ok_and(|terminal| tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()))
    }
}
