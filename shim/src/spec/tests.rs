use oci_spec::runtime::{Linux, LinuxDeviceType};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const BUNDLE: &str = "/run/containerd/task/c";

/// As containerd's CRI plugin writes it, in small.
fn given() -> Value {
    json!({
        "ociVersion": "1.1.0",
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["agent"], "env": ["PATH=/bin", "LATTICE_TOKEN=t0"],
            "capabilities": {
                "bounding": ["CAP_NET_RAW", "CAP_CHOWN"], "effective": ["CAP_NET_RAW", "CAP_CHOWN"],
                "inheritable": ["CAP_SYS_ADMIN"], "permitted": ["CAP_BPF", "CAP_CHOWN"], "ambient": ["CAP_NET_ADMIN"]
            },
            "apparmorProfile": "p", "selinuxLabel": "l", "noNewPrivileges": false
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/etc//resolv.conf", "type": "bind", "source": "/var/lib/kubelet/x", "options": ["rbind", "rw"]}
        ],
        "annotations": {
            "io.kubernetes.cri.sandbox-id": "p", "dev.gvisor.flag.network": "sandbox",
            "dev.gvisor.spec.rootfs.source": "/dev/sda", "dev.gvisor.tar.rootfs.upper": "/root/x.tar",
            "io.kubernetes.cri.sandbox-memory": "1048576", "io.kubernetes.cri.sandbox-cpu-period": "100000",
            "io.kubernetes.cri.sandbox-cpu-quota": "50000", "io.kubernetes.cri.sandbox-cpu-shares": "512"
        },
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/p"}, {"type": "cgroup"}],
            "resources": {"cpu": {"shares": 2}},
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}
        }
    })
}

fn asked(role: Role, network: NetworkKind) -> Edit<'static> {
    Edit { role, network, bundle: Path::new(BUNDLE), resolv_conf: Some(Path::new("/ours/resolv.conf")) }
}

fn edited(given: Value, role: Role) -> Result<Value> {
    let mut spec: Spec = serde_json::from_value(given).unwrap();
    edit(&mut spec, &asked(role, NetworkKind::Lattice))?;
    Ok(serde_json::to_value(spec).unwrap())
}

