//! The device of pod mode: WireGuard below, a TCP/IP stack in this process above; of the kernel's network it has UDP sockets only, and it
//! takes no privilege.
//!
//! ```text
//!   Network: TcpStream, TcpListener, UdpSocket ─► stack ─► gate (the policy) ─► wireguard ─► udp socket, relays
//!   Admission: a flow of the host's own sockets ─────────► gate
//! ```
//!
//! One thread and no locks: the device, the stack and whoever uses its sockets are tasks of one runtime. What is allowed to leave or to come in is
//! judged packet by packet, as in every device that has a filter. A policy that is narrowed ends what it permits no more at once, also what
//! is silent.

mod admission;
mod datagrams;
mod engine;
pub(crate) mod epoll;
pub(crate) mod first;
mod listener;
mod mallopt;
pub(crate) mod network;
pub(crate) mod packets;
pub(crate) mod sockets;
pub(crate) mod state;
pub(crate) mod stream;

use std::{
    future::Future,
    net::IpAddr,
    rc::Rc,
    sync::{Arc, mpsc},
};

use lattice_filter::Decision;
use lattice_netstack::{Config, Limits, Stack};
use lattice_wire::WgPrivateKey;
use lattice_wireguard::{OsRandom, Random as _};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::{
    Device, DeviceError, Netns, PathsConfig,
    device::{
        core::Core,
        userspace::{CoreConfig, UserSpaceDevice},
    },
};
pub use admission::Admission;
pub use datagrams::UdpSocket;
use engine::Engine;
pub use listener::{Request, TcpListener};
pub use network::Network;
use state::Shared;
pub use stream::TcpStream;

/// Tasks that may work before the kernel is asked for what is new. Each moves up to 64 KiB, so packets would wait for long otherwise.
const TASKS: u32 = 8;

/// What a device with a stack is made from.
#[derive(Debug)]
pub struct StackConfig {
    /// Its name, for errors and the log.
    pub name: String,
    /// This peer's key.
    pub private_key: WgPrivateKey,
    /// The UDP port in `underlay`; 0 takes any, and so does a port that is taken.
    pub listen_port: u16,
    /// The longest inner packet in bytes.
    pub mtu: u16,
    /// The namespace the encrypted packets leave by; without a privilege, it must be the caller's.
    pub underlay: Arc<Netns>,
    /// The stack's addresses: the only ones it sends from, and the only ones that others reach.
    pub addresses: Vec<IpAddr>,
    /// Has the device find paths itself.
    pub paths: Option<PathsConfig>,
    /// What the stack may take.
    pub limits: Limits,
}

/// Makes a device with a stack. `serve` is called on the device's thread, in its runtime: its future may spawn local tasks
/// ([`spawn_local`](tokio::task::spawn_local)), and all of them end with the device. When its future ends, the device goes on.
///
/// The device has a filter ([`Device::filter`]), which lets nothing pass until it is given a policy.
///
/// # Errors
/// When there is no socket, descriptor or thread left, or an address or the MTU is of no use.
pub fn create_stack<S, F>(config: StackConfig, serve: S) -> Result<Box<dyn Device>, DeviceError>
where
    S: FnOnce(Network) -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    mallopt::give_large_buffers_back();
    let StackConfig { name, private_key, listen_port, mtu, underlay, addresses, paths, limits } = config;
    let filter = Some(addresses.clone());
    let core = CoreConfig { name: name.clone(), private_key, listen_port, mtu, underlay, filter, paths };
    let (device, mut core) = UserSpaceDevice::prepare(core)?;
    core.outside.udp.wait_never();
    let random = Box::new(|bytes: &mut [u8]| OsRandom.fill(bytes));
    let stack = Stack::new(Config { addresses, mtu, limits, random }, core.clock.now());
    let stack = stack.map_err(|source| DeviceError::Stack { name: name.clone(), source })?;
    let (started, has_started) = mpsc::sync_channel(1);
    let label = name.clone();
    let device = device.start(move || {
        // The runtime is of this thread only, so that its tasks need not be `Send`.
        let runtime = Builder::new_current_thread()
            .event_interval(TASKS)
            .enable_all()
            .build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => run(&runtime, &label, core, stack, limits, serve, &started),
            Err(error) => drop(started.send(Err(error))),
        }
    })?;
    match has_started.recv() {
        Ok(Ok(())) => Ok(Box::new(device)),
        Ok(Err(source)) => Err(DeviceError::Start { name, source }),
        Err(_) => Err(DeviceError::Stopped(name)),
    }
}

/// Runs a device to its end.
fn run<S, F>(
    runtime: &LocalRuntime,
    name: &str,
    core: Core,
    stack: Stack,
    limits: Limits,
    serve: S,
    started: &mpsc::SyncSender<std::io::Result<()>>,
) where
    S: FnOnce(Network) -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    runtime.block_on(async {
        let shared = Rc::new(Shared::new(core, stack, limits));
        let engine = match Engine::new(Rc::clone(&shared)) {
            Ok(engine) => engine,
            Err(error) => return drop(started.send(Err(error))),
        };
        let _started = started.send(Ok(()));
        tokio::task::spawn_local(serve(Network(shared)));
        // A task, as those of the sockets are, so that it is called when it is woken and not at each of their wakes.
        match tokio::task::spawn_local(engine.run()).await {
            Ok(()) => {}
            Err(error) => tracing::error!(device = name, %error, "the WireGuard device's task failed"),
        }
        // Those who were told of the end may clean up.
        tokio::task::yield_now().await;
    });
}

/// What carries data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// Echo requests and their answers (RFC 792, RFC 4443). Who asks has the identifier as port, who is asked has none.
    Icmp,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The policy denies it; the verdict is on record.
    #[error("the policy does not permit it")]
    Denied(Denied),
    /// No peer has that address.
    #[error("no peer has that address")]
    NoPeer,
    /// The peer refused it.
    #[error("the peer refused the connection")]
    Refused,
    /// The peer, or somebody on the way, said that it cannot be reached.
    #[error("the peer cannot be reached")]
    Unreachable,
    /// No answer came.
    #[error("the peer did not answer")]
    TimedOut,
    /// As many connections or sockets as may be.
    #[error("too many connections")]
    Busy,
    /// The device has ended.
    #[error("the device has ended")]
    Stopped,
}

/// A verdict: what denied, by which policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    /// Reason and rule.
    pub decision: Decision,
    /// The generation of the policy that the rule is of.
    pub generation: u32,
}
