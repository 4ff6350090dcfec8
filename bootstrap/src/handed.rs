//! Phase one around a namespace that this process cannot enter: a child without privilege has made it, and handed over its link and the sockets
//! of its resolver.
//!
//! ```text
//!  this process                                  the child, in namespaces of its own
//!  Handed { link, udp, tcp, configure } ◄────────  opens wg0, down, and 127.0.0.1:53
//!  device ─► policy ─► links: configure ────────►  addresses, MTU, link up, all routes by wg0
//!  resolver ─► peers ─► control                    then, and not before, the command
//! ```
//!
//! The command has no right in its namespace, so it makes no other link, and only the device's own filter is needed: class `netns`. Where a rule
//! names what lies outside the overlay, the device has a [gateway](lattice_overlay::gateway) for that.

mod outside;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use lattice_audit::Class;
use lattice_overlay::{Device, DeviceConfig, FilterConfig, LoopbackPorts, gateway::GatewayConfig};
use lattice_policy::{Local, Overlay, RuleSpec};
use lattice_proxy::{Forward, Transport};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use crate::{
    Failure, Join, Kind, Progress, StateDir, Status, Steps, Stop,
    base::{Base, LINK, control_step, peers_step},
    clock::now_unix,
    control::Sources,
    destinations::is_outside,
    enforce::userspace,
    failure::{chain, kernel},
    gate::PolicyGate,
    generations::Generations,
    live::{self, Closed},
    policed::{self, Policed},
    proxied::forwards::offered,
    recorder::Teller,
    resolver,
    steps::{drops, nothing},
};

/// What a child has made in its network namespace.
pub struct Handed {
    /// The link, of [`lattice_overlay::open_link`]: down, without address.
    pub link: OwnedFd,
    /// 127.0.0.1:53, where the agent asks for names.
    pub udp: UdpSocket,
    /// Likewise.
    pub tcp: TcpListener,
    /// Has the child configure the link and raise it. Returns when that is done.
    pub configure: Configure,
}

/// Has a link configured.
pub type Configure = Box<dyn FnOnce(&InsideLink) -> Result<(), Failure> + Send>;

/// How a child is to configure its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsideLink {
    /// Its addresses, at most one of each IP version. All routes of that version lead to the link.
    pub addresses: Vec<IpAddr>,
    /// Bytes of a packet.
    pub mtu: u16,
    /// Ports by which peers reach what listens on 127.0.0.1: packets to and from there go by the link (`route_localnet`), and no connection begins
    /// at one of them by chance.
    pub loopback: Vec<u16>,
}

/// What `lattice sandbox run` needs to know of phase one.
#[derive(Debug)]
pub struct HandedConfig {
    /// Who it is.
    pub join: Join,
    /// What the agent may reach. Nothing else.
    pub egress: Vec<RuleSpec>,
    /// What of it peers may reach: the ports only, at the agent's own address.
    pub forwards: Vec<Forward>,
    /// Where flow records go.
    pub audit_file: PathBuf,
    /// Bytes of an inner packet.
    pub mtu: u16,
    /// What the child has made.
    pub inside: Handed,
}

/// The link's name in the child's namespace.
pub const INSIDE_LINK: &str = LINK;

/// Where Lattice's own resolver is on the child's 127.0.0.1, by UDP and TCP: for the agent, and not for peers.
pub const RESOLVER_PORT: u16 = 53;

/// A policed namespace that a child holds. Dropping it undoes all of it but that.
pub struct HandedSandbox {
    steps: Steps<'static>,
    status: Status,
    ended: watch::Receiver<bool>,
}

impl HandedSandbox {
    /// Runs phase one. `runtime` serves the control connection as long as the sandbox lives.
    ///
    /// # Errors
    /// The first step that failed; all earlier ones are undone.
    pub fn start(
        config: HandedConfig,
        state: StateDir,
        runtime: &Handle,
        progress: &mut dyn Progress,
        stop: &Stop,
    ) -> Result<Self, Failure> {
        let HandedConfig { join, egress, forwards, audit_file, mtu, inside } = config;
        let mut steps = Steps::new(progress, stop.clone());
        let state = Base::state_step(&mut steps, state)?;
        let base = Base::start(&mut steps, &join, runtime, stop)?;
        let (overlay, own) = (base.overlay(), base.own());
        let (gateway, begin) = if egress.iter().any(|rule| is_outside(rule, &overlay)) {
            let (begin, begun) = oneshot::channel();
            (Some(gateway(own, &overlay, mtu, begun)), Some(begin))
        } else {
            (None, None)
        };

        let loopback = loopback_ports(&forwards, own);
        let (device, ended) = device_step(&mut steps, &base, mtu, inside.link, gateway, loopback.clone())?;
        let local = Local { flags: egress, offered: offered(&forwards, overlay.pool())?, ..Local::default() };
        let wanted = Arc::new(live::wanted(1, &local, base.map(), now_unix())?);
        let closed = Closed { nets: base.closed()?, ..Closed::default() };
        let policed = steps.run("policy", || {
            let filter = device.filter().cloned();
            let filter = filter.ok_or_else(|| Failure::new(Kind::Internal, "the device has no filter"))?;
            let started = userspace::on(filter, Class::Netns, "userspace (netns)")?;
            policed::begin(started, local, wanted, closed, &audit_file, &join.name)
        })?;
        if let Some(begin) = begin {
            // It has ended only if the device has.
            let _ = begin.send((policed.teller.clone(), policed.generations.clone()));
        }
        steps.run("links", || {
            let loopback = loopback.into_iter().flat_map(|ports| [ports.tcp, ports.udp]).flatten().collect();
            (inside.configure)(&InsideLink { addresses: own.to_vec(), mtu, loopback })?;
            let detail = format!("{} mtu {mtu}, policed: {LINK}", base.map().address);
            Ok(((), drops(device.clone()), detail))
        })?;
        let resolver = steps.run("resolver", || {
            let gate =
                PolicyGate { live: policed.live.clone(), teller: policed.teller.clone(), search: Vec::new() };
            let sockets = Some((inside.udp, inside.tcp));
            let resolver = resolver::start(sockets, &base.underlay, None, base.names.clone(), gate)
                .map(Arc::new)
                .map_err(|error| kernel("cannot start the sandbox's resolver", &error))?;
            Ok((resolver.clone(), drops(resolver), "127.0.0.1:53, <peer>.lattice and what rules name".into()))
        })?;

        let status = base.status(&*device, &policed.words, audit_file, None);
        let peers = peers_step(&mut steps, base, device, Some(policed.live.clone()), runtime)?;
        let Policed { enforcer, live, words, .. } = policed;
        let sources =
            Sources { words: Arc::new(Mutex::new(words)), live, enforcer, resolver, overlay: peers };
        control_step(&mut steps, &state, "lattice sandbox rules", move || sources.report())?;
        state.publish(&status)?;
        Ok(Self { steps: steps.finish(), status, ended })
    }

