//! The command beside a proxy (class `cooperative`), which it is told of by its environment and may ignore.

use std::{net::Ipv4Addr, process::ExitCode};

use lattice_bootstrap::{Failure, Kind, ProxiedConfig, ProxiedSandbox};
use lattice_proxy::{Config, Forward};

use super::{Plan, channel::Start, environment, helper::Helper, session::Session};

pub(super) fn run(plan: Plan<'_>, helper: Helper, forwards: Vec<Forward>) -> Result<ExitCode, Failure> {
    let credentials = credentials()?;
    let parsed = credentials.parse().map_err(internal)?;
    let proxy = Config::new((Ipv4Addr::LOCALHOST, 0).into(), Some(parsed)).map_err(internal)?;
    let mut session = Session::begin(plan.args.ready_timeout())?;
    let state = plan.claim()?;
    let config = ProxiedConfig {
        join: plan.join,
        egress: plan.egress,
        audit_file: plan.audit_file,
        mtu: plan.args.join.mtu,
        proxy: Some(proxy),
        forwards,
    };
    let started =
        session.start(|runtime, phases, stop| ProxiedSandbox::start(config, state, runtime, phases, stop));
    let sandbox = match started {
        Ok(sandbox) => sandbox,
        Err(failure) => return session.not_started(failure),
    };
    let status = sandbox.status();
    session.ready(status);
    let address = sandbox.proxy().ok_or_else(|| internal("the sandbox has no proxy"))?;
    let mut environment = environment::of_sandbox(status.name.as_str());
    environment.extend(environment::of_proxy(address, &credentials));
    let ended = session.run(helper, Start { environment, ..Start::default() }, sandbox.failed());
    session.end(ended, sandbox.stop())
}

/// For this command only: whoever else reaches the proxy's port has none.
fn credentials() -> Result<String, Failure> {
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(internal)?;
    Ok(format!("run:{:032x}", u128::from_ne_bytes(secret)))
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::new(Kind::Internal, error)
}