fn sorted(set: &Value) -> Vec<&str> {
    let mut names: Vec<_> = set.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_root_container_is_made_safe() {
    let spec = edited(given(), Role::Root).unwrap();
    assert_eq!(spec["root"]["path"], format!("{BUNDLE}/rootfs"));
    let process = &spec["process"];
    for (set, left) in [
        ("bounding", vec!["CAP_CHOWN"]),
        ("effective", vec!["CAP_CHOWN"]),
        ("inheritable", vec![]),
        ("permitted", vec!["CAP_CHOWN"]),
        ("ambient", vec![]),
    ] {
        assert_eq!(sorted(&process["capabilities"][set]), left, "{set}");
    }
    assert_eq!(process["noNewPrivileges"], true);
    assert_eq!(process["env"], json!(["PATH=/bin"]));
    assert_eq!((&process["apparmorProfile"], &process["selinuxLabel"]), (&json!("p"), &json!("l")));
    let mounts = spec["mounts"].as_array().unwrap();
    assert_eq!(mounts.len(), 2);
    assert_eq!(mounts[1]["source"], "/ours/resolv.conf");
    assert!(mounts[1]["options"].as_array().unwrap().contains(&json!("ro")));
    let annotations = spec["annotations"].as_object().unwrap();
    assert!(!annotations.keys().any(|name| name.starts_with("dev.gvisor.")), "{annotations:?}");
    assert_eq!(spec["annotations"]["io.kubernetes.cri.sandbox-id"], "p");
    let kinds: Vec<_> =
        spec["linux"]["namespaces"].as_array().unwrap().iter().map(|one| &one["type"]).collect();
    assert_eq!(kinds, ["pid", "network"]);
    let resources = &spec["linux"]["resources"];
    assert_eq!(resources["cpu"], json!({"shares": 512, "quota": 50000, "period": 100_000}));
    assert_eq!(resources["memory"]["limit"], 1_048_576);
    assert_eq!(spec["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
}

#[test]
fn the_pod_s_limits_are_not_a_member_s() {
    let spec = edited(given(), Role::Member).unwrap();
    assert_eq!(spec["linux"]["resources"]["cpu"], json!({"shares": 2}));
    assert!(spec["linux"]["resources"].get("memory").is_none());
}

#[test]
fn a_pod_without_limits_gets_none() {
    let mut spec = given();
    for name in ["memory", "cpu-period", "cpu-quota", "cpu-shares"] {
        spec["annotations"][format!("io.kubernetes.cri.sandbox-{name}")] = "0".into();
    }
    let spec = edited(spec, Role::Root).unwrap();
    assert_eq!(spec["linux"]["resources"]["cpu"], json!({"shares": 2}));
}

#[test]
fn what_cannot_be_run_safely_is_refused_with_a_remedy() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 7] = [
        (|spec| spec["linux"]["namespaces"] = json!([{"type": "pid"}]), "host's network namespace"),
        (|spec| spec["linux"] = json!({}), "host's network namespace"),
        (|spec| spec["linux"]["namespaces"] = json!([{"type": "network"}]), "no path"),
        (|spec| spec["linux"]["namespaces"] = json!([{"type": "network", "path": ""}]), "no path"),
        (
            |spec| spec["linux"]["namespaces"][0] = json!({"type": "network", "path": "/run/netns/q"}),
            "two network",
        ),
        (|spec| spec["root"]["path"] = "../../x".into(), "out of the bundle"),
        (|spec| spec["annotations"]["io.kubernetes.cri.sandbox-memory"] = "lots".into(), "no number"),
    ];
    for (change, why) in cases {
        let mut spec = given();
        change(&mut spec);
        let error = edited(spec, Role::Root).unwrap_err();
        assert!(matches!(&error, Error::Invalid(text) if text.contains(why)), "{why}: {error}");
    }
}

#[test]
fn without_a_network_no_namespace_is_asked_for() {
    let mut value = given();
    value["linux"]["namespaces"] = json!([{"type": "network"}]);
    for (network, fine) in
        [(NetworkKind::Lattice, false), (NetworkKind::Plain, true), (NetworkKind::None, true)]
    {
        let mut spec: Spec = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(edit(&mut spec, &asked(Role::Root, network)).is_ok(), fine, "{network:?}");
    }
    let mut spec = Spec::default();
    spec.set_linux(Some(Linux::default()));
    spec.linux_mut().as_mut().unwrap().set_namespaces(None);
    assert!(edit(&mut spec, &asked(Role::Root, NetworkKind::Plain)).is_err());
}

#[test]
fn there_is_no_tun_device_by_any_way() {
    let mut value = given();
    value["mounts"] = json!([
        {"destination": "/dev/net/tun", "type": "bind", "source": "/dev/x"},
        {"destination": "/x", "type": "bind", "source": "/dev/./net//tun"},
        {"destination": "/data", "type": "bind", "source": "/data"}
    ]);
    value["linux"]["devices"] = json!([
        {"path": "/dev/net/tun", "type": "c", "major": 1, "minor": 3},
        {"path": "/dev/other", "type": "c", "major": 10, "minor": 200},
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}
    ]);
    value["linux"]["resources"]["devices"] = json!([
        {"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm"}
    ]);
    let spec: Spec = serde_json::from_value(edited(value, Role::Member).unwrap()).unwrap();
    let at: Vec<_> = spec.mounts().iter().flatten().map(|mount| mount.destination().clone()).collect();
    assert_eq!(at, [Path::new("/data"), Path::new(RESOLV_CONF)]);
    let linux = spec.linux().as_ref().unwrap();
    let devices = linux.devices().as_ref().unwrap();
    assert_eq!((devices.len(), devices[0].typ()), (1, LinuxDeviceType::C));
    assert_eq!(linux.resources().as_ref().unwrap().devices().as_ref().unwrap().len(), 1);
}

