//! Phase one of a host (`lattice up`): the same identity and device, in the namespace it is started in, without a policy.

use std::net::IpAddr;

use ipnet::IpNet;
use lattice_overlay::{
    BackendChoice, Netns,
    link::{self, LinkError},
};
use nix::errno::Errno;
use tokio::runtime::Handle;

use crate::{
    Failure, Progress, StateDir, Status, Steps, Stop,
    base::{Base, control_step, peers_step},
    control::Report,
    failure::kernel,
    identity::Join,
    state::Role,
    steps::drops,
};

/// What `lattice up` needs to know.
#[derive(Debug)]
pub struct NodeConfig {
    /// Who it is.
    pub join: Join,
    /// Name of the WireGuard link (`wf0`).
    pub interface: String,
    /// Which WireGuard.
    pub backend: BackendChoice,
    /// Bytes of an inner packet.
    pub mtu: u16,
}

/// A host on the overlay. Dropping it takes it off.
pub struct Node {
    steps: Steps<'static>,
    status: Status,
}

impl Node {
    /// Joins.
    ///
    /// # Errors
    /// The first step that failed; all earlier ones are undone.
    pub fn start(
        config: NodeConfig,
        state: StateDir,
        runtime: &Handle,
        progress: &mut dyn Progress,
        stop: &Stop,
    ) -> Result<Self, Failure> {
        let mut steps = Steps::new(progress, stop.clone());
        let state = Base::state_step(&mut steps, state)?;
        let base = Base::start(&mut steps, &config.join, runtime, stop)?;
        let here = base.underlay.clone();
        let device =
            base.device_step(&mut steps, &config.interface, config.backend, config.mtu, &here, None)?;
        steps.run("links", || {
            let name = config.interface.as_str();
            let all = base.overlay().nets().into_iter().zip(base.own());
            let links = configure(&here, name, config.mtu, all)
                .map_err(|error| kernel("cannot configure the overlay link", &error))?;
            let detail: Vec<String> = links.iter().map(|(net, own)| format!("{own} route {net}")).collect();
            Ok(((), drops(device.clone()), format!("{name} {}", detail.join(", "))))
        })?;
        let status = Status {
            name: config.join.name,
            role: Role::Node,
            pid: std::process::id(),
            address: base.own()[0].to_string(),
            address6: base.own()[1].to_string(),
            backend: device.backend().to_string(),
            enforcement: "none".into(),
            listen_port: device.listen_port(),
            audit_file: None,
            netns: None,
        };
        let overlay = peers_step(&mut steps, base, device, None, runtime)?;
        control_step(&mut steps, &state, "lattice status", move || {
            let heard_seconds = Some(overlay.heard.ago().as_secs());
            let overlay = overlay.report()?;
            Ok(Report { enforcement: "none".into(), overlay, heard_seconds, ..Report::default() })
        })?;
        state.publish(&status)?;
        Ok(Self { steps: steps.finish(), status })
    }

    /// What `lattice status` shows.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Leaves, and says what could not be undone.
    pub fn stop(mut self) -> Vec<String> {
        self.steps.undo()
    }
}

/// Gives the link `name` each address and the route to its network. Returns those that it has: not IPv6 where the host has none.
fn configure(
    netns: &Netns,
    name: &str,
    mtu: u16,
    all: impl Iterator<Item = (IpNet, IpAddr)>,
) -> Result<Vec<(IpNet, IpAddr)>, LinkError> {
    let mut given = Vec::new();
    for (net, own) in all {
        match link::add_address(netns, name, own.into()) {
            Err(error) if own.is_ipv6() && is_without_ipv6(&error) => {
                tracing::warn!(%error, "this host has no IPv6: its peers are reached by IPv4 only");
            }
            added => {
                added?;
                given.push((net, own));
            }
        }
    }
    link::set_mtu(netns, name, mtu)?;
    link::set_up(netns, name)?;
    for (net, own) in &given {
        link::add_route(netns, *net, name, Some(*own))?;
    }
    Ok(given)
}

/// Whether the kernel refuses an IPv6 address because it has no IPv6: for this link (`net.ipv6.conf.*.disable_ipv6`), switched off when it
/// was started (`ipv6.disable=1`), or built without.
fn is_without_ipv6(error: &LinkError) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EACCES | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT))
}

#[cfg(test)]
mod tests {
    use lattice_overlay::link::{add_veth, addresses};

    use super::*;

    /// Needs root.
    #[test]
    fn a_host_without_ipv6_joins_by_ipv4() {
        let all: [(IpNet, IpAddr); 2] = [("10.42.0.0/16", "10.42.0.9"), ("fd12::/48", "fd12::a2a:9")]
            .map(|(net, own)| (net.parse().unwrap(), own.parse().unwrap()));
        for (without_ipv6, expected) in [("1", &all[..1]), ("0", &all)] {
            let (host, other) = (Netns::create().unwrap(), Netns::create().unwrap());
            let set = |conf| {
                // Of the thread's own namespace.
                let path = format!("/proc/sys/net/ipv6/conf/{conf}/disable_ipv6");
                std::fs::write(path, without_ipv6)
            };
            for set in host.run(|| ["all", "default"].map(set)).unwrap() {
                set.unwrap();
            }
            add_veth(&host, "wf0", &other, "far0").unwrap();
            assert_eq!(configure(&host, "wf0", 1420, all.into_iter()).unwrap(), expected);
            let found = addresses(&host).unwrap();
            for (_, own) in all {
                let has = found.iter().any(|(link, ip)| link == "wf0" && *ip == own);
                assert_eq!(has, expected.iter().any(|(_, ip)| *ip == own), "{own} {found:?}");
            }
        }
    }
}
