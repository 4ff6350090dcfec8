//! What the owners of a device, and of its filter, ask of its thread.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        mpsc::{self, Receiver, SendError, Sender, SyncSender},
    },
};

use lattice_filter::Program;
use lattice_policy::{Counter, Pin, RuleId};
use lattice_wire::{Signal, WgPublicKey};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{
    DeviceError, Drops, PeerConfig, PeerStatus,
    paths::{RelayStatus, Servers},
};
use crate::stack::first::First;

/// A request, with the way its answer takes.
pub(crate) enum Command {
    SetPeers(Vec<PeerConfig>, SyncSender<Result<(), DeviceError>>),
    Peers(SyncSender<Result<Vec<PeerStatus>, DeviceError>>),
    Drops(SyncSender<Result<Drops, DeviceError>>),
    /// Answered with the program of before.
    Apply(Box<Program>, SyncSender<Option<Program>>),
    Pin(Vec<Pin>, SyncSender<()>),
    Counters(SyncSender<Vec<(RuleId, Counter)>>),
    /// Judges flows that would begin with these; says which are denied.
    Deny(Vec<First>, SyncSender<Vec<bool>>),
    SetLocal(Vec<SocketAddr>),
    SetServers(Box<Servers>),
    Signal(WgPublicKey, Box<Signal>),
    Relays(SyncSender<Vec<RelayStatus>>),
    Stop,
}

/// The way to the thread.
#[derive(Debug, Clone)]
pub(crate) struct Commands {
    device: Arc<str>,
    sender: Sender<Command>,
    wake: Arc<EventFd>,
}

impl Commands {
    /// The way to the thread of `device`, and the thread's end of it: the inbox, and what wakes it.
    ///
    /// # Errors
    /// When there is no event descriptor left.
    pub(crate) fn new(device: &str) -> io::Result<(Self, Receiver<Command>, Arc<EventFd>)> {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (sender, inbox) = mpsc::channel();
        Ok((Self { device: device.into(), sender, wake: Arc::clone(&wake) }, inbox, wake))
    }

    pub(crate) fn name(&self) -> &str {
        &self.device
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn ask<T>(&self, command: impl FnOnce(SyncSender<T>) -> Command) -> Result<T, DeviceError> {
        let stopped = || DeviceError::Stopped(self.device.to_string());
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(command(reply)).map_err(|_| stopped())?;
        answer.recv().map_err(|_| stopped())
    }

    /// Sends a command that is not answered.
    pub(crate) fn tell(&self, command: Command) -> Result<(), DeviceError> {
        self.send(command).map_err(|_| DeviceError::Stopped(self.device.to_string()))
    }

    pub(crate) fn send(&self, command: Command) -> Result<(), SendError<Command>> {
        self.sender.send(command)?;
        // It fails only when the counter is full, and then the thread wakes anyhow.
        let _ = self.wake.write(1);
        Ok(())
    }
}
