//! `lattice sandbox start --mode gvisor`: the agent under runsc, in a policed namespace.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use lattice_bootstrap::{
    AttachMode, EnforcerChoice, Failure, Kind, Role, Sandbox, SandboxConfig, failure::chain,
};
use lattice_runsc::{AgentSpec, AgentStdio, Created, Platform, Runsc, RunscError, Writable};

use super::{claim, egress, join};
use crate::{
    args::{self, Attach, Global, Start},
    output::{self, Phases},
    privilege,
    runtime::Runtime,
    signals::Signals,
};

pub(crate) fn start(global: &Global, args: Start) -> Result<ExitCode, Failure> {
    let spec = agent(&args)?;
    let egress = egress(&args.egress_allow)?;
    let join = join(global, &args.join, Role::Sandbox)?;
    privilege::require(privilege::SANDBOX)?;
    let named = args.gvisor.runsc.clone().or_else(|| std::env::var_os("LATTICE_RUNSC").map(PathBuf::from));
    let runsc = Runsc::find(named.as_deref(), platform(&args)?).map_err(|error| of_runsc(&error))?;
    lattice_runsc::validate(&spec).map_err(|error| of_runsc(&error))?;
    let enforcer = args.gvisor.enforcer.unwrap_or(EnforcerChoice::Auto);
    lattice_bootstrap::enforcement(enforcer)?;
    lattice_overlay::can_create(args.join.wireguard).map_err(|reason| Failure::new(Kind::Kernel, reason))?;
    lattice_bootstrap::uplink::check(&egress)?;

    let mut phases = Phases::start();
    let runtime = Runtime::start()?;
    let signals = Signals::take(runtime.handle())?;
    let state = claim(global, Role::Sandbox, &join.name)?;
    let agent_dir = state.agent();
    let config = SandboxConfig {
        egress,
        backend: args.join.wireguard,
        enforcer,
        attach: match args.gvisor.attach {
            None | Some(Attach::Auto) => AttachMode::Auto,
            Some(Attach::Tcx) => AttachMode::Tcx,
            Some(Attach::Clsact) => AttachMode::Clsact,
        },
        audit_file: args.audit_file.unwrap_or_else(|| lattice_audit::default_path(&join.name)),
        mtu: args.join.mtu,
        join,
        pod: None,
    };
    let create = |netns: &Path| {
        runsc.create(netns, &spec, &agent_dir, AgentStdio::inherit()).map_err(|error| of_runsc(&error))
    };
    let started = Sandbox::start(config, state, runtime.handle(), &mut phases, signals.stop(), create);
    let (sandbox, created) = started?;
    let status = sandbox.status();
    let text = format!("Sandbox {:?} ready, overlay IP={}", status.name.as_str(), status.address);
    phases.note("ready", &text);

    let what = format!("{} under runsc {} ({})", spec.binary, runsc.version, runsc.platform);
    let code = run_agent(created, &sandbox, &what, &signals, &phases);
    let left = sandbox.stop();
    for item in &left {
        output::warn(item);
    }
    let code = code?;
    let undone =
        if left.is_empty() { "everything undone" } else { "not everything could be undone, see above" };
    phases.note("end", &format!("agent ended with {code}; {undone}"));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(255)))
}

fn run_agent(
    created: Created,
    sandbox: &Sandbox,
    what: &str,
    signals: &Signals,
    phases: &Phases,
) -> Result<i32, Failure> {
    let fail = |error: RunscError| of_runsc(&error);
    signals.stop().check()?;
    let mut agent = created.start(sandbox.ready()).map_err(fail)?;
    let calls = match agent.calls() {
        Ok(()) => "calls policed".to_owned(),
        Err(reason) => format!("calls not policed, only packets: {reason}"),
    };
    phases.note("agent", &format!("{what}, {calls}"));
    let forwarding = signals.forward_to(agent.signaller());
    let code = agent.wait().map_err(fail);
    drop(forwarding);
    code
}

