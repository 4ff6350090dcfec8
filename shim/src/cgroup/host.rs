//! Which hierarchies the host has, and where in them a group is. The kernel says it; no configuration does.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use super::Groups;
use crate::{
    error::Error,
    mounts::table::{self, Entry},
};

/// Where runsc, containerd and kubelet look, whatever else is mounted.
const ROOT: &str = "/sys/fs/cgroup";

pub(super) struct Host {
    hierarchies: Hierarchies,
    /// The text of `/proc/self/cgroup`.
    own: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Hierarchies {
    V1(BTreeMap<String, PathBuf>),
    V2(PathBuf),
}

impl Host {
    /// What cannot be read is taken for a host without groups.
    pub(super) fn read() -> Self {
        let mounts = table::read().unwrap_or_default();
        Self::new(&mounts, fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
    }

    fn new(mounts: &[Entry], own: String) -> Self {
        let top = mounts.iter().rev().find(|entry| entry.point == Path::new(ROOT));
        let hierarchies = match top {
            Some(entry) if entry.kind == "cgroup2" => Hierarchies::V2(entry.point.clone()),
            _ => Hierarchies::V1(version_1(mounts)),
        };
        Self { hierarchies, own }
    }

    /// The groups that `path` names, if it stays inside.
    pub(super) fn groups(&self, path: &str) -> Groups {
        match &self.hierarchies {
            Hierarchies::V1(hierarchies) => Groups::V1(
                hierarchies
                    .iter()
                    .filter_map(|(name, root)| {
                        let path = if path.starts_with('/') {
                            Path::new("/").join(path)
                        } else {
                            self.own(name).join(path)
                        };
                        Some((name.clone(), join(root, &path)?))
                    })
                    .collect(),
            ),
            Hierarchies::V2(root) => {
                let path = match of_systemd(path) {
                    Some(path) => path,
                    None if path.starts_with('/') => path.into(),
                    // Beside runsc's own, which has processes and therefore cannot have limited children.
                    None => self.own("").parent().unwrap_or(Path::new("/")).join(path),
                };
                join(root, &path).map_or_else(|| Groups::V1(BTreeMap::new()), Groups::V2)
            }
        }
    }

    /// Our own group in the hierarchy of a controller; `""` is version 2.
    fn own(&self, controller: &str) -> PathBuf {
        let path = self.own.lines().find_map(|line| {
            let (_, named) = line.split_once(':')?;
            let (controllers, path) = named.split_once(':')?;
            controllers.split(',').any(|name| name == controller).then_some(path)
        });
        path.unwrap_or("/").into()
    }
}

/// Hierarchies by controller; those without one by `name=…`. Empty where nothing of version 1 is mounted.
fn version_1(mounts: &[Entry]) -> BTreeMap<String, PathBuf> {
    // Other options of a version 1 mount; all that is not one of these is a controller.
    let is_name = |option: &str| {
        !matches!(
            option,
            "rw" | "ro"
                | "xattr"
                | "noprefix"
                | "clone_children"
                | "none"
                | "favordynmods"
                | "cpuset_v2_mode"
                | "all"
        ) && !option.starts_with("release_agent=")
    };
    mounts
        .iter()
        .filter(|entry| entry.kind == "cgroup" && entry.point.starts_with(ROOT))
        .flat_map(|entry| {
            entry
                .options
                .iter()
                .filter(|option| is_name(option))
                .map(|name| (name.clone(), entry.point.clone()))
        })
        .collect()
}

/// `path` below `root`; nothing for the root itself and for what leads upwards.
fn join(root: &Path, path: &Path) -> Option<PathBuf> {
    let inside: PathBuf = path.strip_prefix("/").ok()?.into();
    let is_inside = inside.components().all(|part| matches!(part, Component::Normal(_)))
        && !inside.as_os_str().is_empty();
    is_inside.then(|| root.join(inside))
}

/// The group that systemd makes for `slice:prefix:name`: each part of a slice's name is a slice in that before it.
fn of_systemd(path: &str) -> Option<PathBuf> {
    let [slice, prefix, name] = *path.split(':').collect::<Vec<_>>() else { return None };
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let parts = slice.strip_suffix(".slice").unwrap_or(slice);
    let mut group = PathBuf::from("/");
    // `-.slice` is the root.
    for (at, _) in parts.match_indices('-').chain([(parts.len(), "")]).filter(|_| parts != "-") {
        group.push(format!("{}.slice", &parts[..at]));
    }
    let unit = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
    group.push(if unit.ends_with(".slice") { unit } else { format!("{unit}.scope") });
    Some(group)
}

pub(super) fn no_controller(controller: &str, what: &str) -> Error {
    Error::FailedPrecondition(format!(
        "cannot {what}: the host has no {controller} cgroup controller below {ROOT}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(point: &str, kind: &str, options: &str) -> Entry {
        Entry {
            point: point.into(),
            kind: kind.into(),
            options: options.split(',').map(Into::into).collect(),
        }
    }

    fn v1_of(host: &Host, path: &str) -> BTreeMap<String, PathBuf> {
        match host.groups(path) {
            Groups::V1(groups) => groups,
            Groups::V2(group) => panic!("{}", group.display()),
        }
    }

    fn v2_of(path: &str) -> Option<String> {
        let host = Host::new(
            &[entry(ROOT, "cgroup2", "rw,nsdelegate")],
            "0::/system.slice/containerd.service\n".into(),
        );
        match host.groups(path) {
            Groups::V1(_) => None,
            Groups::V2(group) => Some(group.strip_prefix(ROOT).unwrap().to_str().unwrap().into()),
        }
    }

    #[test]
    fn version_1_is_found_beside_a_mount_of_version_2() {
        let mounts = [
            entry(ROOT, "tmpfs", "rw,mode=755"),
            entry("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
            entry("/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
            entry("/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,release_agent=/lib/agent,name=systemd"),
            entry("/sys/fs/cgroup/unified", "cgroup2", "rw"),
            entry("/elsewhere/pids", "cgroup", "rw,pids"),
        ];
        let own = "4:memory:/vm/a\n2:cpu,cpuacct:/b\n1:name=systemd:/c\n0::/d\n";
        let host = Host::new(&mounts, own.into());
        let groups = v1_of(&host, "/default/x");
        assert_eq!(
            groups.keys().map(String::as_str).collect::<Vec<_>>(),
            ["cpu", "cpuacct", "memory", "name=systemd"]
        );
        assert_eq!(groups["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct/default/x"));
        // As runsc takes them: literally, below its own group.
        assert_eq!(v1_of(&host, "rel/x")["memory"], Path::new("/sys/fs/cgroup/memory/vm/a/rel/x"));
        assert_eq!(
            v1_of(&host, "a.slice:cri:x")["cpu"],
            Path::new("/sys/fs/cgroup/cpu,cpuacct/b/a.slice:cri:x")
        );
        assert_eq!(
            v1_of(&host, "a.slice:cri:x")["name=systemd"],
            Path::new("/sys/fs/cgroup/systemd/c/a.slice:cri:x")
        );
    }

    #[test]
    fn version_2_alone_is_known_by_the_mount_of_all_whatever_else_is_mounted() {
        let mounts = [entry(ROOT, "cgroup2", "rw"), entry("/sys/fs/cgroup/net_cls", "cgroup", "rw,net_cls")];
        assert_eq!(Host::new(&mounts, String::new()).hierarchies, Hierarchies::V2(ROOT.into()));
        let hidden = [entry(ROOT, "cgroup2", "rw"), entry(ROOT, "tmpfs", "rw")];
        assert_eq!(Host::new(&hidden, String::new()).hierarchies, Hierarchies::V1(BTreeMap::new()));
    }

    #[test]
    fn paths_of_both_drivers_are_those_of_kubelet_and_systemd() {
        assert_eq!(v2_of("/kubepods/pod1/x").as_deref(), Some("kubepods/pod1/x"));
        assert_eq!(
            v2_of("kubepods-burstable-pod1.slice:cri-containerd:x").as_deref(),
            Some(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-x.scope"
            )
        );
        assert_eq!(v2_of(":runsc:x").as_deref(), Some("system.slice/runsc-x.scope"));
        assert_eq!(v2_of("-.slice::x").as_deref(), Some("x.scope"));
        assert_eq!(v2_of("rel/x").as_deref(), Some("system.slice/rel/x"));
    }

    #[test]
    fn a_path_that_leads_upwards_and_the_root_name_no_group() {
        for path in ["/", "/../etc", "/a/../../b", "..", "a/../../../b", "/a/..", "x:../..:y/../.."] {
            assert_eq!(v2_of(path), None, "{path}");
        }
        let host = Host::new(&[entry("/sys/fs/cgroup/memory", "cgroup", "rw,memory")], String::new());
        assert!(v1_of(&host, "/../memory").is_empty());
    }
}
