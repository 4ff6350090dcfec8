//! Whose a network namespace is.

use std::{fs, io::ErrorKind, os::unix::fs::MetadataExt as _, path::Path};

use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::error::{Error, Result};

/// Refuses a path that is no namespace, or the host's: the one we run in, as containerd does, or the first process's where the kernel
/// lets us look at that (it may not: `ptrace(2)`, access mode checking).
///
/// # Errors
/// [`Error::Invalid`] with the remedy.
pub fn check_netns(path: &Path) -> Result<()> {
    let shown = path.display();
    let unusable = |error: &dyn std::fmt::Display| {
        Error::Invalid(format!("network namespace {shown}: {error}: has the pod's network been taken down?"))
    };
    let kind = statfs(path).map_err(|error| unusable(&error))?.filesystem_type();
    if kind != NSFS_MAGIC {
        return Err(unusable(&"it is no namespace"));
    }
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let theirs = identity(path).map_err(|error| unusable(&error))?;
    let own = identity(Path::new("/proc/self/ns/net")).map_err(Error::io("look at /proc/self/ns/net"))?;
    let first = match identity(Path::new("/proc/1/ns/net")) {
        Ok(first) => Some(first),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
        Err(error) => return Err(Error::io("look at /proc/1/ns/net")(error)),
    };
    if theirs == own || Some(theirs) == first {
        return Err(Error::Invalid(format!(
            "network namespace {shown} is the host's: run the pod without hostNetwork, or with another runtime class"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_is_refused_and_so_is_what_is_none() {
        for (path, why) in [
            ("/proc/self/ns/net", "host's"),
            (
                "/proc/1/ns/net",
                if fs::metadata("/proc/1/ns/net").is_ok() { "host's" } else { "network namespace" },
            ),
            ("/etc/passwd", "no namespace"),
            ("/run/netns/none-of-that-name", "taken down"),
        ] {
            let error = check_netns(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(why), "{path}: {error}");
        }
    }

    #[test]
    fn another_one_is_fine() {
        let other =
            lattice_overlay::netns::Netns::create().expect("needs CAP_SYS_ADMIN: run the tests as root");
        check_netns(&other.path()).unwrap();
    }
}
