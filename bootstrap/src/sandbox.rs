//! Phase one of an agent's sandbox.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use lattice_ebpf::AttachMode;
use lattice_overlay::{BackendChoice, FilterConfig, Netns, link};
use lattice_policy::{Local, RuleSpec};
use tokio::runtime::Handle;

use crate::{
    Failure, Kind, Pod, Progress, Ready, StateDir, Status, Steps, Stop,
    base::{Base, LINK, control_step, peers_step},
    clock::now_unix,
    control::Sources,
    destinations::needs_uplink,
    enforce::{self, Enforcer, EnforcerChoice, Place, PolicedLink},
    failure::kernel,
    gate::PolicyGate,
    identity::Join,
    links::Watch,
    live::{self, Closed},
    pod::Entered,
    policed::{self, Policed},
    resolver,
    steps::drops,
    uplink::{Unreachable, WayOut},
};

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
    /// The namespace that a CNI plugin has made for the agent. Without one it gets a new one, with an uplink where a rule
    /// takes one.
    pub pod: Option<Pod>,
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
    /// `begin` is told the agent's namespace as soon as it is there, in which nothing leads anywhere yet (in a pod, but for its own links), and begins what phase two
    /// can do meanwhile: all but to run anything of the agent's, which takes the [`Ready`]. When phase one fails, what it gave is
    /// dropped before the steps are undone, and is to end all of it.
    ///
    /// # Errors
    /// The first step that failed, or `begin`'s; all earlier ones are undone.
    pub fn start<T>(
        config: SandboxConfig,
        state: StateDir,
        runtime: &Handle,
        progress: &mut dyn Progress,
        stop: &Stop,
        begin: impl FnOnce(&Path) -> Result<T, Failure>,
    ) -> Result<(Self, T), Failure> {
        // Before all that may use what it holds: the first value is the last to be dropped.
        let mut steps = Steps::new(progress, stop.clone());
        let state = Base::state_step(&mut steps, state)?;
        // Before a token is spent; it is loaded while the control plane is asked.
        let (enforcer, words) = enforce::choose(config.enforcer)?;
        enforcer.permits(&config.egress)?;
        let pod = config.pod.as_ref().map(|pod| Entered::open(pod, enforcer)).transpose()?;
        let preparing = enforcer.prepare(state.bpf(), config.attach)?;
        let inside = match &pod {
            None => namespace_step(&mut steps)?,
            Some(pod) => pod.inside(),
        };
        let begun = begin(&inside.path())?;
        let base = Base::start(&mut steps, &config.join, runtime, stop)?;
        let map = base.map();
        let (own, overlay) = (base.own(), base.overlay());
        if let Some(pod) = &pod {
            pod.step(&mut steps, &overlay)?;
        }
        if config.enforcer == EnforcerChoice::Auto && enforcer != Enforcer::Ebpf {
            steps.warn(&format!("the policy is enforced by {words}"));
        }
        let filter = (enforcer == Enforcer::Userspace).then(|| FilterConfig { own: own.to_vec() });
        let device = base.device_step(&mut steps, LINK, config.backend, config.mtu, &inside, filter)?;

        let way_out = match &pod {
            None => WayOut::make(
                &mut steps,
                &config.egress,
                &config.join.name,
                &overlay,
                &base.underlay,
                &inside,
                &state,
            )?,
            Some(pod) => pod.note_device(&state).map(|()| WayOut::default())?,
        };
        let unreachable = match &config.pod {
            None => way_out.unreachable(&base.underlay, &overlay),
            // By `wg0` alone no pod comes to the node.
            Some(pod) => needs_uplink(&pod.most, &overlay)
                .then(|| Unreachable::from_pod(base.underlay.clone(), overlay, pod.private.nets().to_vec())),
        };
        let local = Local {
            unreachable: unreachable.as_ref().map_or(Ok(Vec::new()), Unreachable::nets)?,
            unrouted: unreachable.as_ref().map(Unreachable::unrouted).unwrap_or_default(),
            most: config.pod.as_ref().map(|pod| pod.most.clone()),
            ingress: pod
                .as_ref()
                .map_or(Ok(Vec::new()), |pod| pod.probes(&mut steps, &base.underlay, &overlay))?,
            flags: config.egress,
            offered: Vec::new(),
        };
        let policy = Arc::new(live::wanted(1, &local, map, now_unix())?);
        let closed = Closed {
            nets: base.closed()?,
            private: config.pod.as_ref().map(|pod| pod.private.clone()).unwrap_or_default(),
        };
        let wg = PolicedLink { name: LINK.into(), own: own.to_vec() };
        let uplink = way_out.link().map(|name| PolicedLink { name: name.into(), own: way_out.addresses() });
        let others: Vec<PolicedLink> =
            uplink.into_iter().chain(pod.iter().flat_map(|pod| pod.links().iter().cloned())).collect();
        let other_names: Vec<String> = others.iter().map(|link| link.name.clone()).collect();
        let links: Vec<PolicedLink> = [wg].into_iter().chain(others).collect();
        let names: Vec<String> = links.iter().map(|link| link.name.clone()).collect();
        let confined = pod.is_some().then_some((overlay, LINK));
        let policed = steps.run("policy", || {
            let filter = device.filter().cloned();
            let started = preparing.start(Place { netns: inside.clone(), links, confined, filter })?;
            policed::begin(started, local, policy, closed, &config.audit_file, &config.join.name)
        })?;

        if !other_names.is_empty() {
            let close = live::closing(inside.clone(), other_names);
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
                let here = all.into_iter().zip(own).filter(|(_, own)| {
                    !way_out.carries(*own) && !pod.as_ref().is_some_and(|pod| pod.carries(*own))
                });
                for (net, own) in here.chain(overlay.nets().into_iter().zip(own)) {
                    link::add_route(&inside, net, LINK, Some(own))?;
                }
                Ok(())
            };
            configure().map_err(|error| kernel("cannot configure the agent's link", &error))?;
            every_link_is_policed(&inside, &names)?;
            let detail = format!("{} mtu {}, policed: {}", map.address, config.mtu, names.join(", "));
            Ok(((), drops(device.clone()), detail))
        })?;

        way_out.open(&mut steps)?;

        steps.run("watch", || {
            let watch = Watch::start(inside.clone(), policed.enforcer.clone(), &names)
                .map_err(|error| kernel("cannot watch the agent's links", &error))?;
            let follow = |unreachable: Unreachable| unreachable.follow(policed.live.clone());
            let addresses = unreachable.map(follow).transpose()?;
            Ok(((), drops((watch, addresses)), "links that appear are policed".into()))
        })?;

        let resolver = steps.run("resolver", || {
            let search = config.pod.as_ref().map(|pod| pod.search.clone()).unwrap_or_default();
            let gate = PolicyGate { live: policed.live.clone(), teller: policed.teller.clone(), search };
            let nameservers = config.pod.as_ref().map(|pod| pod.resolv_conf.clone());
            let resolver = resolver::bind(&inside)
                .and_then(|sockets| {
                    resolver::start(Some(sockets), &base.underlay, nameservers, base.names.clone(), gate)
                })
                .map(Arc::new)
                .map_err(|error| kernel("cannot start the sandbox's resolver", &error))?;
            Ok((resolver.clone(), drops(resolver), "127.0.0.1:53, <peer>.lattice and what rules name".into()))
        })?;

        let status = base.status(&*device, &policed.words, config.audit_file, Some(inside.path()));
        let overlay = peers_step(&mut steps, base, device, Some(policed.live.clone()), runtime)?;
        let words = Arc::new(Mutex::new(policed.words.clone()));
        let ready = Ready::new(inside.path(), &policed.enforcer, published_words(&words, &status, &state));
        let Policed { enforcer, live, .. } = policed;
        let sources = Sources { words, live, enforcer, resolver, overlay };
        control_step(&mut steps, &state, "lattice sandbox rules", move || sources.report())?;
        state.publish(&status)?;
        // What enrolling and loading took, for as long as the sandbox lives.
        lattice_ebpf::give_back();
        Ok((Self { steps: steps.finish(), ready, status }, begun))
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

/// A new namespace for the agent.
fn namespace_step(steps: &mut Steps<'_>) -> Result<Arc<Netns>, Failure> {
    steps.run("netns", || {
        let netns = Netns::create()
            .map(Arc::new)
            .map_err(|error| kernel("cannot make a network namespace", &error))?;
        link::set_up(&netns, "lo").map_err(|error| kernel("cannot raise the agent's loopback", &error))?;
        Ok((netns.clone(), drops(netns.clone()), netns.path().display().to_string()))
    })
}

/// Refuses to go on when the namespace holds a link besides loopback and the policed ones.
fn every_link_is_policed(inside: &Netns, policed: &[String]) -> Result<(), Failure> {
    let links = link::links(inside).map_err(|error| kernel("cannot list the agent's links", &error))?;
    match links.iter().find(|link| !link.loopback && !policed.contains(&link.name)) {
        Some(link) => {
            let text = format!("the agent's namespace holds {:?}, which no policy covers", link.name);
            Err(Failure::new(Kind::Internal, text))
        }
        None => Ok(()),
    }
}
