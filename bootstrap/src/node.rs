//! Phase one of a host (`lattice up`): the same identity and device, in the namespace it is started in, without a policy.

use lattice_overlay::BackendChoice;
use tokio::runtime::Handle;

use crate::{
    Failure, Progress, StateDir, Status, Steps, Stop,
    control::Report,
    identity::Join,
    sandbox::{Base, control_step, kernel, peers_step},
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
            use lattice_overlay::link;
            let (overlay, own) = (base.overlay(), base.own());
            let name = config.interface.as_str();
            let links = || -> Result<(), lattice_overlay::link::LinkError> {
                for address in own {
                    link::add_address(&here, name, address.into())?;
                }
                link::set_mtu(&here, name, config.mtu)?;
                link::set_up(&here, name)?;
                for (net, own) in overlay.nets().into_iter().zip(own) {
                    link::add_route(&here, net, name, Some(own))?;
                }
                Ok(())
            };
            links().map_err(|error| kernel("cannot configure the overlay link", &error))?;
            Ok((
                (),
                drops(device.clone()),
                format!("{name} {} {} routes {} {}", own[0], own[1], overlay.pool(), overlay.prefix()),
            ))
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
