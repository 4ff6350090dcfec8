//! The user-space backend: a TUN device in the namespace to protect, a UDP socket in the underlay, and one thread.

use std::{
    fmt,
    sync::{
        Arc,
        mpsc::{self, Sender, SyncSender},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{
    Backend, Device, DeviceConfig, DeviceError, Drops, PeerConfig, PeerStatus, check_count,
    engine::{Command, Engine},
    tun::Tun,
    udp::Udp,
};
use crate::{link, wireguard::Interface};

/// A WireGuard device in this process.
pub(super) struct UserSpaceDevice {
    name: String,
    listen_port: u16,
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl UserSpaceDevice {
    pub(super) fn create(config: DeviceConfig) -> Result<Self, DeviceError> {
        let name = config.name;
        let udp = config.underlay.run(|| Udp::bind(config.listen_port));
        let udp = udp.map_err(DeviceError::Namespace)?.map_err(DeviceError::Socket)?;
        let listen_port = udp.port().map_err(DeviceError::Socket)?;
        let tun = config.inside.run(|| Tun::open(&name)).map_err(DeviceError::Namespace)?;
        let tun = tun.map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) => DeviceError::Taken(name.clone()),
            _ => DeviceError::Tun(error),
        })?;
        link::set_mtu(&config.inside, &name, config.mtu)?;

        let start = |source| DeviceError::Start { name: name.clone(), source };
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags).map_err(|error| start(error.into()))?);
        let (commands, inbox) = mpsc::channel();
        let interface = Interface::new(&config.private_key, config.mtu, Instant::now());
        let engine = Engine::new(interface, tun, udp, inbox, Arc::clone(&wake));
        let device = name.clone();
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                if let Err(error) = engine.run() {
                    tracing::error!(device, %error, "the WireGuard device stopped");
                }
            })
            .map_err(start)?;
        Ok(Self { name, listen_port, commands, wake, thread: Some(thread) })
    }

    fn ask<T>(&self, command: impl FnOnce(SyncSender<T>) -> Command) -> Result<T, DeviceError> {
        let stopped = || DeviceError::Stopped(self.name.clone());
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(command(reply)).map_err(|_| stopped())?;
        answer.recv().map_err(|_| stopped())
    }

    fn send(&self, command: Command) -> Result<(), mpsc::SendError<Command>> {
        self.commands.send(command)?;
        // It fails only when the counter is full, and then the thread wakes anyhow.
        let _ = self.wake.write(1);
        Ok(())
    }
}

impl Device for UserSpaceDevice {
    fn backend(&self) -> Backend {
        Backend::UserSpace
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn listen_port(&self) -> u16 {
        self.listen_port
    }

    fn set_peers(&self, peers: &[PeerConfig]) -> Result<(), DeviceError> {
        check_count(peers)?;
        self.ask(|done| Command::SetPeers(peers.to_vec(), done))
    }

    fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError> {
        self.ask(Command::Peers)
    }

    fn drops(&self) -> Result<Option<Drops>, DeviceError> {
        self.ask(Command::Drops).map(Some)
    }
}

impl Drop for UserSpaceDevice {
    fn drop(&mut self) {
        // Where the thread has ended by itself, its link is gone already.
        let _ = self.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(device = self.name, "the WireGuard device's thread panicked");
        }
    }
}

impl fmt::Debug for UserSpaceDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSpaceDevice")
            .field("name", &self.name)
            .field("listen_port", &self.listen_port)
            .finish_non_exhaustive()
    }
}
