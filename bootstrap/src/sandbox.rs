//! Phase one of an agent's sandbox.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use lattice_dns::Names;
use lattice_ebpf::AttachMode;
use lattice_overlay::{BackendChoice, Device, DeviceConfig, FilterConfig, Netns, PathsConfig, link};
use lattice_policy::RuleSpec;
use lattice_wire::NetMap;
use nkeys::KeyPair;
use tokio::{runtime::Handle, sync::watch};

use crate::{
    Failure, Kind, Progress, Ready, StateDir, Status, Steps, Stop,
    control::{Control, OverlaySources, Sources},
    enforce::{self, Enforcer, EnforcerChoice, Place, PolicedLink},
    failure::chain,
    gate::PolicyGate,
    guide::Guide,
    identity::{self, Identity, Join, now_unix},
    links::Watch,
    live::{self, Live},
    renew::Renewal,
    resolver,
    state::Role,
    steps::{drops, nothing},
    sync::{Standing, Sync, Tunnel},
    uplink::WayOut,
};

mod policy;

use policy::Policed;

/// The agent's WireGuard link.
const LINK: &str = "wg0";

/// What `lattice sandbox start --mode gvisor` needs to know of phase one.
#[derive(Debug)]
pub struct SandboxConfig {
    /// Who it is.
    pub join: Join,
    /// What the agent may reach. Nothing else.
    pub egress: Vec<RuleSpec>,
    /// Which WireGuard.
    pub backend: BackendChoice,
    /// What enforces the policy.
    pub enforcer: EnforcerChoice,
    /// How eBPF is attached.
    pub attach: AttachMode,
    /// Where flow records go.
    pub audit_file: PathBuf,
    /// Bytes of an inner packet.
    pub mtu: u16,
}

/// A policed network namespace, with everything that keeps it so. Dropping it undoes all of it.
pub struct Sandbox {
    steps: Steps<'static>,
    ready: Ready,
    status: Status,
}

impl Sandbox {
    /// Runs phase one. `runtime` serves the control connection as long as the sandbox lives.
    ///
    /// # Errors
    /// The first step that failed; all earlier ones are undone.
    pub fn start(
        config: SandboxConfig,
        state: StateDir,
        runtime: &Handle,
        progress: &mut dyn Progress,
        stop: &Stop,
    ) -> Result<Self, Failure> {
        let mut steps = Steps::new(progress, stop.clone());
        let state = Base::state_step(&mut steps, state)?;
        // Before a token is spent; it is loaded while the control plane is asked.
        let (enforcer, words) = enforce::choose(config.enforcer)?;
        enforcer.permits(&config.egress)?;
        let preparing = enforcer.prepare(state.bpf(), config.attach)?;
        let base = Base::start(&mut steps, &config.join, runtime, stop)?;
        let map = base.map();
        let own = [IpAddr::V4(map.address.addr()), IpAddr::V6(unrouted_v6(map))];

        let inside = steps.run("netns", || {
            let netns = Netns::create()
                .map(Arc::new)
                .map_err(|error| kernel("cannot make a network namespace", &error))?;
            link::set_up(&netns, "lo")
                .map_err(|error| kernel("cannot raise the agent's loopback", &error))?;
            Ok((netns.clone(), drops(netns.clone()), netns.path().display().to_string()))
        })?;
        if config.enforcer == EnforcerChoice::Auto && enforcer != Enforcer::Ebpf {
            steps.warn(&format!("the policy is enforced by {words}"));
        }
        let filter = (enforcer == Enforcer::Userspace).then(|| FilterConfig { own: own.to_vec() });
        let device = base.device_step(&mut steps, LINK, config.backend, config.mtu, &inside, filter)?;

        let way_out = WayOut::make(&mut steps, &config, map.pool, &base.underlay, &inside, &state)?;
        let policy = Arc::new(live::wanted(1, &config.egress, map, now_unix())?);
        let closed = closed(&base.underlay, map)
            .map_err(|error| kernel("cannot list this host's addresses, which no name may open", &error))?;
        let overlay = PolicedLink { name: LINK, own: own.to_vec() };
        let uplink = way_out.link().map(|name| PolicedLink { name, own: way_out.addresses() });
        let links: Vec<PolicedLink> = [overlay].into_iter().chain(uplink).collect();
        let names: Vec<&str> = links.iter().map(|link| link.name).collect();
        let policed = steps.run("policy", || {
            let filter = device.filter().cloned();
            let started = preparing.start(Place { netns: inside.clone(), links, filter })?;
            policy::begin(started, config.egress, policy, closed, &config.audit_file, &config.join.name)
        })?;

        if let Some(link) = way_out.link() {
            let close = live::closing(inside.clone(), link);
            policed.live.lock().unwrap_or_else(PoisonError::into_inner).close_by(close);
        }

        steps.run("links", || {
            let configure = || -> Result<(), link::LinkError> {
                for address in own {
                    link::add_address(&inside, LINK, IpNet::from(address))?;
                }
                link::set_mtu(&inside, LINK, config.mtu)?;
                link::set_up(&inside, LINK)?;
                // Everything that has no other way out, not only the pool: a packet that has a route meets the policy,
                // is refused with an answer and is recorded. One without a route fails in silence.
                let all = [IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())];
                let here = all.into_iter().zip(own).filter(|(_, own)| !way_out.carries(*own));
                for (net, own) in here.chain([(IpNet::V4(map.pool), own[0])]) {
                    link::add_route(&inside, net, LINK, Some(own))?;
                }
                Ok(())
            };
            configure().map_err(|error| kernel("cannot configure the agent's link", &error))?;
            let policed = every_link_is_policed(&inside, &way_out)?;
            let detail = format!("{} mtu {}, policed: {policed}", map.address, config.mtu);
            Ok(((), drops(device.clone()), detail))
        })?;

