//! What each release of containerd is answered.

use std::{collections::HashSet, fs, os::unix::fs::PermissionsExt as _, thread};

use containerd_shim_protos::{
    bootstrap_api::{BootstrapParams, BootstrapResult},
    protobuf::Message as _,
    types::introspection::RuntimeInfo,
};

use super::place::{NAMESPACE, Place, options};

#[test]
fn start_prints_the_address_and_nothing_else_twice_the_same() {
    let place = Place::new();
    let bundle = place.bundle("p", "p");
    let address = place.address("p");
    assert!(address.starts_with(&format!("unix://{}/", place.sockets().display())), "{address}");
    assert_eq!(fs::read_to_string(bundle.join("address")).unwrap(), address);
    let server = place.server();
    assert_eq!(place.address("p"), address);
    assert_eq!(place.server(), server);
}

#[test]
fn the_containers_of_a_pod_share_a_shim_and_pods_do_not() {
    let place = Place::new();
    for (id, pod) in [("p", "p"), ("a", "p"), ("b", "p"), ("q", "q")] {
        place.bundle(id, pod);
    }
    let addresses: Vec<_> = ["p", "a", "b", "q"].map(|id| place.address(id)).into();
    assert_eq!(addresses.iter().collect::<HashSet<_>>().len(), 2, "{addresses:?}");
    assert_ne!(addresses[0], addresses[3]);
    assert_eq!(place.servers().len(), 2);
}

#[test]
fn racing_starts_make_one_shim() {
    let place = Place::new();
    let ids: Vec<_> = std::iter::once("p".to_owned()).chain((0..5).map(|n| format!("c{n}"))).collect();
    for id in &ids {
        place.bundle(id, "p");
    }
    let addresses: HashSet<_> = thread::scope(|scope| {
        let all: Vec<_> = ids.iter().map(|id| scope.spawn(|| place.address(id))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    place.server();
}

#[test]
fn garbage_is_no_bootstrap() {
    let place = Place::new();
    place.bundle("p", "p");
    let output = place.start("p", b"\xff\xfe garbage");
    assert!(output.status.success());
    assert!(output.stdout.starts_with(b"unix://"));
}

#[test]
fn bootstrap_params_are_answered_in_kind() {
    let place = Place::new();
    place.bundle("p", "p");
    let elsewhere = place.sockets().join("x");
    let params = BootstrapParams {
        instance_id: "p".into(),
        namespace: NAMESPACE.into(),
        containerd_ttrpc_address: "/nowhere".into(),
        socket_dir: Some(elsewhere.to_str().unwrap().into()),
        ..BootstrapParams::default()
    };
    let output = place.start("p", &params.write_to_bytes().unwrap());
    assert_eq!(output.stderr, b"");
    let result = BootstrapResult::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
    assert!(result.address.starts_with(&format!("unix://{}/", elsewhere.display())), "{}", result.address);
    let environment = fs::read_to_string(format!("/proc/{}/environ", place.server())).unwrap();
    assert!(environment.contains("TTRPC_ADDRESS=/nowhere\0"), "{environment:?}");
}

#[test]
fn a_config_in_the_options_is_kept_from_others() {
    let place = Place::new();
    let bundle = place.bundle("p", "p");
    let text = fs::read(place.config()).unwrap();
    let output = place.start("p", &options(3, &text));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kept = bundle.join("shim.toml");
    assert_eq!(fs::read(&kept).unwrap(), text);
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let argv = fs::read_to_string(format!("/proc/{}/cmdline", place.server())).unwrap();
    assert!(argv.contains(kept.to_str().unwrap()) && !argv.contains("network"), "{argv:?}");
}

#[test]
fn what_cannot_be_started_is_said_and_leaves_nothing() {
    let place = Place::new();
    let bundle = place.bundle("p", "..");
    let output = place.start("p", b"");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"..\""));
    assert!(place.servers().is_empty() && !bundle.join("address").exists() && !place.sockets().exists());
    for flags in [&["-nonsense", "start"][..], &["-id"], &["restart"], &[]] {
        let output = place.run(&bundle, flags, b"");
        assert!(!output.status.success(), "{flags:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{flags:?}");
    }
}

#[test]
fn it_says_what_it_is() {
    let place = Place::new();
    let bundle = place.bundle("p", "p");
    let version = place.run(&bundle, &["-v"], b"");
    assert!(version.status.success());
    assert!(String::from_utf8(version.stdout).unwrap().contains(env!("CARGO_PKG_VERSION")));
    let info = place.run(&bundle, &["-info"], &place.options());
    assert!(info.status.success());
    let info = RuntimeInfo::parse_from_bytes(&info.stdout).unwrap();
    assert_eq!(info.name, "io.containerd.lattice.v1");
    let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
    assert_eq!(features["ociVersionMin"], "1.0.0");
}
