//! What a container finds around it.

use std::fs;

use lattice_tests::containerd::{Daemon, Options, Pod};

pub(crate) fn environment_directory_and_user(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let options = Options {
        env: vec![("GREETING".into(), "good day; $HOME".into())],
        dir: "/home/agent".into(),
        user: Some(1000),
        ..Options::shell("echo \"$GREETING\"; pwd; id -u; id -g; hostname; exec sleep inf")
    };
    let container = pod.start("agent", &options);
    let seen = || container.logged("stdout").lines().map(String::from).collect::<Vec<_>>();
    lattice_tests::lab::wait_until(crate::LIMIT, "five lines", || seen().len() == 5);
    assert_eq!(seen()[..4], ["good day; $HOME", "/home/agent", "1000", "1000"]);
    assert!(seen()[4].starts_with("pod"), "the pod's host name: {}", seen()[4]);
    let (out, _, code) = container.shell("echo \"$GREETING\"; pwd; id -u; id -g");
    assert_eq!(
        (out.as_str(), code),
        ("good day; $HOME\n/home/agent\n1000\n1000\n", 0),
        "an exec has the same"
    );
    pod.remove();
}

pub(crate) fn volumes_are_mounted(daemon: &mut Daemon) {
    let (shared, fixed) = (daemon.directory("shared"), daemon.directory("fixed"));
    fs::write(shared.join("from-host"), "hello\n").expect("a file");
    fs::write(fixed.join("from-host"), "fixed\n").expect("a file");
    let pod = Pod::run(daemon);
    let options = Options {
        mounts: vec![(shared.clone(), "/shared".into(), false), (fixed.clone(), "/fixed".into(), true)],
        ..Options::default()
    };
    let [one, two] = ["one", "two"].map(|name| pod.start(name, &options));
    assert_eq!(one.shell("cat /shared/from-host /fixed/from-host").0, "hello\nfixed\n");
    assert_eq!(one.shell("echo from one > /shared/from-one").2, 0);
    assert_eq!(two.shell("cat /shared/from-one").0, "from one\n", "the other container sees it");
    assert_eq!(
        fs::read_to_string(shared.join("from-one")).expect("the file"),
        "from one\n",
        "the host sees it"
    );
    let (_, error, code) = one.shell("echo no > /fixed/no");
    assert_ne!(code, 0);
    assert!(error.contains("Read-only file system"), "{error}");
    assert!(!fixed.join("no").exists());
    pod.remove();
}

pub(crate) fn a_read_only_root_is_read_only(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let container = pod.start("fixed", &Options { readonly: true, ..Options::default() });
    let (_, error, code) = container.shell("echo no > /home/agent/no");
    assert!(code != 0 && error.contains("Read-only file system"), "{code} {error}");
    let other = pod.start("usual", &Options::default());
    assert_eq!(other.shell("echo yes > /home/agent/yes && cat /home/agent/yes").0, "yes\n");
    pod.remove();
}

/// The kubelet asked for none: neither the container nor an exec has any, and no new ones can be got.
pub(crate) fn no_privileges(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let container = pod.start("plain", &Options::default());
    let (status, _, _) = container.shell("grep -E '^Cap(Prm|Eff|Bnd):' /proc/self/status");
    let sets: Vec<&str> = status.split_whitespace().filter(|word| !word.ends_with(':')).collect();
    assert_eq!(sets, ["0000000000000000"; 3], "{status}");
    assert_ne!(container.shell("mount -t tmpfs none /tmp").2, 0);
    assert_ne!(container.shell("ip link set lo down").2, 0);
    pod.remove();
}