        way_out.open(&mut steps)?;

        steps.run("watch", || {
            let watch = Watch::start(inside.clone(), policed.enforcer.clone(), &names)
                .map_err(|error| kernel("cannot watch the agent's links", &error))?;
            Ok(((), drops(watch), "links that appear are policed".into()))
        })?;

        let resolver = steps.run("resolver", || {
            let gate = PolicyGate { live: policed.live.clone(), teller: policed.teller.clone() };
            let resolver = resolver::start(&inside, &base.underlay, base.names.clone(), gate)
                .map(Arc::new)
                .map_err(|error| kernel("cannot start the sandbox's resolver", &error))?;
            Ok((resolver.clone(), drops(resolver), "127.0.0.1:53, <peer>.lattice and what rules name".into()))
        })?;

        let status = Status {
            name: config.join.name,
            role: Role::Sandbox,
            pid: std::process::id(),
            address: map.address.addr().to_string(),
            backend: device.backend().to_string(),
            enforcement: policed.words.clone(),
            listen_port: device.listen_port(),
            audit_file: Some(config.audit_file),
            netns: Some(inside.path()),
        };
        let overlay = peers_step(&mut steps, base, device, Some(policed.live.clone()), runtime)?;
        let words = Arc::new(Mutex::new(policed.words.clone()));
        let ready = Ready::new(inside.path(), &policed.enforcer, published_words(&words, &status, &state));
        steps.run("control", || {
            let Policed { enforcer, live, .. } = policed;
            let sources = Sources { words, live, enforcer, resolver, overlay };
            let control = Control::start(state.path(), move || sources.report()).map_err(|error| {
                Failure::new(Kind::Internal, format!("cannot open the control socket: {error}"))
            })?;
            Ok(((), drops(control), "answers lattice sandbox rules".into()))
        })?;
        state.publish(&status)?;
        Ok(Self { steps: steps.finish(), ready, status })
    }

    /// What phase two needs.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// What `lattice status` shows.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Undoes phase one, and says what could not be undone.
    pub fn stop(mut self) -> Vec<String> {
        self.steps.undo()
    }
}

