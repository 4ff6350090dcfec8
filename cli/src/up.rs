//! `lattice up`: this host on the overlay.

use std::process::ExitCode;

use lattice_bootstrap::{Failure, Node, NodeConfig, Role};

use crate::{
    args::{Global, Up},
    output::{self, Phases},
    privilege,
    runtime::Runtime,
    sandbox::{claim, join},
    signals::Signals,
};

pub(crate) fn run(global: &Global, args: Up) -> Result<ExitCode, Failure> {
    let join = join(global, &args.join, Role::Node)?;
    privilege::require(privilege::NODE)?;
    let mut phases = Phases::start();
    let runtime = Runtime::start()?;
    let signals = Signals::take(runtime.handle())?;
    let state = claim(global, Role::Node, &join.name)?;
    let config =
        NodeConfig { join, interface: args.interface, backend: args.join.wireguard, mtu: args.join.mtu };
    let node = Node::start(config, state, runtime.handle(), &mut phases, signals.stop())?;
    phases.note(
        "ready",
        &format!("Node {:?} ready, overlay IP={}", node.status().name.as_str(), node.status().address),
    );
    let mut stop = signals.stop().clone();
    runtime.handle().block_on(stop.wait());
    for item in node.stop() {
        output::warn(&item);
    }
    phases.note("end", "left the overlay");
    Ok(ExitCode::SUCCESS)
}
