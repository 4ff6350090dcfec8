//! The way out of the overlay for a link in a namespace that nobody with a privilege looks after: what the policy lets go to other addresses
//! ends in a TCP/IP stack of this process, and whoever owns the gateway goes on from there by sockets of the host.
//!
//! ```text
//!   thread of the device                                     thread of the gateway
//!   tun ─► gate ─┬─ to the overlay ─────────► WireGuard
//!                └─ TCP, UDP, pings elsewhere ► Pipe ──────► stack ─► Request, Datagrams ─► the owner
//!   tun ◄─ gate ◄─────────────────────────────── Pipe ◄───── stack ◄─ TcpStream, Datagrams ◄─
//! ```
//!
//! Both ways are judged packet by packet where the device judges all others, and once on record. When the policy changes, the gateway asks anew about
//! each of its flows, also those on which nothing moves, and ends what is permitted no more. The device's thread never waits for the
//! gateway's: what finds no room between them is dropped, as on a wire. Each ends when the other does.

mod datagrams;
mod engine;
mod permits;
mod pipe;
mod request;
mod state;
mod tap;

use std::{fmt, future::Future, io, net::IpAddr, pin::Pin, rc::Rc, sync::mpsc, thread};

use ipnet::IpNet;
use lattice_netstack::{Config, Limits, Stack};
use lattice_wireguard::{OsRandom, Random as _};
use tokio::runtime::{Builder, LocalOptions};

use crate::device::UserFilter;
pub use datagrams::Datagrams;
pub use lattice_netstack::datagram::Unreachable;
use pipe::Pipes;
pub use request::Request;
use state::Shared;
pub(crate) use tap::{Leads, Tap};

/// What a device's gateway is made from.
pub struct GatewayConfig {
    /// What never goes by the gateway, beside the addresses of peers.
    pub overlay: Vec<IpNet>,
    /// The link's own addresses.
    pub own: Vec<IpAddr>,
    /// The link's MTU, in bytes.
    pub mtu: u16,
    /// Called on the gateway's thread, in its runtime: the future may spawn local tasks. All of them end with the gateway, and so with
    /// the device; when the future ends, the device stops.
    pub serve: Serve,
}

/// What serves a gateway.
pub type Serve = Box<dyn FnOnce(Gateway) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// What comes out of the link. Cheap to clone; of the gateway's thread only.
#[derive(Clone)]
pub struct Gateway(Rc<Shared>);

/// Starts a gateway's thread. The result is the device's end of it.
pub(crate) fn start(name: &str, config: GatewayConfig, filter: UserFilter) -> io::Result<Tap> {
    let GatewayConfig { overlay, own, mtu, serve } = config;
    let random = Box::new(|bytes: &mut [u8]| OsRandom.fill(bytes));
    // All of them are the agent's, who gets a quarter.
    let limits = Limits { half_open: 1024, handshake: engine::HANDSHAKE, ..Limits::default() };
    let config = Config { addresses: own, mtu, limits, random };
    let mut stack = Stack::new(config, std::time::Instant::now()).map_err(io::Error::other)?;
    stack.stand_for_others();
    let pipes = Pipes::new()?;
    let (tell, told) = mpsc::sync_channel(1);
    let its = pipes.clone();
    let work = move || {
        // Also when it panics: a link whose way out is gone must not seem to work.
        let _end = pipe::EndOnDrop(its.clone());
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(engine::run(stack, its, filter, serve, &tell)),
            Err(error) => drop(tell.send(Err(error))),
        }
    };
    // 15 bytes are all that the kernel keeps of a name.
    let thread = thread::Builder::new().name(format!("{name}-out")).spawn(work)?;
    let tap = Tap::new(pipes, overlay, thread);
    told.recv().map_err(|_| io::Error::other("its thread has ended"))??;
    Ok(tap)
}

impl fmt::Debug for GatewayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { overlay, own, mtu, .. } = self;
        f.debug_struct("GatewayConfig")
            .field("overlay", overlay)
            .field("own", own)
            .field("mtu", mtu)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}