/// The steps that sandboxes and nodes share.
pub(crate) struct Base {
    join: Join,
    identity: Identity,
    /// Where it was started, and where encrypted packets leave.
    pub(crate) underlay: Arc<Netns>,
    pub(crate) names: Names,
    runtime: Handle,
}

impl Base {
    /// Takes over what was claimed; its undo gives the name free, last of all.
    pub(crate) fn state_step(steps: &mut Steps<'_>, state: StateDir) -> Result<Arc<StateDir>, Failure> {
        let state = Arc::new(state);
        let kept = state.clone();
        steps.run("state", move || {
            let leftovers = kept.has_leftovers();
            kept.clear()?;
            let undo = move || {
                let last = Arc::into_inner(kept);
                last.map_or(Ok(()), |state| state.remove().map_err(|failure| failure.message))
            };
            let detail = if leftovers { "removed what a killed run had left" } else { "claimed" };
            Ok(((), Box::new(undo) as _, detail.into()))
        })?;
        Ok(state)
    }

    pub(crate) fn start(
        steps: &mut Steps<'_>,
        join: &Join,
        runtime: &Handle,
        stop: &Stop,
    ) -> Result<Self, Failure> {
        let underlay =
            Arc::new(Netns::current().map_err(|error| kernel("cannot open this network namespace", &error))?);
        let identity = steps.run("identity", || {
            let endpoints = lattice_overlay::endpoints(&underlay, join.listen_port).unwrap_or_default();
            let identity = runtime.block_on(identity::establish(join, endpoints, stop))?;
            let how = if identity.resumed { "resumed" } else { "enrolled" };
            let detail = format!("{how} as {} {}", identity.credentials.peer, identity.netmap.address);
            Ok((identity, nothing(), detail))
        })?;
        Ok(Self { identity, join: join.clone(), underlay, names: Names::default(), runtime: runtime.clone() })
    }

    /// The network map that the peer starts with.
    pub(crate) fn map(&self) -> &NetMap {
        &self.identity.netmap
    }

    pub(crate) fn device_step(
        &self,
        steps: &mut Steps<'_>,
        name: &str,
        backend: BackendChoice,
        mtu: u16,
        inside: &Arc<Netns>,
        filter: Option<FilterConfig>,
    ) -> Result<Arc<dyn Device>, Failure> {
        let credentials = &self.identity.credentials;
        let relay_key = KeyPair::from_seed(&credentials.nats_seed).map_err(|_| {
            Failure::new(
                Kind::Credentials,
                "the stored NATS seed is no nkey: delete the credentials file to enrol anew",
            )
        })?;
        let paths = PathsConfig {
            pool: vec![self.map().pool.into()],
            relay_key: Arc::new(relay_key),
            runtime: self.runtime.clone(),
        };
        steps.run("device", || {
            let config = DeviceConfig {
                name: name.to_owned(),
                private_key: credentials.wireguard_private_key.clone(),
                listen_port: credentials.listen_port,
                mtu,
                underlay: self.underlay.clone(),
                inside: inside.clone(),
                filter,
                paths: Some(paths),
            };
            let device: Arc<dyn Device> = lattice_overlay::create(config, backend)
                .map_err(|error| Failure::new(Kind::Kernel, chain(&error)))?
                .into();
            let detail = format!("{name} {} udp {}", device.backend(), device.listen_port());
            // Its undo is that of the links: what is left of the agent's sockets must find no link without a policy.
            Ok((device, nothing(), detail))
        })
    }
}

