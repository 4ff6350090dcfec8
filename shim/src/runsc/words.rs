//! What runsc's answers mean. Pure. Its errors are words only; those looked for here are the same from 2022 to 2026.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Flags that are the shim's own to set: another value would open the sandbox, or we would lose sight of it.
const OWN_FLAGS: [&str; 12] = [
    "allow-flag-override",
    "host-uds",
    "ignore-cgroups",
    "log",
    "log-fd",
    "log-format",
    "net-raw",
    "network",
    "platform",
    "root",
    "rootless",
    "systemd-cgroup",
];

/// `runsc_flags` of `shim.toml`, as `name=value`.
pub(super) fn further_flags(flags: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let flag = |(name, value): (&String, &String)| {
        let is_name =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !is_name || name.starts_with('-') || value.contains('\0') {
            return Err(Error::Invalid(format!(
                "shim.toml: runsc_flags: {name:?} is no flag of runsc's: write it without dashes"
            )));
        }
        if OWN_FLAGS.contains(&name.as_str()) {
            return Err(Error::Invalid(format!(
                "shim.toml: runsc_flags: {name} is set by the shim: remove it"
            )));
        }
        Ok(format!("{name}={value}"))
    };
    flags.iter().map(flag).collect()
}

/// A wait status (`wait(2)`) as a shell tells it.
pub(super) fn exit_status(wait_status: u32) -> u32 {
    match wait_status & 0x7f {
        0 => (wait_status >> 8) & 0xff,
        signal => 128 + signal,
    }
}

/// Whether a signal was refused for want of a process.
pub(super) fn nobody_to_signal(reason: &str) -> bool {
    ["no such process", "not found", "not running", "different container", "no longer running"]
        .iter()
        .any(|words| reason.contains(words))
}

/// Whether a wait was refused because the sandbox is gone.
pub(super) fn sandbox_has_ended(reason: &str) -> bool {
    ["not running", "no longer running", "connection refused", "EOF"]
        .iter()
        .any(|words| reason.contains(words))
}

/// Whether it printed its verbs, because it does not have the one that it was given.
pub(super) fn is_usage(stderr: &[u8]) -> bool {
    String::from_utf8_lossy(stderr).lines().any(|line| line.trim() == "Subcommands:")
}

/// Whether a sandbox of this release goes on in place after a checkpoint. The one of 20221219 is replaced by another, which nobody waits
/// for; the one of 20240729 goes on. Versions hold a date, but for those that somebody built: they are newer.
pub(super) fn goes_on_after_checkpoint(version: &str) -> bool {
    let date = version.split(|c: char| !c.is_ascii_digit()).find(|part| part.len() == 8);
    date.is_none_or(|date| date >= "20240729")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_a_shells() {
        for (status, shell) in [(0, 0), (7 << 8, 7), (255 << 8, 255), (15, 143), (9 | 0x80, 137)] {
            assert_eq!(exit_status(status), shell, "{status:#x}");
        }
    }

    #[test]
    fn only_releases_that_go_on_do() {
        for (version, goes_on) in [
            ("0.0~20221219.0", false),
            ("release-20230102.0", false),
            ("0.0~20240729.0", true),
            ("release-20260901.0", true),
            ("VERSION_MISSING", true),
        ] {
            assert_eq!(goes_on_after_checkpoint(version), goes_on, "{version}");
        }
    }

    #[test]
    fn flags_that_open_the_sandbox_are_refused() {
        let of = |name: &str| further_flags(&BTreeMap::from([(name.to_owned(), "x".to_owned())]));
        assert_eq!(of("overlay2").unwrap(), ["overlay2=x"]);
        for name in ["network", "host-uds", "allow-flag-override", "-network", "--root", "a b", "", "root=/x"]
        {
            assert!(matches!(of(name), Err(Error::Invalid(_))), "{name:?}");
        }
    }
}
