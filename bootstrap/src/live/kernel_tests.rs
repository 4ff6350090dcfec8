//! The live change on a real link. Needs root.

use std::{io::ErrorKind, net::UdpSocket, path::Path, sync::Mutex, time::Duration};

use lattice_audit::{AuditFile, Class};
use lattice_dns::Gate as _;
use lattice_ebpf::AttachMode;
use lattice_overlay::{BackendChoice, DeviceConfig, Netns, link};
use lattice_policy::{RuleSpec, parse_rule};
use lattice_wire::WgPrivateKey;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    time::{ClockId, clock_gettime},
};

use super::{tests::map, *};
use crate::{
    enforce::{Enforcer, Place, PolicedLink, Started},
    gate::PolicyGate,
    links::Watch,
    recorder::Recorder,
    steps::Undo,
};

/// A policed link without a peer: what passes the policy is lost, what does not is refused.
struct Lab {
    // Declared, and so dropped, from the user to the used.
    live: Arc<Mutex<Live>>,
    recorder: Recorder,
    inside: Arc<Netns>,
    undo: Undo,
    enforcer: enforce::Shared,
    _device: Box<dyn lattice_overlay::Device>,
}

impl Lab {
    fn new(dir: &Path, flags: &[&str], map: &NetMap) -> Self {
        // Pins in a mount namespace of this thread: the kernel unmounts them even if the test is killed.
        unshare(CloneFlags::CLONE_NEWNS).expect("needs CAP_SYS_ADMIN: run the tests as root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let pins = dir.join("pins");

        let inside = Arc::new(Netns::create().unwrap());
        let config = DeviceConfig {
            paths: None,
            name: "wg0".into(),
            private_key: WgPrivateKey::from_random([7; 32]),
            listen_port: 0,
            mtu: 1420,
            underlay: Arc::new(Netns::create().unwrap()),
            inside: inside.clone(),
            filter: None,
        };
        let device = lattice_overlay::create(config, BackendChoice::UserSpace).unwrap();

        let wg0 = PolicedLink { name: "wg0".into(), own: vec![map.address.addr().into()] };
        let place = Place { netns: inside.clone(), links: vec![wg0], confined: None, filter: None };
        let started = Enforcer::Ebpf.prepare(pins, AttachMode::Auto).unwrap().start(place).unwrap();
        let Started { enforcer, verdicts, undo, .. } = started;
        let flags: Vec<RuleSpec> = flags.iter().map(|text| parse_rule(text).unwrap()).collect();
        let policy = Arc::new(wanted(1, &flags.clone().into(), map, 0).unwrap());
        enforce::lock(&enforcer).apply(&policy, &policy.compile(), &[]).unwrap();
        let address = ipnet::IpNet::V4(map.address);
        link::add_address(&inside, "wg0", address).unwrap();
        link::set_up(&inside, "wg0").unwrap();
        link::add_route(&inside, ipnet::IpNet::V4(map.pool), "wg0", Some(address.addr())).unwrap();

        let generations = Generations::default();
        generations.add(policy.clone());
        let file = AuditFile::open(&dir.join("audit.jsonl"), "lab", Class::Kernel).unwrap();
        let recorder = Recorder::start(enforcer.clone(), verdicts, generations.clone(), file).unwrap();
        let live = Live::new(flags.into(), policy, generations, enforcer.clone(), Closed::default());
        let live = Arc::new(Mutex::new(live));
        Self { live, recorder, inside, undo, enforcer, _device: device }
    }

    fn change(&self, map: &NetMap, now: i64) {
        let mut live = self.live.lock().unwrap();
        let change = live.change(map, now).unwrap();
        live.put(change).unwrap();
    }

    /// The agent sends a datagram. That it left is seen in the flow records.
    fn send(&self, address: &str) -> UdpSocket {
        let socket = self.inside.run(|| UdpSocket::bind("10.42.0.9:0").unwrap()).unwrap();
        socket.connect((address, 8080)).unwrap();
        socket.send(b"x").unwrap();
        socket
    }

    fn is_refused(&self, address: &str) {
        let socket = self.send(address);
        // Only says when the test has failed.
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let error = socket.recv(&mut [0; 8]).unwrap_err();
        assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    }
}

#[test]
fn reach_goes_and_comes_back_with_the_map() {
    let dir = tempfile::tempdir().unwrap();
    let wide = map(Some(&["10.42.0.4/31"]));
    let lab = Lab::new(dir.path(), &["10.42.0.0/16:8080"], &wide);
    lab.send("10.42.0.5");

    lab.change(&map(Some(&["10.42.0.4"])), 0);
    lab.is_refused("10.42.0.5");
    lab.send("10.42.0.4");

    lab.change(&wide, 0);
    lab.send("10.42.0.5");

    lab.change(&NetMap { not_after: Some(1), ..wide }, 1);
    lab.is_refused("10.42.0.5");

    lab.recorder.finish().unwrap();
    let records = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
    let records = records.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let told: Vec<String> = records
        .filter(|record| record["direction"] == "egress")
        .map(|r| format!("{} {} {} {}", r["generation"], r["action"], r["dstIP"], r["rule"]).replace('"', ""))
        .collect();
    assert_eq!(
        told,
        [
            "1 allow 10.42.0.5 10.42.0.4/31:8080 (policy p)",
            "2 deny 10.42.0.5 null",
            "2 allow 10.42.0.4 10.42.0.4/32:8080 (policy p)",
            "3 allow 10.42.0.5 10.42.0.4/31:8080 (policy p)",
            "4 deny 10.42.0.5 null",
        ]
    );
    drop((lab.live, lab.enforcer));
    (lab.undo)().unwrap();
}

#[test]
fn a_pin_outlives_its_answer_by_a_minute_and_a_flow_outlives_its_pin() {
    const NAME: &str = "api.example.com";
    let address = "23.20.0.7";
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::new(dir.path(), &["api.example.com:8080"], &map(None));
    let (net, own) = ("23.20.0.0/16".parse().unwrap(), "10.42.0.9".parse().unwrap());
    link::add_route(&lab.inside, net, "wg0", Some(own)).unwrap();
    let gate = PolicyGate { live: lab.live.clone(), teller: lab.recorder.teller(), search: Vec::new() };
    let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();

    lab.is_refused(address);
    let told = gate.answer(NAME, &[address.parse().unwrap()], Duration::ZERO);
    assert_eq!((told.addresses.len(), told.ttl), (1, Duration::ZERO), "told as it was answered");
    let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap());
    let end = Duration::from_nanos(lab.live.lock().unwrap().book.next_end().unwrap());
    assert!(
        end - now > Duration::from_secs(60 - 1) && end - now < Duration::from_secs(120),
        "{now:?} {end:?}"
    );
    let begun = lab.send(address);
    // The same pin as after its end, without the wait.
    let over = lab.live.lock().unwrap().names.pin(NAME, address.parse().unwrap(), 1).unwrap().unwrap();
    enforce::lock(&lab.enforcer).pin(&[over]).unwrap();
    lab.is_refused(address);
    begun.send(b"still").unwrap();
    begun.send(b"here").unwrap();
    // For longer than the book knows of: what it holds already is not pinned again.
    gate.answer(NAME, &[address.parse().unwrap()], Duration::from_secs(300));
    let again = lab.send(address);

