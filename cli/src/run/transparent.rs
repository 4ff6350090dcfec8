//! The command in a network of its own (class `netns`): there is no other way out of it, and no right to make one.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use lattice_bootstrap::{Failure, Handed, HandedConfig, HandedSandbox, Kind};
use lattice_proxy::Forward;

use super::{Plan, channel::Start, credentials, environment, files, helper::Helper, session::Session};
use crate::{login, places};

pub(super) fn run(
    plan: Plan<'_>,
    helper: Helper,
    inside: Handed,
    forwards: Vec<Forward>,
) -> Result<ExitCode, Failure> {
    let mut session = Session::begin(plan.args.ready_timeout())?;
    let state = plan.claim()?;
    let secret = secret(&plan);
    // Now, and not when a token was spent. Some of it is not there yet.
    hidden(&secret)?;
    let writable = files::writable(plan.args)?;
    let of_others = credentials::of_others(plan.args, &writable)?;
    let config = HandedConfig {
        join: plan.join,
        egress: plan.egress,
        forwards,
        audit_file: plan.audit_file,
        mtu: plan.args.join.mtu,
        inside,
    };
    let started =
        session.start(|runtime, phases, stop| HandedSandbox::start(config, state, runtime, phases, stop));
    let sandbox = match started {
        Ok(sandbox) => sandbox,
        Err(failure) => return session.not_started(failure),
    };
    let status = sandbox.status();
    session.ready(status);
    let mut environment = environment::of_sandbox(status.name.as_str());
    environment.extend(environment::of_files());
    let writable = writable.into_iter().map(|dir| (dir.path.into_os_string(), dir.id)).collect();
    let mut hidden = hidden(&secret)?;
    hidden.extend(of_others.into_iter().map(PathBuf::into_os_string));
    let start = Start { hidden, writable, environment };
    let ended = session.run(helper, start, sandbox.failed());
    session.end(ended, sandbox.stop())
}

/// What the command, which has our user, must not read: keys, records, tokens, and who administers the control plane.
fn secret(plan: &Plan<'_>) -> Vec<PathBuf> {
    let dir_of = |path: &Path| path.parent().map(Path::to_path_buf);
    let login = login::path().ok();
    // The directory where it is our own: the file itself is replaced at each login. One that is made later would be seen.
    let login = login.map(|file| match dir_of(&file).filter(|dir| dir.ends_with("lattice")) {
        Some(dir) => {
            let _ = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            dir
        }
        None => file,
    });
    let all = [
        dir_of(&plan.join.credentials),
        Some(plan.state_root.clone()),
        Some(plan.audit_file.clone()),
        plan.args.join.token_file.clone().filter(|file| file.as_os_str() != "-"),
        login,
    ];
    all.into_iter().flatten().chain(places::secrets(plan.global)).collect()
}

/// Those that are there, by the paths that no link changes any more. The command must not begin below one.
fn hidden(secret: &[PathBuf]) -> Result<Vec<OsString>, Failure> {
    let here = std::env::current_dir().unwrap_or_default();
    let there: Vec<PathBuf> = secret.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    if let Some(path) = there.iter().find(|path| here.starts_with(path)) {
        let text = format!(
            "the working directory {} lies in {}, which is hidden from the command: run it from elsewhere",
            here.display(),
            path.display()
        );
        return Err(Failure::new(Kind::Usage, text));
    }
    Ok(there.into_iter().map(PathBuf::into_os_string).collect())
}
