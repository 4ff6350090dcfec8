//! Phase one in pods, from the shim's network to the packets: a namespace that CNI made, a node, a cluster's service and
//! nameserver, and a real control plane.

#![allow(missing_docs, clippy::unwrap_used)]

mod containerd_node;
mod fence;
mod kernel_wireguard;
mod leaks;
mod node;
mod overlap;
mod world;

use std::{
    net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use lattice_bootstrap::Kind;
use lattice_shim::{config::Config, network};
use lattice_tests::{Process, process::command};
use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt::BindToDevice},
};
use world::{LIMIT, SERVICE, World, left, run, wait_for};

#[test]
fn a_pod_reaches_what_node_and_annotation_allow_and_is_reached_by_probes_alone() {
    reaches_what_is_allowed("ebpf");
}

#[test]
fn a_pod_policed_by_nftables_reaches_the_same() {
    reaches_what_is_allowed("nftables");
}

fn reaches_what_is_allowed(enforcer: &'static str) {
    let mut world = World::by(enforcer);
    let (pod, other) = (world.pod(), world.pod());
    let config = world.config("egress_allow = [\"10.42.0.0/16\", \"192.168.50.1:53\", \"169.254.0.0/16\"]");
    // The annotation asks for more than the node permits, and for less.
    let rules = format!("{} udp:{}/32:8080 192.168.50.1/32 {SERVICE}", world.to_tool(8080), world.tool);
    let spec = world.spec(&pod, "agent", &[("lattice.io/egress-allow", &rules)]);
    let memory = resident();
    let network = world.start(&config, &spec).unwrap();
    println!("resident: {memory} KiB before, {} KiB after", resident());
    assert_eq!(
        std::fs::read_to_string(network.resolv_conf()).unwrap(),
        "nameserver 127.0.0.1\nsearch default.svc.cluster.local\noptions ndots:5\n"
    );

    let tool = world.tool.to_string();
    assert!(pod.fetches(&format!("http://{tool}:8080/")), "by wg0");
    assert!(pod.is_refused(&tool, 9090), "the annotation allows another port");
    assert!(pod.is_refused("192.168.50.1", 8080), "by eth0, and the node does not permit it");
    assert!(pod.is_refused(SERVICE, 80), "by eth0, and the node does not permit it");
    assert!(pod.is_refused("10.77.0.1", 22), "the node itself");

    let _listener = pod.listen();
    assert!(World::reaches(&world.node.netns, pod.address, 7000), "a probe of the node's");
    assert!(!World::reaches(&other.netns, pod.address, 7000), "another pod");
    assert!(!World::reaches(world.lab.hub(), pod.address, 7000), "somebody beyond the node");
    spoofed(&world, &pod);
    bound(&world, &pod);

    // What comes later is policed too.
    run(
        &world.node.netns,
        &format!("ip link add late type veth peer name net1 netns {}", pod.netns.path().display()),
    );
    run(&world.node.netns, "ip addr add 10.78.0.1/24 dev late");
    run(&world.node.netns, "ip link set late up");
    run(&pod.netns, "ip addr add 10.78.0.2/24 dev net1");
    run(&pod.netns, "ip link set net1 up");
    wait_for("the late link to be policed", || {
        !World::reaches(&world.node.netns, Ipv4Addr::new(10, 78, 0, 2), 7000)
    });

    assert_eq!(network.stop(), Vec::<String>::new());
    assert_eq!(pod.links(), ["lo", "eth0", "net1"]);
    assert_eq!(pod.tables(), "", "the policy goes with the network");
    assert_eq!(left(&world), Vec::<String>::new());
}

/// A neighbour that claims an address of the overlay, from which the policy lets echo requests in.
fn spoofed(world: &World, pod: &world::Made) {
    let requests = || {
        let read = || std::fs::read_to_string("/proc/thread-self/net/snmp");
        let text = pod.netns.run(read).unwrap().unwrap();
        let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("Icmp: ")).collect();
        let at = lines[0].split(' ').position(|name| name == "InEchos").unwrap();
        lines[1].split(' ').nth(at).unwrap().parse::<u64>().unwrap()
    };
    let before = requests();
    run(&world.node.netns, &format!("ip addr add {}/32 dev lo", world.tool));
    let mut ping = command(&world.node.netns.path(), "ping".as_ref());
    ping.args(["-c", "2", "-i", "0.2", "-W", "1", "-I", &world.tool.to_string(), &pod.address.to_string()]);
    assert!(!ping.output().unwrap().status.success());
    assert_eq!(requests(), before, "an overlay address came in by eth0");
    run(&world.node.netns, &format!("ip addr del {}/32 dev lo", world.tool));
}