    drop(gate);
    lab.recorder.finish().unwrap();
    let records = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
    let records: Vec<serde_json::Value> =
        records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |wanted: u16| -> Vec<&str> {
        let fit = records.iter().filter(|record| record["srcPort"] == wanted);
        fit.map(|record| record["action"].as_str().unwrap()).collect()
    };
    for socket in [&begun, &again] {
        assert_eq!(of(port(socket)), ["allow"], "{records:#?}");
    }
    let denied = |record: &&serde_json::Value| record["action"] == "deny" && record["dstIP"] == address;
    assert_eq!(records.iter().filter(denied).count(), 2, "before the answer and after the end: {records:#?}");
    drop((lab.live, lab.enforcer));
    (lab.undo)().unwrap();
}

#[test]
fn a_link_that_appears_later_is_policed() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::new(dir.path(), &["10.42.0.0/16:8080"], &map(None));
    let watch = Watch::start(lab.inside.clone(), lab.enforcer.clone(), &["wg0".into()]).unwrap();
    let outside = Netns::create().unwrap();
    link::add_veth(&lab.inside, "late0", &outside, "far0").unwrap();
    let pins = dir.path().join("pins");
    let policed = || {
        let folders =
            std::fs::read_dir(&pins).unwrap().flatten().flat_map(|abi| std::fs::read_dir(abi.path()));
        folders
            .flatten()
            .flatten()
            .filter(|pin| pin.file_name().to_string_lossy().starts_with("link-"))
            .count()
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while policed() < 4 && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(policed(), 4, "both sides of wg0 and of the new link");

    // The new link is the way to 10.42.7.0/24, and its own address is not one of the agent's.
    let address = |ip: &str| ip.parse::<ipnet::IpNet>().unwrap();
    link::add_address(&lab.inside, "late0", address("10.42.7.1/24")).unwrap();
    link::set_up(&lab.inside, "late0").unwrap();
    link::add_address(&outside, "far0", address("10.42.7.2/24")).unwrap();
    link::set_up(&outside, "far0").unwrap();
    let canary = outside.run(|| UdpSocket::bind("10.42.7.2:8080").unwrap()).unwrap();
    canary.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let send = |netns: &Netns, from: &str| {
        let socket = netns.run(|| UdpSocket::bind(from).unwrap()).unwrap();
        let _ = socket.send_to(b"x", "10.42.7.2:8080");
    };
    send(&lab.inside, "10.42.7.1:0");
    assert!(canary.recv(&mut [0; 8]).is_err(), "a source that is not the agent's own");
    lab.recorder.finish().unwrap();
    drop((watch, lab.live, lab.enforcer));
    (lab.undo)().unwrap();
}
