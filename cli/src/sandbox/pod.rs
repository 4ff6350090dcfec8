//! `lattice sandbox start --mode pod`: no privilege, and nothing of the kernel's. A proxy and port forwards, until a signal.

use std::process::ExitCode;

use lattice_bootstrap::{Failure, Kind, ProxiedConfig, ProxiedSandbox, Role};
use lattice_overlay::BackendChoice;
use lattice_proxy::{Config, parse_forwards};

use super::{auth, claim, egress, health::Health, join, private, ready::ReadyFile};
use crate::{
    args::{Global, PodFlags, Start},
    output::{self, Phases},
    runtime::Runtime,
    signals::Signals,
};

pub(super) fn start(global: &Global, args: Start) -> Result<ExitCode, Failure> {
    only_of_pod_mode(&args)?;
    // Before the token and the keys are read.
    private::shield()?;
    private::take_descriptors();
    let proxy = proxy(&args.pod)?;
    let forwards = parse_forwards(&args.pod.forward).map_err(|error| Failure::new(Kind::Usage, error))?;
    let egress = egress(&args.egress_allow)?;
    let join = join(global, &args.join, Role::Sandbox)?;
    if proxy.is_none() && forwards.is_empty() {
        output::warn("neither --proxy-addr nor --forward is given: this sandbox only answers pings");
    }

    let mut phases = Phases::start();
    let runtime = Runtime::start()?;
    let signals = Signals::take(runtime.handle())?;
    let health = args.pod.health_addr.map(|address| Health::start(address, runtime.handle())).transpose()?;
    if let Some(health) = &health {
        phases.note("health", &format!("http://{}/healthz, /readyz and /metrics", health.address()));
    }
    let state = claim(global, Role::Sandbox, &join.name)?;
    // The name is ours, so the file is no other sandbox's.
    let ready = ReadyFile::absent(args.pod.ready_file)?;
    let config = ProxiedConfig {
        egress,
        audit_file: args.audit_file.unwrap_or_else(|| lattice_audit::default_path(&join.name)),
        mtu: args.join.mtu,
        join,
        proxy,
        forwards,
    };
    let sandbox = ProxiedSandbox::start(config, state, runtime.handle(), &mut phases, signals.stop())?;

    if let Some(health) = &health {
        health.ready(sandbox.reports());
    }
    let status = sandbox.status();
    phases.note("ready", &format!("Sandbox {:?} ready, overlay IP={}", status.name.as_str(), status.address));
    ready.write(status, sandbox.proxy())?;

    let mut stop = signals.stop().clone();
    let failed = runtime.handle().block_on(async {
        tokio::select! {
            () = stop.wait() => None,
            failure = sandbox.failed() => Some(failure),
        }
    });
    drop((ready, health));
    for item in sandbox.stop() {
        output::warn(&item);
    }
    phases.note("end", "left the overlay");
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Refuses what means nothing here, rather than to seem to heed it.
fn only_of_pod_mode(args: &Start) -> Result<(), Failure> {
    let refuse = |text: String| Err(Failure::new(Kind::Usage, text));
    if let Some(flag) = args.gvisor.given() {
        return refuse(format!(
            "{flag} belongs to gvisor mode: add --mode gvisor; in pod mode the agent is started by somebody else"
        ));
    }
    if args.join.wireguard == BackendChoice::Kernel {
        return refuse(
            "--wireguard kernel belongs to gvisor mode: in pod mode WireGuard is in this process".into(),
        );
    }
    Ok(())
}

/// The proxy, where one is asked for.
fn proxy(flags: &PodFlags) -> Result<Option<Config>, Failure> {
    let refused = |text: String| Failure::new(Kind::Usage, text);
    let Some(address) = flags.proxy_addr else {
        return match flags.proxy_auth_file {
            Some(_) => Err(refused("--proxy-auth-file is of no use without --proxy-addr: give both".into())),
            None => Ok(None),
        };
    };
    let credentials = auth::credentials(flags.proxy_auth_file.as_deref())?;
    let remedy = format!("credentials are given by --proxy-auth-file or {}", auth::VARIABLE);
    Config::new(address, credentials)
        .map(Some)
        .map_err(|error| refused(format!("--proxy-addr {address}: {error}; {remedy}")))
}

#[cfg(test)]
mod tests;
