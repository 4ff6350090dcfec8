//! `lattice sandbox start`.

use std::{fs, io::Read as _, process::ExitCode};

use lattice_bootstrap::{
    AttachMode, Failure, Join, Kind, Role, Sandbox, SandboxConfig, ServerUrl, StateDir, credentials,
    failure::chain,
};
use lattice_overlay::{BackendChoice, kernel_has_wireguard};
use lattice_policy::{RuleSpec, parse_rule};
use lattice_runsc::{AgentSpec, Platform, Runsc, RunscError, Writable};
use lattice_wire::{PeerName, Token, message::PeerKind};
use zeroize::Zeroizing;

use crate::{
    args::{self, Attach, Global, Mode, Start},
    output::{self, Phases},
    privilege,
    runtime::Runtime,
    signals::Signals,
};

/// More than any token file holds.
const MAX_TOKEN_FILE: u64 = 4096;

pub(crate) fn start(global: &Global, args: Start) -> Result<ExitCode, Failure> {
    if args.mode == Mode::Pod {
        let text = "pod mode is not there yet: use --mode gvisor with --agent-rootfs and --agent-binary";
        return Err(Failure::new(Kind::Usage, text));
    }
    let spec = agent(&args)?;
    let egress = egress(&args.egress_allow)?;
    let join = join(global, &args.join, Role::Sandbox)?;
    privilege::require(privilege::SANDBOX)?;
    let runsc = Runsc::find(args.runsc.as_deref(), platform(&args)?).map_err(|error| of_runsc(&error))?;
    lattice_runsc::validate(&spec).map_err(|error| of_runsc(&error))?;
    lattice_bootstrap::enforcement(args.enforcer)?;
    can_tunnel(args.join.wireguard)?;
    lattice_bootstrap::uplink::check(&egress)?;

    let mut phases = Phases::start();
    let runtime = Runtime::start()?;
    let signals = Signals::take(runtime.handle())?;
    let state = claim(global, Role::Sandbox, &join.name)?;
    let agent_dir = state.agent();
    let config = SandboxConfig {
        egress,
        backend: args.join.wireguard,
        enforcer: args.enforcer,
        attach: match args.attach {
            Attach::Auto => AttachMode::Auto,
            Attach::Tcx => AttachMode::Tcx,
            Attach::Clsact => AttachMode::Clsact,
        },
        audit_file: args.audit_file.unwrap_or_else(|| lattice_audit::default_path(&join.name)),
        mtu: args.join.mtu,
        join,
        pod: None,
    };
    let sandbox = Sandbox::start(config, state, runtime.handle(), &mut phases, signals.stop())?;
    let status = sandbox.status();
    let text = format!("Sandbox {:?} ready, overlay IP={}", status.name.as_str(), status.address);
    phases.note("ready", &text);

    let code = run_agent(&runsc, &sandbox, &spec, &agent_dir, &signals, &phases);
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
    runsc: &Runsc,
    sandbox: &Sandbox,
    spec: &AgentSpec,
    agent_dir: &std::path::Path,
    signals: &Signals,
    phases: &Phases,
) -> Result<i32, Failure> {
    let fail = |error: RunscError| of_runsc(&error);
    signals.stop().check()?;
    let mut agent = runsc.start(sandbox.ready(), spec, agent_dir).map_err(fail)?;
    let calls = match agent.calls() {
        Ok(()) => "calls policed".to_owned(),
        Err(reason) => format!("calls not policed, only packets: {reason}"),
    };
    let detail = format!("{} under runsc {} ({}), {calls}", spec.binary, runsc.version, runsc.platform);
    phases.note("agent", &detail);
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

/// Whether there is a WireGuard to take, before a token is spent on it.
fn can_tunnel(backend: BackendChoice) -> Result<(), Failure> {
    if backend == BackendChoice::Kernel || backend == BackendChoice::Auto && kernel_has_wireguard() {
        return Ok(());
    }
    lattice_overlay::tun_usable().map_err(|reason| Failure::new(Kind::Kernel, reason))
}

/// Claims the name, after removing what a killed run of it left.
pub(crate) fn claim(global: &Global, role: Role, name: &PeerName) -> Result<StateDir, Failure> {
    let state = StateDir::claim(&global.state_dir, role, name)?;
    // The agent first: as long as it may run, its policy must stay.
    lattice_runsc::sweep(&state.agent()).map_err(|error| Failure::new(Kind::Internal, chain(&error)))?;
    Ok(state)
}

pub(crate) fn peer_name(text: &str) -> Result<PeerName, Failure> {
    text.parse().map_err(|error| Failure::new(Kind::Usage, format!("--name: {error}")))
}

/// Who joins, by the flags that sandboxes and nodes share.
pub(crate) fn join(global: &Global, args: &args::Join, role: Role) -> Result<Join, Failure> {
    Ok(Join {
        name: peer_name(&args.name)?,
        kind: match role {
            Role::Sandbox => PeerKind::Sandbox,
            Role::Node => PeerKind::Node,
        },
        server: ServerUrl::parse(&args.server_url, args.server_ca.as_deref())?,
        token: token(args)?,
        credentials: credentials::path(&global.config_dir, role),
        listen_port: args.listen_port,
        for_good: false,
    })
}

/// The token from `--token-file`, `LATTICE_TOKEN` or, with a warning, `--token`.
fn token(join: &args::Join) -> Result<Option<Token>, Failure> {
    let (text, origin) = if let Some(text) = &join.token {
        output::warn("--token is visible to every user of this host; use --token-file or LATTICE_TOKEN");
        (Zeroizing::new(text.clone()), "--token")
    } else if let Some(path) = &join.token_file {
        let mut text = Zeroizing::new(String::new());
        let read = if path.as_os_str() == "-" {
            std::io::stdin().lock().take(MAX_TOKEN_FILE).read_to_string(&mut text)
        } else {
            fs::File::open(path).and_then(|file| file.take(MAX_TOKEN_FILE).read_to_string(&mut text))
        };
        read.map_err(|error| Failure::new(Kind::Usage, format!("--token-file {}: {error}", path.display())))?;
        (text, "--token-file")
    } else if let Ok(text) = std::env::var("LATTICE_TOKEN") {
        (Zeroizing::new(text), "LATTICE_TOKEN")
    } else {
        return Ok(None);
    };
    text.trim().parse().map(Some).map_err(|error| Failure::new(Kind::Usage, format!("{origin}: {error}")))
}

pub(crate) fn egress(rules: &[String]) -> Result<Vec<RuleSpec>, Failure> {
    let parse = |text: &String| {
        parse_rule(text)
            .map_err(|error| Failure::new(Kind::Usage, format!("--egress-allow: {}", chain(&error))))
    };
    rules.iter().map(parse).collect()
}

fn platform(args: &Start) -> Result<Option<Platform>, Failure> {
    let parse = |text: &String| {
        text.parse().map_err(|error| Failure::new(Kind::Usage, format!("--platform: {error}")))
    };
    args.platform.as_ref().map(parse).transpose()
}

fn agent(args: &Start) -> Result<AgentSpec, Failure> {
    let usage = |text: String| Failure::new(Kind::Usage, text);
    let missing = |flag: &str| usage(format!("--{flag} is required for gvisor mode"));
    if args.proxy_addr.is_some() || !args.forward.is_empty() {
        return Err(usage("--proxy-addr and --forward belong to pod mode; in gvisor mode the agent uses the overlay directly".into()));
    }
    let rootfs = args.agent_rootfs.clone().ok_or_else(|| missing("agent-rootfs"))?;
    let binary = args.agent_binary.clone().ok_or_else(|| missing("agent-binary"))?;
    let env = args.env.iter().map(|pair| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(usage(format!("--env {pair:?}: expected KEY=VALUE"))),
    });
    let (uid, gid) =
        user(&args.user).ok_or_else(|| usage(format!("--user {:?}: expected UID or UID:GID", args.user)))?;
    if args.cpus.is_some_and(|cpus| !cpus.is_finite() || cpus <= 0.0) {
        return Err(usage("--cpus: expected a number above 0, as 0.5".into()));
    }
    Ok(AgentSpec {
        name: args.join.name.clone(),
        rootfs,
        binary,
        args: args.agent_args.iter().chain(&args.rest).cloned().collect(),
        env: env.collect::<Result<_, _>>()?,
        cwd: args.workdir.clone(),
        uid,
        gid,
        memory_bytes: args.memory.as_deref().map(size).transpose().map_err(usage)?,
        cpus: args.cpus,
        pids: args.pids_limit,
        rootfs_writable: if args.read_only { Writable::ReadOnly } else { Writable::Overlay },
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