    /// What `lattice status` shows.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Waits until the device has ended by itself: the agent then has no network, and never another one.
    pub async fn failed(&self) -> Failure {
        // Without its sender, it has ended as well.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
        Failure::new(Kind::Internal, "the sandbox's WireGuard device has stopped; --log warn says why")
    }

    /// Undoes phase one, and says what could not be undone.
    pub fn stop(mut self) -> Vec<String> {
        self.steps.undo()
    }
}

/// The ports that were said to lead to 127.0.0.1, where all is the agent's own but the resolver, which no peer is led to.
fn loopback_ports(forwards: &[Forward], own: [IpAddr; 2]) -> Option<LoopbackPorts> {
    let own = own.into_iter().find_map(|own| if let IpAddr::V4(own) = own { Some(own) } else { None })?;
    let mut ports = LoopbackPorts { own, tcp: Vec::new(), udp: Vec::new() };
    let is_agents =
        |forward: &&Forward| forward.to.ip() == Ipv4Addr::LOCALHOST && forward.port.get() != RESOLVER_PORT;
    for forward in forwards.iter().filter(is_agents) {
        match forward.transport {
            Transport::Tcp => ports.tcp.push(forward.port.get()),
            Transport::Udp => ports.udp.push(forward.port.get()),
        }
    }
    (!ports.tcp.is_empty() || !ports.udp.is_empty()).then_some(ports)
}

type Made = (Arc<dyn Device>, watch::Receiver<bool>);

fn device_step(
    steps: &mut Steps<'_>,
    base: &Base,
    mtu: u16,
    link: OwnedFd,
    gateway: Option<GatewayConfig>,
    loopback: Option<LoopbackPorts>,
) -> Result<Made, Failure> {
    let paths = base.paths()?;
    steps.run("device", || {
        let config = DeviceConfig {
            name: LINK.into(),
            private_key: base.private_key().clone(),
            listen_port: base.listen_port(),
            mtu,
            underlay: base.underlay.clone(),
            inside: base.underlay.clone(),
            filter: Some(FilterConfig { own: base.own().to_vec() }),
            paths: Some(paths),
        };
        let out = if gateway.is_some() { ", and out of the overlay by this process" } else { "" };
        let (sender, ended) = watch::channel(false);
        let device = lattice_overlay::create_on(config, link, gateway, loopback, move || {
            let _ = sender.send(true);
        });
        let device: Arc<dyn Device> =
            device.map_err(|error| Failure::new(Kind::Kernel, chain(&error)))?.into();
        let detail = format!("{LINK} {} udp {}{out}", device.backend(), device.listen_port());
        // Its undo is that of the links: what is left of the agent's sockets must find no link without a policy.
        Ok(((device, ended), nothing(), detail))
    })
}

/// The way out of the overlay, which takes nothing on before it can put on record what it refuses.
fn gateway(own: [IpAddr; 2], overlay: &Overlay, mtu: u16, begun: oneshot::Receiver<Begun>) -> GatewayConfig {
    let serve = move |gateway| {
        let serve = async move {
            if let Ok((teller, rules)) = begun.await {
                outside::serve(gateway, teller, rules, own).await;
            }
        };
        Box::pin(serve) as _
    };
    GatewayConfig { overlay: overlay.nets().to_vec(), own: own.to_vec(), mtu, serve: Box::new(serve) }
}

/// What puts verdicts on record.
type Begun = (Teller, Generations);

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handed").field("link", &self.link).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_leads_to_the_resolver() {
        let own = ["fd00::3".parse().unwrap(), IpAddr::V4([10, 42, 0, 3].into())];
        let of = |flags: &[&str]| loopback_ports(&lattice_proxy::parse_forwards(flags).unwrap(), own);
        assert_eq!(of(&["53:127.0.0.1:53", "udp:53:127.0.0.1:53", "8080:192.0.2.1:8080"]), None);
        let ports = LoopbackPorts { own: [10, 42, 0, 3].into(), tcp: vec![8080], udp: vec![8081] };
        assert_eq!(
            of(&["udp:53:127.0.0.1:53", "8080:127.0.0.1:8080", "udp:8081:127.0.0.1:8081"]),
            Some(ports)
        );
    }
}
