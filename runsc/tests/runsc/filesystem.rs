use std::{collections::BTreeMap, fs, io::Write as _, path::Path, process::Command};

use lattice_runsc::Writable;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::support::{Place, each_runsc};

/// Every path below `dir` with its size and time of change.
fn listing(dir: &Path) -> BTreeMap<String, (u64, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            found.extend(listing(&path));
        }
        found.insert(path.display().to_string(), (meta.len(), meta.modified().unwrap()));
    }
    found
}

#[test]
fn writes_succeed_and_never_reach_the_rootfs() {
    each_runsc(|runsc| {
        let place = Place::new();
        let before = listing(&place.rootfs());
        let script = "echo new >/etc/passwd && echo x >/file && rm /bin/yes && cat /file /etc/passwd";
        assert_eq!(place.sh(runsc, script), "x\nnew\n");
        assert_eq!(listing(&place.rootfs()), before);
        assert!(place.sh(runsc, "cat /etc/passwd").contains("root:x:0:0"), "writes end with the sandbox");
    });
}

#[test]
fn a_read_only_rootfs_refuses_writes_but_tmp_does_not() {
    each_runsc(|runsc| {
        let place = Place::new();
        let before = listing(&place.rootfs());
        let mut spec = place.spec("echo x >/file || echo refused; rm /bin/yes || echo refused; echo y >/tmp/f && echo z >/dev/shm/f && cat /tmp/f /dev/shm/f");
        spec.rootfs_writable = Writable::ReadOnly;
        let output = place.run(runsc, &spec);
        assert_eq!(output.stdout, "refused\nrefused\ny\nz\n", "{}", output.stderr);
        assert!(output.stderr.contains("Read-only file system"), "{}", output.stderr);
        assert_eq!(listing(&place.rootfs()), before);
    });
}

#[test]
fn resolver_and_hosts_are_ours_and_cannot_be_written() {
    each_runsc(|runsc| {
        for writable in [Writable::Overlay, Writable::ReadOnly] {
            let place = Place::new();
            fs::write(place.rootfs().join("etc/resolv.conf"), "nameserver 192.0.2.9\n").unwrap();
            fs::write(place.rootfs().join("etc/hosts"), "").unwrap();
            let before = listing(&place.rootfs());
            let mut spec = place.spec(
                "cat /etc/resolv.conf /etc/hosts; echo x 2>/dev/null >/etc/resolv.conf || echo refused",
            );
            spec.resolv_conf = Some("nameserver 192.0.2.1\n".into());
            spec.hosts = Some("192.0.2.2 tool\n".into());
            spec.uid = 1000;
            spec.rootfs_writable = writable;
            let output = place.run(runsc, &spec);
            assert_eq!(output.stdout, "nameserver 192.0.2.1\n192.0.2.2 tool\nrefused\n", "{}", output.stderr);
            assert_eq!(listing(&place.rootfs()), before, "{writable:?}");
        }
    });
}

#[test]
fn a_hostile_rootfs_cannot_mount_our_files_elsewhere() {
    each_runsc(|runsc| {
        let place = Place::new();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path().join("made"), place.rootfs().join("etc/resolv.conf"))
            .unwrap();
        let mut spec = place.spec("true");
        spec.resolv_conf = Some("nameserver 192.0.2.1\n".into());
        let (out, err) = (std::io::pipe().unwrap().1, std::io::pipe().unwrap().1);
        let stdio = lattice_runsc::AgentStdio::new(std::process::Stdio::null(), out, err);
        drop(
            runsc
                .start_with_stdio(&place.ready(), &spec, &place.state(), stdio)
                .map(|mut agent| agent.wait()),
        );
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "a file was made outside the rootfs");
        assert!(place.left().is_empty());
    });
}

#[test]
fn a_binary_that_leads_out_of_the_rootfs_is_refused() {
    each_runsc(|runsc| {
        let place = Place::new();
        std::os::unix::fs::symlink("../../../../../../../../bin/ls", place.rootfs().join("bin/out")).unwrap();
        std::os::unix::fs::symlink("/usr/bin/env", place.rootfs().join("bin/abs")).unwrap();
        for binary in ["/bin/abs", "/bin/missing"] {
            let mut spec = place.spec("");
            spec.binary = binary.into();
            let error = runsc.start(&place.ready(), &spec, &place.state()).unwrap_err().to_string();
            assert!(error.contains("No such file"), "{error}");
        }
        let mut spec = place.spec("");
        (spec.binary, spec.args) = ("/bin/out".into(), vec!["/".into()]);
        let inside = place.run(runsc, &spec);
        assert!(!inside.stdout.contains("home"), "'..' stops at the rootfs: {}", inside.stdout);
    });
}

/// What whoever made the root file system has left in it: the kernel's log, a door to new links, and a file of the host.
#[test]
fn device_nodes_and_hard_links_of_a_hostile_rootfs_lead_nowhere() {
    each_runsc(|runsc| {
        let place = Place::new();
        let nodes = place.rootfs().join("nodes");
        fs::create_dir(&nodes).unwrap();
        for (name, major, minor) in [("kmsg", 1, 11), ("tun", 10, 200)] {
            let mode = Mode::from_bits_truncate(0o666);
            mknod(&nodes.join(name), SFlag::S_IFCHR, mode, makedev(major, minor)).unwrap();
        }
        let outside = place.rootfs().with_file_name("of-the-host");
        fs::write(&outside, "of the host\n").unwrap();
        fs::hard_link(&outside, place.rootfs().join("etc/linked")).unwrap();
        // Random, and so of nobody else.
        let word = outside.display().to_string().replace('/', "-");
        let twin = fs::File::options().write(true).open(nodes.join("kmsg"));
        twin.and_then(|mut log| log.write_all(format!("<7>twin{word}\n").as_bytes()))
            .expect("the twin's line");
        let tried = place.sh(
            runsc,
            &format!(
                "exec 2>/dev/null
                 echo '<7>agent{word}' >/nodes/kmsg
                 busybox tunctl -f /nodes/tun -t way-out && echo tun
                 echo changed >/etc/linked && cat /etc/linked
                 echo tried"
            ),
        );
        assert_eq!(tried, "changed\ntried\n");
        assert_eq!(fs::read_to_string(&outside).unwrap(), "of the host\n");
        let log = Command::new("dmesg").output().expect("dmesg");
        let log = String::from_utf8_lossy(&log.stdout).into_owned();
        assert!(log.contains(&format!("twin{word}")), "the twin did not get through either");
        assert!(!log.contains(&format!("agent{word}")), "the host's kernel has heard of it");
    });
}