#[test]
fn the_token_is_taken_out_wherever_it_is() {
    let of = |env: &[&str]| {
        let mut process = Process::default();
        process.set_env(Some(env.iter().map(|one| (*one).to_owned()).collect()));
        let token = take_token(&mut process).map(|token| token.to_string());
        (token, process.env().clone().unwrap())
    };
    let taken =
        of(&["LATTICE_TOKEN=a", "A=LATTICE_TOKEN=x", "LATTICE_TOKEN", "LATTICE_TOKEN=b", "LATTICE_TOKENS=c"]);
    assert_eq!(taken, (Some("b".into()), vec!["A=LATTICE_TOKEN=x".into(), "LATTICE_TOKENS=c".into()]));
    assert_eq!(of(&["PATH=/bin"]), (None, vec!["PATH=/bin".into()]));
    assert_eq!(of(&["LATTICE_TOKEN="]).0, Some(String::new()));
}

#[test]
fn an_exec_gets_no_more_than_its_container() {
    let mut process: Process = serde_json::from_value(given()["process"].clone()).unwrap();
    edit_exec(&mut process);
    let edited = edited(given(), Role::Member).unwrap();
    let of = |value: &Value| sorted(&value["capabilities"]["bounding"]).join(" ");
    assert_eq!(of(&serde_json::to_value(&process).unwrap()), of(&edited["process"]));
    assert_eq!(process.no_new_privileges(), Some(true));
    assert!(!process.env().as_ref().unwrap().iter().any(|one| one.contains("t0")));
}

const ALL: [&str; 11] = [
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_SYS_ADMIN",
    "CAP_BPF",
    "CAP_PERFMON",
    "CAP_SYS_PTRACE",
    "CAP_SYS_MODULE",
    "CAP_CHOWN",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETUID",
];

fn set() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        proptest::sample::subsequence(ALL.to_vec(), 0..=ALL.len()).prop_map(|set| json!(set)),
    ]
}

proptest! {
    #[test]
    fn no_forbidden_capability_survives_and_twice_is_once(
        sets in proptest::array::uniform5(set()),
        destinations in proptest::collection::vec("(/|/etc/|//etc/./)(resolv.conf|hosts|../etc/resolv.conf)", 0..4),
        root in "/?[a-z]{1,5}(/[a-z]{1,5})?",
        is_root in any::<bool>(),
        memory in proptest::option::of(-5i64..1 << 40),
    ) {
        let mut value = given();
        let names = ["bounding", "effective", "inheritable", "permitted", "ambient"];
        let object: serde_json::Map<_, _> =
            names.iter().map(|name| (*name).to_owned()).zip(sets).filter(|(_, set)| !set.is_null()).collect();
        value["process"]["capabilities"] = Value::Object(object);
        value["root"]["path"] = root.into();
        value["mounts"] = destinations.iter().map(|at| json!({"destination": at, "source": "/s"})).collect();
        if let Some(memory) = memory {
            value["annotations"]["io.kubernetes.cri.sandbox-memory"] = memory.to_string().into();
        }
        let mut spec: Spec = serde_json::from_value(value).unwrap();
        let edit_of = asked(if is_root { Role::Root } else { Role::Member }, NetworkKind::Lattice);
        edit(&mut spec, &edit_of).unwrap();
        let once = spec.clone();
        edit(&mut spec, &edit_of).unwrap();
        prop_assert_eq!(&once, &spec);
        let all = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        let left = serde_json::to_string(&all).unwrap();
        // Named here anew: a list that lost one must not be compared with itself.
        prop_assert!(!ALL[..7].iter().any(|name| left.contains(name)), "{}", left);
        let resolv = |mount: &&Mount| is_at(mount, Path::new(RESOLV_CONF));
        prop_assert_eq!(spec.mounts().iter().flatten().filter(resolv).count(), 1);
    }
}
