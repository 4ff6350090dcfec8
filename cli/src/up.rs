//! `lattice up`: this host on the overlay.

use std::process::ExitCode;

use lattice_bootstrap::{Failure, Node, NodeConfig, Role, credentials};

use crate::{
    args::{Global, Up},
    output::{self, Phases},
    privilege,
    runtime::Runtime,
    sandbox::{claim, peer_name, token},
    signals::Signals,
};

pub(crate) fn run(global: &Global, args: Up) -> Result<ExitCode, Failure> {
    let name = peer_name(&args.join.name)?;
    let token = token(&args.join)?;
    privilege::require(privilege::NODE)?;
    let mut phases = Phases::start();
    let runtime = Runtime::start()?;
    let signals = Signals::take(runtime.handle())?;
    let state = claim(global, Role::Node, &name)?;
    let config = NodeConfig {
        name,
        server_url: args.join.server_url,
        token,
        credentials: credentials::path(&global.config_dir, Role::Node),
        interface: args.interface,
        backend: args.join.wireguard,
        listen_port: args.join.listen_port,
        mtu: args.join.mtu,
    };
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