/// An agent that sends by eth0 what is allowed by wg0.
fn bound(world: &World, pod: &world::Made) {
    run(&world.node.netns, &format!("ip addr add {}/32 dev lo", world.tool));
    let to = (world.tool, 8080);
    let taker = world.node.netns.run(|| UdpSocket::bind(to)).unwrap().unwrap();
    let send = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        setsockopt(&socket, BindToDevice, &"eth0".into())?;
        // The first datagram takes ARP to know where to.
        (0..2).try_for_each(|_| socket.send_to(b"x", to).map(drop))
    };
    let _refused: std::io::Result<()> = pod.netns.run(send).unwrap();
    taker.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    assert!(taker.recv(&mut [0; 8]).is_err(), "what is meant for the overlay left by eth0");
    run(&world.node.netns, &format!("ip addr del {}/32 dev lo", world.tool));
}

#[test]
fn ipv6_by_eth0_is_policed() {
    ipv6("ebpf");
    ipv6("nftables");
}

fn ipv6(enforcer: &'static str) {
    let mut world = World::by(enforcer);
    let pod = world.pod();
    let address = world.add_ipv6(&pod);
    let config = world.config("egress_allow = [\"tcp:[fd77::1/128]:8081\", \"10.42.0.0/16\"]\negress_default = [\"tcp:[fd77::1/128]:8081\"]");
    let listen = |port: u16| world.node.netns.run(|| TcpListener::bind(("fd77::1", port))).unwrap().unwrap();
    let _listeners = [listen(8081), listen(8082)];
    let network = world.start(&config, &world.spec(&pod, "agent", &[])).unwrap();
    let own = pod.listen();
    assert!(World::reaches(&pod.netns, "fd77::1".parse::<Ipv6Addr>().unwrap(), 8081), "by eth0, as allowed");
    assert!(pod.is_refused("fd77::1", 8082), "the rule is for another port");
    assert!(pod.is_refused("2001:db8::1", 443), "where the default route leads");
    assert!(World::reaches(&world.node.netns, address, 7000), "a probe of the node's");
    drop(own);
    // From an address of which the policy knows nothing.
    run(&world.node.netns, "ip addr add fd78::1/128 dev lo nodad");
    let socket = pod.netns.run(|| UdpSocket::bind("[::]:7001")).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let send = || UdpSocket::bind("[fd78::1]:0")?.send_to(b"x", (address, 7001));
    world.node.netns.run(send).unwrap().unwrap();
    assert!(socket.recv(&mut [0; 8]).is_err(), "a datagram that nothing allows came in by eth0");
    let file = world.dir().join(format!("audit/{}.jsonl", network.peer()));
    assert_eq!(network.stop(), Vec::<String>::new());
    let text = std::fs::read_to_string(file).unwrap();
    let told = |action: &str, port: u16| {
        let (to, action) = (format!("\"dstPort\":{port},"), format!("\"action\":\"{action}\""));
        text.lines().any(|line| line.contains("fd77::1") && line.contains(&to) && line.contains(&action))
    };
    assert!(told("allow", 8081) && told("deny", 8082), "{text}");
    assert_eq!(left(&world), Vec::<String>::new());
}

#[test]
fn names_of_the_cluster_open_its_services() {
    opens_services("ebpf");
    opens_services("nftables");
}

fn opens_services(enforcer: &'static str) {
    let mut world = World::by(enforcer);
    let pod = world.pod();
    let config = world.config("egress_allow = [\"*.svc.cluster.local:80\", \"evil.example.com:80\"]\negress_default = [\"web.default.svc.cluster.local:80\", \"evil.example.com:80\"]");
    let network = world.start(&config, &world.spec(&pod, "agent", &[])).unwrap();
    assert!(pod.is_refused(SERVICE, 80), "before it was asked for by name");
    let web = "web.default.svc.cluster.local";
    assert_eq!(pod.resolve(web), (0, Some(SERVICE.parse().unwrap())));
    assert!(pod.fetches(&format!("http://{SERVICE}/")));
    assert!(pod.is_refused(SERVICE, 81), "the rule is for another port");
    // REFUSED: a name of strangers may not open a private address. NXDOMAIN: the search goes on.
    assert_eq!(pod.resolve("evil.example.com"), (5, None));
    assert_eq!(pod.resolve("evil.example.com.default.svc.cluster.local"), (3, None));
    assert_eq!(pod.resolve("other.example.com"), (5, None));
    assert_eq!(network.stop(), Vec::<String>::new());
    assert_eq!(left(&world), Vec::<String>::new());
}

