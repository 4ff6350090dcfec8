//! The control plane's word counts at once, also for what is running; and without it, what was said last holds.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use lattice_tests::lab::wait_until;

use crate::{
    client::{Client, get},
    reach::DENIED,
    services::{ECHO, HELLO, SOURCE},
    world::{LIMIT, PAGE, World},
};

/// A connection on which data comes without end.
fn endless(mut stream: TcpStream) -> TcpStream {
    stream.write_all(&u64::MAX.to_be_bytes()).expect("a connection");
    stream.read_exact(&mut [0; 100_000]).expect("the first data");
    stream
}

/// Reads until it breaks. An end would be a lie: what came is not everything.
fn breaks(mut stream: TcpStream) -> std::io::ErrorKind {
    let begun = Instant::now();
    let mut buffer = vec![0; 64 << 10];
    while begun.elapsed() < LIMIT {
        match stream.read(&mut buffer) {
            Ok(0) => panic!("a cut stream looks whole"),
            Ok(_) => {}
            Err(error) => return error.kind(),
        }
    }
    panic!("still allowed after {LIMIT:?}");
}

#[test]
fn a_new_policy_cuts_what_it_denies_and_only_that() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let client = world.client(&pod);
    let download = endless(client.reach(world.far_ip, SOURCE));
    let mut other = client.reach(world.far_ip, ECHO);
    let deny =
        ["policy", "add", "freeze", "--workspace", "demo", "--selector", "name=agent", "--deny-egress"];
    world.lab.admin(&[&deny[..], &[&format!("tcp:{}/32:{SOURCE}", world.far_ip)]].concat());
    assert_eq!(breaks(download), std::io::ErrorKind::ConnectionReset);
    assert_eq!(client.reply(world.far_ip, SOURCE), DENIED);
    let told = client.http_connect(&format!("{}:{SOURCE}", world.far_ip));
    assert!(told.contains("rule-deny") && told.contains("freeze"), "{told}");
    let record = pod.record("the cut", |r| r["dstPort"] == SOURCE && r["action"] == "deny");
    assert!(record["rule"].as_str().is_some_and(|rule| rule.contains("freeze")), "{record}");

    let mut byte = [0];
    other.write_all(b"x").unwrap();
    other.read_exact(&mut byte).unwrap();
    assert_eq!(get(client.reach(world.far_ip, PAGE), "/"), HELLO);
    world.lab.admin(&["policy", "remove", "freeze", "--workspace", "demo"]);
    wait_until(LIMIT, "it to be allowed again", || client.connect(&world.far_ip.to_string(), SOURCE).is_ok());
    pod.end();
}

#[test]
fn who_is_no_member_any_more_reaches_nothing() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let client = world.client(&pod);
    let download = endless(client.reach(world.far_ip, SOURCE));
    world.lab.admin(&["peer", "remove", &world.peer("agent")]);
    // Its peers forget its key: whoever is not told so hears nothing any more.
    download.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    breaks(download);
    let hurried = Client { limit: Duration::from_secs(2), ..client };
    for host in [world.far_ip.to_string(), "far.lattice".into()] {
        assert_ne!(hurried.reply(&host, PAGE), 0, "{host}");
    }
    pod.end();
}

#[test]
fn without_the_control_plane_flows_go_on_and_begin() {
    let mut world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    // SIGKILL: nats-server goes with it.
    let gone = world.lab.take_latticed();
    let client = world.client(&pod);
    let mut running = endless(client.reach(world.far_ip, SOURCE));
    drop(gone);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        running.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(get(client.reach("far.lattice", PAGE), "/"), HELLO);
        assert_eq!(client.reply(world.far_ip, 9), DENIED);
    }
    pod.end();

    // Nor is there anything to begin with: one line, and no endless wait.
    let mut start = user.command(&world.near.netns, &lattice_tests::tools::built("lattice"));
    start.args(user.start(&world.lab, &world.near, "agent", &[]));
    let out = lattice_tests::Process::spawn(start, "agent", world.lab.dir.path()).finish(LIMIT);
    assert_eq!(out.code, 69, "{}", out.stderr);
    assert!(out.stderr.contains("error: identity: cannot reach"), "{}", out.stderr);
}
