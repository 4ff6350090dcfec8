//! The steps of phase one that sandboxes and nodes share.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use ipnet::IpNet;
use lattice_dns::Names;
use lattice_overlay::{BackendChoice, Device, DeviceConfig, FilterConfig, Netns, PathsConfig, link};
use lattice_policy::Overlay;
use lattice_wire::{NetMap, WgPrivateKey};
use nkeys::KeyPair;
use tokio::{runtime::Handle, sync::watch};

use crate::{
    Failure, Kind, Role, StateDir, Status, Steps, Stop,
    control::{Control, OverlaySources, Report},
    failure::{chain, kernel},
    guide::Guide,
    heard::Heard,
    identity::{self, Identity, Join},
    live::Live,
    overlay,
    renew::Renewal,
    steps::{drops, nothing},
    sync::{Applier, Sync, Tunnel},
};

/// The agent's WireGuard link.
pub(crate) const LINK: &str = "wg0";

/// Who the peer is, and where it was started.
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

    /// Where the overlay's addresses lie.
    pub(crate) fn overlay(&self) -> Overlay {
        self.identity.overlay
    }

    /// The peer's addresses in it, IPv4 first.
    pub(crate) fn own(&self) -> [IpAddr; 2] {
        overlay::own(&self.overlay(), self.map())
    }

    /// What no DNS name opens, beside the private addresses that none opens anywhere: the overlay, and this host.
    pub(crate) fn closed(&self) -> Result<Vec<IpNet>, Failure> {
        let own = link::addresses(&self.underlay)
            .map_err(|error| kernel("cannot list this host's addresses, which no name may open", &error))?;
        let own = own.into_iter().map(|(_, address)| address.into());
        Ok(own.chain(self.overlay().nets()).collect())
    }

    /// The key that the device has.
    pub(crate) fn private_key(&self) -> &WgPrivateKey {
        &self.identity.credentials.wireguard_private_key
    }

    /// The UDP port that the device is to have.
    pub(crate) fn listen_port(&self) -> u16 {
        self.identity.credentials.listen_port
    }

    /// Has the device find paths itself.
    pub(crate) fn paths(&self) -> Result<PathsConfig, Failure> {
        let relay_key = KeyPair::from_seed(&self.identity.credentials.nats_seed).map_err(|_| {
            Failure::new(
                Kind::Credentials,
                "the stored NATS seed is no nkey: delete the credentials file to enrol anew",
            )
        })?;
        Ok(PathsConfig {
            pool: self.overlay().nets().to_vec(),
            relay_key: Arc::new(relay_key),
            runtime: self.runtime.clone(),
        })
    }

    /// What `lattice status` shows of a sandbox.
    pub(crate) fn status(
        &self,
        device: &dyn Device,
        enforcement: &str,
        audit_file: PathBuf,
        netns: Option<PathBuf>,
    ) -> Status {
        Status {
            name: self.join.name.clone(),
            role: Role::Sandbox,
            pid: std::process::id(),
            address: self.own()[0].to_string(),
            address6: self.own()[1].to_string(),
            backend: device.backend().to_string(),
            enforcement: enforcement.to_owned(),
            listen_port: device.listen_port(),
            audit_file: Some(audit_file),
            netns,
        }
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
        let paths = self.paths()?;
        steps.run("device", || {
            let config = DeviceConfig {
                name: name.to_owned(),
                private_key: self.private_key().clone(),
                listen_port: self.listen_port(),
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
        let Identity { credentials, client, jwt, netmap: map, overlay, .. } = identity;
        let for_good = join.for_good;
        let renewal = Renewal::new(join, jwt, &credentials, map.not_after);
        let detail = format!("{} peers, map generation {}", map.peers.len(), map.generation);
        let guide = Guide::start(&device, &client, &credentials, overlay, &underlay, runtime);
        let current = watch::Sender::new(Arc::new(map));
        let heard = Heard::just_now();
        let sources =
            OverlaySources { device: device.clone(), map: current.subscribe(), heard: heard.clone() };
        let applier = Applier::new(current, device, names, live, guide, heard);
        let tunnel = Tunnel { client, credentials, underlay, applier, renewal, for_good };
        let sync = runtime.block_on(Sync::start(tunnel))?;
        tracing::info!("Node started, heartbeat every 30s");
        let runtime = runtime.clone();
        let undo = move || {
            runtime.block_on(sync.end());
            Ok(())
        };
        Ok((sources, Box::new(undo) as _, detail))
    })
}

/// Opens the control socket, which answers by `report`.
pub(crate) fn control_step(
    steps: &mut Steps<'_>,
    state: &StateDir,
    answers: &str,
    report: impl Fn() -> Result<Report, Failure> + Send + 'static,
) -> Result<(), Failure> {
    steps.run("control", || {
        let control = Control::start(state.path(), report).map_err(|error| {
            Failure::new(Kind::Internal, format!("cannot open the control socket: {error}"))
        })?;
        Ok(((), drops(control), format!("answers {answers}")))
    })
}