#[test]
fn a_preset_by_annotation_only_narrows() {
    let mut world = World::new();
    let allow = "egress_allow = [\"10.42.0.0/16\"]\negress_default = [\"10.42.0.0/16\"]";
    let (config, tool) = (world.config(allow), world.tool.to_string());
    let preset = |preset: &'static str| [("lattice.io/preset", preset)];
    let pod = world.pod();
    let network = world.start(&config, &world.spec(&pod, "open", &[])).unwrap();
    assert!(pod.fetches(&format!("http://{tool}:8080/")), "without a preset");
    assert_eq!(network.stop(), Vec::<String>::new());

    // No policy names what an isolated peer may reach.
    let pod = world.pod();
    let network =
        world.start(&world.config(allow), &world.spec(&pod, "closed", &preset("isolated"))).unwrap();
    assert!(pod.is_refused(&tool, 8080), "isolated");
    assert_eq!(network.stop(), Vec::<String>::new());

    // The token's preset stays, and none that lets others in can be chosen.
    let pod = world.pod();
    let (config, token) = (world.config(allow), world.dir().join("token"));
    let refused = |config: &str, name: &str, preset: &[(&str, &str)]| {
        world.start(config, &world.spec(&pod, name, preset)).map(drop).unwrap_err().message
    };
    let sandboxed = world.lab.admin(&["token", "create", "--workspace", "demo", "--preset", "sandboxed"]);
    std::fs::write(&token, sandboxed).unwrap();
    let message = refused(&config, "other", &preset("isolated"));
    assert!(message.contains("preset \"sandboxed\""), "{message}");
    assert!(refused(&config, "wide", &preset("coordinator")).contains("lets other peers in"));
    let network = world.start(&config, &world.spec(&pod, "same", &preset("sandboxed"))).unwrap();
    assert_eq!(network.stop(), Vec::<String>::new(), "the refused ones have not spent the token");

    // One that was enrolled without is not taken for one with.
    let config = world.config(&format!("keep = true\n{allow}"));
    let pod = world.pod();
    let network = world.start(&config, &world.spec(&pod, "kept", &[])).unwrap();
    assert_eq!(network.stop(), Vec::<String>::new());
    let pod = world.pod();
    let failure = world.start(&config, &world.spec(&pod, "kept", &preset("isolated"))).map(drop).unwrap_err();
    assert!(failure.message.contains("without the preset isolated"), "{failure}");
    assert_eq!(pod.links(), ["lo", "eth0"]);
}

#[test]
fn a_kept_peer_resumes_without_a_token_and_is_not_held_up_by_a_control_plane_that_is_away() {
    let mut world = World::new();
    let config = world.config("keep = true\negress_allow = [\"10.42.0.0/16\"]");
    let mut addresses = Vec::new();
    for round in 0..2 {
        let pod = world.pod();
        let spec = world.spec(&pod, "agent", &[]);
        let parsed = Config::parse(&config.replace("token_file", "# token_file")).unwrap();
        assert_eq!(network::Network::needs_token(&parsed, &spec).unwrap(), round == 0);
        let network = world.start(&config, &spec).unwrap();
        assert_eq!(network.peer(), "default-agent");
        let list = lattice_overlay::link::addresses(&pod.netns).unwrap();
        addresses
            .extend(list.into_iter().filter(|(link, ip)| link == "wg0" && ip.is_ipv4()).map(|(_, ip)| ip));
        // CNI takes the namespace away first.
        drop(pod);
        if round == 1 {
            world.end_control_plane();
        }
        let begun = Instant::now();
        assert_eq!(network.stop(), Vec::<String>::new());
        assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    }
    assert_eq!(addresses[0], addresses[1]);
    assert!(world.dir().join("pods/default-agent.json").exists());
}

#[test]
fn a_killed_shim_leaves_the_policy_until_it_is_cleaned_up_after() {
    is_killed("ebpf");
}

#[test]
fn a_killed_shim_leaves_nftables_until_they_are_cleaned_up_after() {
    is_killed("nftables");
}

