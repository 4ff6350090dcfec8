//! containerd's configuration: whether it names our runtime, and whether a file of ours can add it.
//!
//! containerd 2 merges what an imported file says into what is there. containerd 1 puts a plugin's section of the imported file in
//! place of the whole section, and so do both where versions differ. Instead of knowing which release does what, containerd
//! itself is asked for the result before anything is written.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use lattice_bootstrap::{Failure, Kind};

use super::files;
use crate::args;

/// By the version of config.toml.
const SNIPPETS: [(i64, &str); 2] = [
    (2, include_str!("../../../deploy/containerd/lattice-v2.toml")),
    (3, include_str!("../../../deploy/containerd/lattice.toml")),
];
const FILE: &str = "lattice.toml";

/// A containerd and its configuration.
#[derive(Debug)]
pub(crate) struct Containerd {
    program: PathBuf,
    config: PathBuf,
}

/// How the runtime comes into the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Import {
    /// It is there.
    Present,
    /// By this file, which is written, or would be.
    Written(PathBuf),
    /// By the user.
    ByHand {
        /// The reason.
        why: String,
        /// What to add.
        lines: String,
    },
}

impl Containerd {
    /// The one that the flags name, else the one on `PATH`.
    pub(crate) fn find(args: &args::Containerd) -> Result<Self, Failure> {
        let missing = || {
            let text = "containerd is not on PATH: apt-get install containerd, or name it by --containerd";
            Failure::new(Kind::Program, text)
        };
        let program = match &args.containerd {
            Some(path) => path.clone(),
            None => crate::doctor::on_path("containerd").ok_or_else(missing)?.into(),
        };
        Ok(Self { program, config: args.containerd_config.clone() })
    }

    /// Where its configuration is.
    pub(crate) fn config(&self) -> std::path::Display<'_> {
        self.config.display()
    }

    /// Whether its configuration names our runtime.
    pub(crate) fn has_runtime(&self) -> Result<bool, Failure> {
        self.dump(&self.config).map(|dump| names_runtime(&dump))
    }

    /// Adds the runtime by a file of ours where that takes nothing away.
    pub(crate) fn import(&self, dry_run: bool) -> Result<Import, Failure> {
        let text = match fs::read_to_string(&self.config) {
            Ok(text) => text,
            Err(error) => {
                let text = format!(
                    "cannot read {}: {error}: make it by `containerd config default`, or name it by --containerd-config",
                    self.config()
                );
                return Err(Failure::new(Kind::Input, text));
            }
        };
        let config: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            Failure::new(Kind::Input, format!("{}: {}", self.config(), error.message()))
        })?;
        if self.has_runtime()? {
            return Ok(Import::Present);
        }
        let version = config.get("version").and_then(toml::Value::as_integer).unwrap_or(1);
        let Some((_, lines)) = SNIPPETS.iter().find(|(of, _)| *of == version) else {
            let text = format!(
                "{} has version {version}, for which there are no lines: see docs/shim.md",
                self.config()
            );
            return Err(Failure::new(Kind::Input, text));
        };
        let by_hand = |why: String| Ok(Import::ByHand { why, lines: without_head(lines) });
        let Some(path) = self.imported_dir(&config).map(|dir| dir.join(FILE)) else {
            return by_hand("it imports no directory".into());
        };
        if path.exists() {
            return by_hand(format!("{} is there, and does not name the runtime", path.display()));
        }
        if !self.takes(version, lines)? {
            return by_hand("with an imported file this containerd would lose other settings".into());
        }
        files::create(&path, lines, dry_run)?;
        Ok(Import::Written(path))
    }

    /// Whether these lines, imported, add the runtime and take nothing away.
    fn takes(&self, version: i64, lines: &str) -> Result<bool, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Kind::Internal, format!("cannot try containerd's configuration: {error}"))
        };
        let dir = tempfile::tempdir().map_err(failed)?;
        let config = fs::canonicalize(&self.config).map_err(failed)?;
        let (trial, file) = (dir.path().join("config.toml"), dir.path().join(FILE));
        fs::write(&file, lines).map_err(failed)?;
        let dump = |imports: &[&Path]| {
            fs::write(&trial, format!("version = {version}\nimports = {imports:?}\n")).map_err(failed)?;
            self.dump(&trial)
        };
        let before = dump(&[&config])?;
        Ok(dump(&[&config, &file]).is_ok_and(|after| names_runtime(&after) && keeps(&before, &after)))
    }

    /// The first directory of which all `.toml` files are imported.
    fn imported_dir(&self, config: &toml::Table) -> Option<PathBuf> {
        let own = self.config.parent()?;
        let imports = config.get("imports")?.as_array()?.iter().filter_map(toml::Value::as_str);
        let mut dirs = imports.filter_map(|pattern| pattern.strip_suffix("/*.toml")).map(|dir| own.join(dir));
        dirs.find(|dir| !dir.as_os_str().to_string_lossy().contains(['*', '?', '[']))
    }

    /// What the configuration is once all imports are read.
    fn dump(&self, config: &Path) -> Result<String, Failure> {
        let fail = |reason: &str| {
            let text =
                format!("{} --config {} config dump: {reason}", self.program.display(), config.display());
            Failure::new(Kind::Program, text)
        };
        let output = Command::new(&self.program)
            .arg("--config")
            .arg(config)
            .args(["config", "dump"])
            .output()
            .map_err(|error| fail(&error.to_string()))?;
        if !output.status.success() {
            return Err(fail(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it failed")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn names_runtime(dump: &str) -> bool {
    dump.lines().any(|line| line.trim().ends_with(".containerd.runtimes.lattice]"))
}

/// Whether each line of `before` is still there, as often.
fn keeps(before: &str, after: &str) -> bool {
    let mut counts: HashMap<&str, i64> = HashMap::new();
    after.lines().for_each(|line| *counts.entry(line.trim()).or_default() += 1);
    let is_imports = |line: &&str| line.trim_start().starts_with("imports ");
    before.lines().filter(|line| !is_imports(line)).all(|line| {
        let count = counts.entry(line.trim()).or_default();
        *count -= 1;
        *count >= 0
    })
}

/// For config.toml, which has its version, and its own comments.
fn without_head(snippet: &str) -> String {
    let start = snippet.find('[').unwrap_or(0);
    snippet[start..].to_owned()
}

#[cfg(test)]
mod tests;
