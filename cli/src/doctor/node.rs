//! What a node of Kubernetes needs for pods of RuntimeClass lattice.

use std::{fs, path::Path};

use lattice_shim::config::{Config, NetworkKind};

use super::{Check, on_path};
use crate::{
    args,
    shim::{self, PROGRAM, containerd::Containerd},
};

/// Where CNI plugins are configured.
const CNI: &str = "/etc/cni/net.d";

pub(super) fn checks(args: &args::Containerd) -> Vec<Check> {
    let config = Config::read(None).map_err(|error| error.to_string());
    vec![
        Check::new("containerd's runtime", true, runtime(args)),
        Check::new("shim", true, program()),
        Check::new("shim.toml", true, config.as_ref().map_err(Clone::clone).and_then(network)),
        Check::new("token of pods", false, config.as_ref().map_err(Clone::clone).and_then(token)),
        Check::new("pods' network", false, cni(Path::new(CNI))),
    ]
}

fn runtime(args: &args::Containerd) -> Result<String, String> {
    let containerd = Containerd::find(args).map_err(|failure| failure.message)?;
    let config = containerd.config();
    match containerd.has_runtime().map_err(|failure| failure.message)? {
        true => Ok(format!("{config} names it")),
        false => Err(format!("{config} does not name it: sudo lattice shim install")),
    }
}

fn program() -> Result<String, String> {
    let path =
        on_path(PROGRAM).ok_or("not on PATH, where containerd looks for it: sudo lattice shim install")?;
    let version = shim::version(Path::new(&path)).map_err(|reason| format!("{path}: {reason}"))?;
    Ok(format!("{path} ({version})"))
}

fn network(config: &Config) -> Result<String, String> {
    match config.network {
        NetworkKind::Lattice if config.lattice.server.is_empty() => {
            Err("[lattice] names no server, so pods are refused: add server = \"https://...\"".into())
        }
        NetworkKind::Lattice => Ok(format!("pods join {}", config.lattice.server)),
        NetworkKind::Plain => Ok("plain: pods have no identity and no policy".into()),
        NetworkKind::None => Ok("none: pods have no network".into()),
    }
}

fn token(config: &Config) -> Result<String, String> {
    match &config.lattice.token_file {
        _ if config.network != NetworkKind::Lattice => Ok("not needed".into()),
        None => Err("shim.toml names no token_file: each pod must bring LATTICE_TOKEN".into()),
        Some(path) => match fs::metadata(path) {
            Ok(_) => Ok(path.display().to_string()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        },
    }
}

fn cni(dir: &Path) -> Result<String, String> {
    let is_one = |entry: fs::DirEntry| {
        entry
            .path()
            .extension()
            .is_some_and(|kind| ["conf", "conflist", "json"].iter().any(|known| kind == *known))
    };
    match fs::read_dir(dir).map(|entries| entries.flatten().any(is_one)) {
        Ok(true) => Ok(format!("CNI is configured in {}", dir.display())),
        Ok(false) | Err(_) => {
            Err(format!("{} holds no CNI configuration: containerd cannot make pods", dir.display()))
        }
    }
}