fn is_killed(enforcer: &'static str) {
    let mut world = World::by(enforcer);
    let pod = world.pod();
    let config = world.config(&format!("egress_allow = [\"10.42.0.0/16\", \"{SERVICE}:80\"]\negress_default = [\"10.42.0.0/16\", \"{SERVICE}:80\"]"));
    std::fs::write(world.dir().join("shim.toml"), &config).unwrap();
    let (shim, peer) = killable(&world, &pod);
    assert!(pod.fetches(&format!("http://{SERVICE}/")));
    shim.signal(Signal::SIGKILL);
    shim.finish(LIMIT);
    wait_for("wg0 to go with the shim", || !pod.links().contains(&"wg0".to_owned()));
    assert!(pod.is_refused("192.168.50.1", 8080), "the pinned policy is in force");
    // Somebody on eth0's side claims to be the tool.
    run(&world.node.netns, &format!("ip addr add {}/32 dev lo", world.tool));
    let to = (world.tool, 8080);
    let _claims = world.node.netns.run(|| std::net::TcpListener::bind(to)).unwrap().unwrap();
    assert!(
        pod.is_refused(&world.tool.to_string(), 8080),
        "what is meant for the overlay leaves by no other link"
    );
    assert!(!left(&world).is_empty());

    world.end_control_plane();
    let begun = Instant::now();
    let parsed = Config::parse(&config).unwrap();
    world.node.netns.run(|| network::clean_up(&parsed, &peer)).unwrap().unwrap();
    println!("cleaned up in {:?}", begun.elapsed());
    assert_eq!(left(&world), Vec::<String>::new());
    assert_eq!(pod.links(), ["lo", "eth0"]);
    assert_eq!(pod.tables(), "");
}

/// A process that gives `pod` its network by the node's shim.toml, and the name of its peer.
fn killable(world: &World, pod: &world::Made) -> (Process, String) {
    let exe = std::env::current_exe().unwrap();
    let mut shim = command(&world.node.netns.path(), &exe);
    shim.args(["--ignored", "--exact", "the_shim_that_is_killed", "--nocapture"]);
    shim.env("LATTICE_TEST_NODE", world.dir()).env("LATTICE_TEST_NETNS", pod.netns.path());
    let mut shim = Process::spawn(shim, "shim", world.lab.dir.path());
    shim.wait_for("stands as ", LIMIT);
    let peer = shim.output().0.split_once("stands as ").unwrap().1.lines().next().unwrap().to_owned();
    (shim, peer)
}

/// Not a test of its own: what is killed.
#[test]
#[ignore = "started by another test"]
fn the_shim_that_is_killed() {
    let Some(node) = std::env::var_os("LATTICE_TEST_NODE").map(std::path::PathBuf::from) else { return };
    let config = std::fs::read_to_string(node.join("shim.toml")).unwrap();
    let pod = network::Pod {
        namespace: "default".into(),
        name: "agent".into(),
        uid: "uid".into(),
        netns: std::env::var_os("LATTICE_TEST_NETNS").unwrap().into(),
        annotations: std::collections::HashMap::new(),
        resolv_conf: None,
    };
    let network = world::start(&config, &pod).unwrap();
    println!("\nstands as {}", network.peer());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn what_cannot_be_policed_is_refused_before_a_token_is_spent() {
    let mut world = World::new();
    let pod = world.pod();
    let config = world.config("");
    let refused = |config: &str, spec: &network::Pod| world.start(config, spec).map(|_| ()).unwrap_err();
    let hosts = network::Pod { netns: world.node.netns.path(), ..world.spec(&pod, "host", &[]) };
    let failure = refused(&config, &hosts);
    assert!(failure.kind == Kind::Input && failure.message.contains("hostNetwork"), "{failure}");
    let gone = network::Pod { netns: "/run/netns/there-is-none".into(), ..hosts.clone() };
    assert!(refused(&config, &gone).message.starts_with("netns: "));
    let failure = refused(&config.replace("\"ebpf\"", "\"userspace\""), &world.spec(&pod, "a", &[]));
    assert!(failure.message.contains("user-space"), "{failure}");
    let failure = refused(&config, &world.spec(&pod, "a", &[("lattice.io/egres-allow", "")]));
    assert!(failure.message.contains("egres-allow"), "{failure}");
    // A pod network within the pool.
    run(&pod.netns, "ip route add 10.42.7.0/24 via 10.77.0.1");
    let failure = refused(&config, &world.spec(&pod, "a", &[]));
    assert!(failure.message.starts_with("netns: ") && failure.message.contains("10.42.7.0/24"), "{failure}");
    assert_eq!(pod.links(), ["lo", "eth0"]);
    let states = lattice_tests::remains::of(&world.node);
    assert!(states.is_empty(), "{states:?}");
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