/// Which exit code a failure of phase two has.
fn of_runsc(error: &RunscError) -> Failure {
    let kind = match error {
        RunscError::Invalid(_) => Kind::Input,
        RunscError::NoPlatform { .. } => Kind::Usage,
        RunscError::NameTaken(_) => Kind::Taken,
        RunscError::NoCgroup { .. } => Kind::Kernel,
        RunscError::Io { .. } | RunscError::Remains { .. } => Kind::Internal,
        _ => Kind::Program,
    };
    Failure::new(kind, chain(error))
}

fn platform(args: &Start) -> Result<Option<Platform>, Failure> {
    let parse = |text: &String| {
        text.parse().map_err(|error| Failure::new(Kind::Usage, format!("--platform: {error}")))
    };
    args.gvisor.platform.as_ref().map(parse).transpose()
}

fn agent(args: &Start) -> Result<AgentSpec, Failure> {
    let usage = |text: String| Failure::new(Kind::Usage, text);
    let missing = |flag: &str| usage(format!("--{flag} is required for gvisor mode"));
    if let Some(flag) = args.pod.given() {
        let text = format!(
            "flags such as {flag} belong to pod mode: in gvisor mode the agent uses the overlay directly"
        );
        return Err(usage(text));
    }
    let args::GvisorFlags { agent_rootfs, agent_binary, agent_args, env, .. } = &args.gvisor;
    let rootfs = agent_rootfs.clone().ok_or_else(|| missing("agent-rootfs"))?;
    let binary = agent_binary.clone().ok_or_else(|| missing("agent-binary"))?;
    let env = env.iter().map(|pair| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(usage(format!("--env {pair:?}: expected KEY=VALUE"))),
    });
    let flags = &args.gvisor;
    let run_as = flags.user.as_deref().unwrap_or("0:0");
    let (uid, gid) =
        user(run_as).ok_or_else(|| usage(format!("--user {run_as:?}: expected UID or UID:GID")))?;
    if flags.cpus.is_some_and(|cpus| !cpus.is_finite() || cpus <= 0.0) {
        return Err(usage("--cpus: expected a number above 0, as 0.5".into()));
    }
    Ok(AgentSpec {
        name: args.join.name.clone(),
        rootfs,
        binary,
        args: agent_args.iter().chain(&flags.rest).cloned().collect(),
        env: env.collect::<Result<_, _>>()?,
        cwd: flags.workdir.clone().unwrap_or_else(|| "/".into()),
        uid,
        gid,
        memory_bytes: flags.memory.as_deref().map(size).transpose().map_err(usage)?,
        cpus: flags.cpus,
        pids: flags.pids_limit,
        rootfs_writable: if flags.read_only { Writable::ReadOnly } else { Writable::Overlay },
        resolv_conf: Some("nameserver 127.0.0.1\nsearch lattice\noptions attempts:1 timeout:2\n".into()),
        hosts: Some(format!("127.0.0.1 localhost {}\n::1 localhost\n", args.join.name)),
        terminal: false,
    })
}

fn user(text: &str) -> Option<(u32, u32)> {
    match text.split_once(':') {
        Some((uid, gid)) => Some((uid.parse().ok()?, gid.parse().ok()?)),
        None => text.parse().ok().map(|uid| (uid, uid)),
    }
}

fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("--memory {text:?}: expected bytes, or a number with K, M or G");
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let factor: u64 = match unit {
        "" => 1,
        "K" | "k" | "Ki" => 1 << 10,
        "M" | "m" | "Mi" => 1 << 20,
        "G" | "g" | "Gi" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_users() {
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("1024"), Ok(1024));
        for bad in ["", "M", "0", "-1", "1T", "99999999999999999999", "18446744073709551615G"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(user("1000"), Some((1000, 1000)));
        assert_eq!(user("1:2"), Some((1, 2)));
        assert_eq!(user("root"), None);
    }
}
