//! What a mount's options say, as flags and data of mount(2).

use containerd_shim_protos::api::Mount;
use nix::mount::MsFlags;

use super::overlay;

/// What mount(2) is given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) flags: MsFlags,
    pub(super) data: String,
    /// Where relative paths in `data` begin.
    pub(super) from: Option<String>,
}

impl Options {
    /// The error is the reason why only containerd could mount it.
    pub(super) fn parse(mount: &Mount) -> Result<Self, String> {
        if mount.type_.contains('/') || mount.type_.starts_with("fuse.") || mount.type_.starts_with("fuse3.")
        {
            return Err(format!(
                "the type {:?} needs a helper; use the overlayfs or native snapshotter",
                mount.type_
            ));
        }
        let mut flags = MsFlags::empty();
        let mut data = Vec::new();
        for option in &mount.options {
            match flag(option) {
                Some((true, flag)) => flags |= flag,
                Some((false, flag)) => flags &= !flag,
                None if is_containerds(option) => {
                    return Err(format!(
                        "the option {option:?} is for containerd to handle; use the overlayfs or native snapshotter"
                    ));
                }
                None => data.push(option.as_str()),
            }
        }
        // Where runsc keeps what a container writes in the root file system itself, a device node of an image would be the host's device.
        flags |= MsFlags::MS_NODEV;
        let (data, from) = overlay::fit(&mount.type_, &data)?;
        Ok(Self { flags, data, from })
    }

    /// The kernel ignores all other flags where a bind mount is made: they take a second call.
    pub(super) fn is_bind(&self) -> bool {
        self.flags.contains(MsFlags::MS_BIND)
    }
}

/// Loop devices, identity mappings, and what the mount manager of containerd 2.2 does before it calls a shim.
fn is_containerds(option: &str) -> bool {
    option == "loop"
        || ["loop=", "uidmap=", "gidmap=", "X-containerd."].iter().any(|prefix| option.starts_with(prefix))
}

/// Whether it sets or clears, and what.
fn flag(option: &str) -> Option<(bool, MsFlags)> {
    Some(match option {
        "defaults" => (true, MsFlags::empty()),
        "async" => (false, MsFlags::MS_SYNCHRONOUS),
        "atime" => (false, MsFlags::MS_NOATIME),
        "bind" => (true, MsFlags::MS_BIND),
        "dev" => (false, MsFlags::MS_NODEV),
        "diratime" => (false, MsFlags::MS_NODIRATIME),
        "dirsync" => (true, MsFlags::MS_DIRSYNC),
        "exec" => (false, MsFlags::MS_NOEXEC),
        "mand" => (true, MsFlags::MS_MANDLOCK),
        "noatime" => (true, MsFlags::MS_NOATIME),
        "nodev" => (true, MsFlags::MS_NODEV),
        "nodiratime" => (true, MsFlags::MS_NODIRATIME),
        "noexec" => (true, MsFlags::MS_NOEXEC),
        "nomand" => (false, MsFlags::MS_MANDLOCK),
        "norelatime" => (false, MsFlags::MS_RELATIME),
        "nostrictatime" => (false, MsFlags::MS_STRICTATIME),
        "nosuid" => (true, MsFlags::MS_NOSUID),
        "rbind" => (true, MsFlags::MS_BIND | MsFlags::MS_REC),
        "relatime" => (true, MsFlags::MS_RELATIME),
        "remount" => (true, MsFlags::MS_REMOUNT),
        "ro" => (true, MsFlags::MS_RDONLY),
        "rw" => (false, MsFlags::MS_RDONLY),
        "strictatime" => (true, MsFlags::MS_STRICTATIME),
        "suid" => (false, MsFlags::MS_NOSUID),
        "sync" => (true, MsFlags::MS_SYNCHRONOUS),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, options: &[&str]) -> Mount {
        Mount {
            type_: kind.into(),
            options: options.iter().map(|option| (*option).into()).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn flags_are_taken_out_of_the_data_and_the_last_word_counts() {
        let parsed = Options::parse(&mount(
            "tmpfs",
            &["rbind", "ro", "noexec", "exec", "size=1m", "defaults", "mode=755"],
        ));
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
        assert_eq!(parsed, Ok(Options { flags, data: "size=1m,mode=755".into(), from: None }));
        let flags = Options::parse(&mount("bind", &["bind", "ro", "rw", "dev"])).unwrap().flags;
        assert_eq!(flags, MsFlags::MS_BIND | MsFlags::MS_NODEV);
    }

    #[test]
    fn what_is_containerds_is_refused_by_name() {
        for option in
            ["loop", "loop=/dev/loop3", "uidmap=0:1:2", "gidmap=0:1:2", "X-containerd.mkdir.path=/a"]
        {
            let reason = Options::parse(&mount("ext4", &["ro", option])).unwrap_err();
            assert!(reason.contains(option), "{reason}");
        }
        for kind in ["fuse3.fuse-overlayfs", "fuse.x", "format/mkdir/overlay"] {
            assert!(Options::parse(&mount(kind, &[])).unwrap_err().contains(kind));
        }
    }
}
