use containerd_shim_protos::{
    bootstrap_api::Extension,
    protobuf::{CodedOutputStream, MessageField},
    shim::oci,
};

use super::*;

fn flags() -> Flags {
    Flags { id: "abc".into(), namespace: "k8s.io".into(), address: "/run/c.sock".into(), ..Flags::default() }
}

/// As containerd would write `runtimeoptions.v1.Options`.
fn runtime_options(path: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut out = CodedOutputStream::vec(&mut bytes);
    out.write_string(1, "io.containerd.lattice.v1.options").unwrap();
    out.write_string(2, path).unwrap();
    out.write_bytes(3, body).unwrap();
    out.flush().unwrap();
    drop(out);
    bytes
}

fn any(name: &str, value: Vec<u8>) -> Any {
    Any { type_url: name.into(), value, ..Any::default() }
}

fn params(extensions: Vec<Any>) -> BootstrapParams {
    BootstrapParams {
        instance_id: "abc".into(),
        namespace: "k8s.io".into(),
        containerd_ttrpc_address: "/run/c.sock.ttrpc".into(),
        extensions: extensions
            .into_iter()
            .map(|value| Extension { value: MessageField::some(value), ..Extension::default() })
            .collect(),
        ..BootstrapParams::default()
    }
}

#[test]
fn nothing_and_garbage_get_the_bare_address() {
    for input in [&b""[..], b"\xff\xff\xff", b"hello", &[0; 4096]] {
        let request = Request::new(&flags(), input);
        assert_eq!(request.protocol, Protocol::Address, "{input:?}");
        assert_eq!((request.id.as_str(), request.address.as_str()), ("abc", "/run/c.sock"));
        assert_eq!(request.options, Options::default());
    }
    assert_eq!(encode(Protocol::Address, "unix:///s").unwrap(), b"unix:///s");
}

#[test]
fn bootstrap_params_get_version_3() {
    let mut told = params(vec![]);
    told.socket_dir = Some("/run/x".into());
    let request = Request::new(&flags(), &told.write_to_bytes().unwrap());
    assert_eq!(request.protocol, Protocol::Bootstrap);
    assert_eq!(request.ttrpc_address.as_deref(), Some("/run/c.sock.ttrpc"));
    assert_eq!(request.socket_dir, Some("/run/x".into()));
    assert_eq!(request.address, "/run/c.sock", "what is not told there is taken from the flags");
    let reply = encode(request.protocol, "unix:///s").unwrap();
    let reply = BootstrapResult::parse_from_bytes(&reply).unwrap();
    assert_eq!((reply.version, reply.address.as_str(), reply.protocol.as_str()), (3, "unix:///s", "ttrpc"));
}

#[test]
fn options_are_not_taken_for_bootstrap_params() {
    let options = any("runtimeoptions.v1.Options", runtime_options("/etc/x.toml", b""));
    let request = Request::new(&flags(), &options.write_to_bytes().unwrap());
    assert_eq!(request.protocol, Protocol::Address);
    assert_eq!(request.options.config_path, Some("/etc/x.toml".into()));

    // Both messages begin with two strings: only what they say tells them apart.
    let mut other = params(vec![]);
    other.instance_id = "another".into();
    let request = Request::new(&flags(), &other.write_to_bytes().unwrap());
    assert_eq!((request.protocol, request.id.as_str()), (Protocol::Address, "abc"));
}

#[test]
fn flags_may_be_missing_beside_bootstrap_params() {
    let input = params(vec![]).write_to_bytes().unwrap();
    assert_eq!(Request::new(&Flags::default(), &input).id, "abc");
    let options = any("runtimeoptions.v1.Options", runtime_options("/x", b"")).write_to_bytes().unwrap();
    assert_eq!(Request::new(&Flags::default(), &options).protocol, Protocol::Address);
}

#[test]
fn options_are_found_under_every_name() {
    let value = runtime_options("/x.toml", b"log = \"debug\"");
    let names = [
        "",
        "runtimeoptions.v1.Options",
        "cri.runtimeoptions.v1.Options",
        "type.googleapis.com/runtimeoptions.v1.Options",
    ];
    for name in names {
        let legacy = Request::new(&flags(), &any(name, value.clone()).write_to_bytes().unwrap());
        let input = params(vec![any("x.Other", vec![1]), any(name, value.clone())]).write_to_bytes().unwrap();
        for request in [legacy, Request::new(&flags(), &input)] {
            assert_eq!(request.options.config_path, Some("/x.toml".into()), "{name:?}");
            assert_eq!(request.options.config_body.as_deref(), Some(&b"log = \"debug\""[..]));
        }
    }
}

#[test]
fn of_runc_s_options_the_shim_s_group_counts() {
    let runc =
        oci::Options { shim_cgroup: "/shims".into(), binary_name: "crun".into(), ..Default::default() };
    let input = any("containerd.runc.v1.Options", runc.write_to_bytes().unwrap()).write_to_bytes().unwrap();
    let options = Request::new(&flags(), &input).options;
    assert_eq!(options, Options { shim_cgroup: Some("/shims".into()), ..Options::default() });
}