/// Starts to follow the network map: the last step, after which packets flow.
pub(crate) fn peers_step(
    steps: &mut Steps<'_>,
    base: Base,
    device: Arc<dyn Device>,
    live: Option<Arc<Mutex<Live>>>,
    runtime: &Handle,
) -> Result<OverlaySources, Failure> {
    steps.run("peers", || {
        let Base { identity, join, underlay, names, .. } = base;
        let Identity { credentials, client, jwt, netmap: map, .. } = identity;
        let renewal = Renewal::new(join, jwt, &credentials, map.not_after);
        let detail = format!("{} peers, map generation {}", map.peers.len(), map.generation);
        let guide = Guide::start(&device, &client, &credentials, &map, &underlay, runtime);
        let (map, standing) = (Arc::new(map), Standing::default());
        let current = watch::Sender::new(map.clone());
        let overlay = OverlaySources { device: device.clone(), map: current.subscribe() };
        let tunnel = Tunnel {
            client,
            credentials,
            device,
            underlay,
            names,
            map,
            current,
            live,
            guide,
            standing,
            renewal,
        };
        let sync = runtime.block_on(Sync::start(tunnel))?;
        tracing::info!("Node started, heartbeat every 30s");
        let runtime = runtime.clone();
        let undo = move || {
            runtime.block_on(sync.end());
            Ok(())
        };
        Ok((overlay, Box::new(undo) as _, detail))
    })
}

pub(crate) fn kernel(what: &str, error: &dyn std::error::Error) -> Failure {
    let reason = chain(error);
    let (kind, remedy) = if reason.contains("Operation not permitted") || reason.contains("EPERM") {
        (Kind::Privilege, "; run as root")
    } else {
        (Kind::Kernel, "")
    };
    Failure::new(kind, format!("{what}: {reason}{remedy}"))
}

/// What no DNS name opens, beside the private addresses that none opens anywhere: the overlay, and this host.
fn closed(underlay: &Netns, map: &NetMap) -> Result<Vec<IpNet>, link::LinkError> {
    let own = link::addresses(underlay)?.into_iter().map(|(_, address)| address.into());
    Ok(own.chain([map.pool.into()]).collect())
}

/// An IPv6 address in a unique local prefix of the workspace (RFC 4193), ending in the overlay's IPv4 address. Nothing
/// routes to it; it exists so that IPv6 packets of the agent have a source, leave, and are refused and recorded.
fn unrouted_v6(map: &NetMap) -> std::net::Ipv6Addr {
    let mut prefix = [0u8; 6];
    prefix[0] = 0xfd;
    for (index, byte) in map.workspace.as_str().bytes().enumerate() {
        let slot = 1 + index % 5;
        prefix[slot] = prefix[slot].wrapping_mul(31).wrapping_add(byte);
    }
    let mut octets = [0u8; 16];
    octets[..6].copy_from_slice(&prefix);
    octets[12..].copy_from_slice(&map.address.addr().octets());
    octets.into()
}

/// Has reports and status name what enforces the policy. Does nothing when phase one has ended.
fn published_words(
    words: &Arc<Mutex<String>>,
    status: &Status,
    state: &Arc<StateDir>,
) -> impl Fn(&str) + Send + std::marker::Sync + use<> {
    let (words, status, state) = (words.clone(), status.clone(), Arc::downgrade(state));
    move |now| {
        now.clone_into(&mut locked(&words));
        if let Some(state) = state.upgrade()
            && let Err(failure) = state.publish(&Status { enforcement: now.to_owned(), ..status.clone() })
        {
            tracing::warn!(error = failure.message, "status does not tell of the policed calls");
        }
    }
}

fn locked(words: &Mutex<String>) -> MutexGuard<'_, String> {
    words.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses to go on when the namespace holds a link besides loopback and the policed ones.
fn every_link_is_policed(inside: &Netns, way_out: &WayOut) -> Result<String, Failure> {
    let links = link::links(inside).map_err(|error| kernel("cannot list the agent's links", &error))?;
    let policed: Vec<&str> = [LINK].into_iter().chain(way_out.link()).collect();
    match links.iter().find(|link| link.name != "lo" && !policed.contains(&link.name.as_str())) {
        Some(link) => {
            let text = format!("the agent's namespace holds {:?}, which no policy covers", link.name);
            Err(Failure::new(Kind::Internal, text))
        }
        None => Ok(policed.join(", ")),
    }
}
