//! Peers reach the services of the host that are forwarded, as the policy lets them in, and nothing beside these.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::Ordering,
    time::Duration,
};

use lattice_tests::{Output, Pod, lab::wait_until};
use serde_json::Value;

use crate::{
    services::{HELLO, Services, UDP_ECHO},
    world::{LIMIT, World},
};

const HERE: u16 = 8081;
const HIDDEN: u16 = 8082;
/// Exit codes of curl.
const REFUSED: i32 = 7;
const TIMED_OUT: i32 = 28;

fn fetch(world: &World, pod: &Pod, port: u16) -> Output {
    world.lab.on(&world.far, "curl", &["-sS", "-m", "5", &format!("http://{}:{port}/", pod.address)])
}

/// An answer of the echo behind a forward.
fn call(world: &World, to: SocketAddr) -> bool {
    let socket = world.far.netns.run(|| UdpSocket::bind("0.0.0.0:0"));
    let socket = socket.expect("the namespace").expect("a socket");
    answers(&socket, to)
}

/// Whether the echo at `to` answers `socket`.
pub(crate) fn answers(socket: &UdpSocket, to: SocketAddr) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    socket.connect(to).expect("a route");
    let _lost = socket.send(b"hello");
    let mut buffer = [0; 16];
    socket.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == b"hello")
}

#[test]
fn forwards_lead_to_services_of_the_host_and_are_on_record() {
    let world = World::new();
    let user = world.user("agent");
    let here = Services::start(&world.near.netns, &[HERE, HIDDEN]);
    let tcp = format!("8080:127.0.0.1:{HERE}");
    let udp = format!("udp:5353:127.0.0.1:{UDP_ECHO}");
    let flags = ["--forward", &tcp, "--forward", &udp, "--forward", "9000:127.0.0.1:9"];
    let pod = world.pod(&user, "agent", &flags);
    let out = fetch(&world, &pod, 8080);
    assert_eq!((out.code, out.stdout.as_str()), (0, HELLO), "{}", out.stderr);
    let at = SocketAddr::from((pod.address, 5353));
    wait_until(LIMIT, "an answer by UDP", || call(&world, at));
    let ping = world.lab.on(&world.far, "ping", &["-c", "1", "-W", "5", &pod.address.to_string()]);
    assert_eq!(ping.code, 0, "echo is answered: {}", ping.stdout);

    let before = here.seen.connections.load(Ordering::Relaxed);
    for port in [HERE, HIDDEN, 5353, 22] {
        // What the policy denies is not answered.
        let out =
            world.lab.on(&world.far, "curl", &["-sS", "-m", "1", &format!("http://{}:{port}/", pod.address)]);
        assert_eq!(out.code, TIMED_OUT, "{port}: {}", out.stderr);
    }
    let nobody = fetch(&world, &pod, 9000);
    assert_eq!(nobody.code, REFUSED, "nothing listens behind it: {}", nobody.stderr);
    assert!(!call(&world, (pod.address, UDP_ECHO).into()), "no forward leads there");
    assert_eq!(here.seen.connections.load(Ordering::Relaxed), before);

    let far = world.far_ip.to_string();
    let of = |r: &Value, proto: &str, port: u16| {
        r["proto"] == proto && r["dstPort"] == port && r["srcIP"] == far.as_str()
    };
    for (proto, port, action) in
        [("tcp", 8080, "allow"), ("udp", 5353, "allow"), ("tcp", HIDDEN, "deny"), ("udp", UDP_ECHO, "deny")]
    {
        let record = pod.record(&format!("{proto} {port}"), |r| of(r, proto, port));
        assert_eq!(
            (&record["action"], &record["direction"]),
            (&action.into(), &"ingress".into()),
            "{record}"
        );
        assert_eq!(record["dstIP"], pod.address.to_string().as_str(), "{record}");
    }

    // The workspace's policies narrow what the flags open.
    let deny = ["policy", "add", "shut", "--workspace", "demo", "--selector", "name=agent", "--deny-ingress"];
    world.lab.admin(&[&deny[..], &["tcp:{kind=node}:8080"]].concat());
    wait_until(LIMIT, "the forward to be shut", || fetch(&world, &pod, 8080).code != 0);
    let record = pod.record("the refusal", |r| of(r, "tcp", 8080) && r["action"] == "deny");
    assert!(record["rule"].as_str().is_some_and(|rule| rule.contains("shut")), "{record}");
    assert!(call(&world, at) || call(&world, at), "the other forward is as it was");
    world.lab.admin(&["policy", "remove", "shut", "--workspace", "demo"]);
    wait_until(LIMIT, "the forward to be open", || fetch(&world, &pod, 8080).code == 0);
    pod.end();
}

#[test]
fn a_sandbox_with_forwards_alone_needs_no_proxy() {
    let world = World::new();
    let user = world.user("agent");
    let _here = Services::start(&world.near.netns, &[HERE]);
    let tcp = format!("tcp:8080:127.0.0.1:{HERE}");
    let pod = user.pod(&world.lab, &world.near, "agent", &["--forward", &tcp]);
    assert_eq!((pod.proxy, &pod.ready["proxy"]), (None, &Value::Null));
    assert_eq!(fetch(&world, &pod, 8080).stdout, HELLO);
    pod.end();
}
