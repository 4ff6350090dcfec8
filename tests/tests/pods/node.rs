//! What a node serves to its own pods: nothing, unless it names an address of its own.

use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    time::Duration,
};

use crate::world::{LIMIT, SERVICE, World, connect, left, run, wait_for};

#[test]
fn a_wide_rule_does_not_open_the_node_itself() {
    is_closed_node("ebpf");
    is_closed_node("nftables");
}

fn is_closed_node(enforcer: &'static str) {
    let mut world = World::by(enforcer);
    let (pod, asking) = (world.pod(), world.pod());
    world.add_ipv6(&pod);
    let listen = |port: u16| world.node.netns.run(|| TcpListener::bind(("::", port))).unwrap().unwrap();
    // kubelet's, and one that the node opens.
    let _listeners = [listen(10250), listen(9100)];
    let allow = "egress_allow = [\"0.0.0.0/0\", \"::/0\", \"tcp:10.77.0.1/32:9100\"]\negress_default = [\"0.0.0.0/0\", \"::/0\"]";
    // Whoever forwards IPv6 answers at the first address of each of its networks, too.
    run(&world.node.netns, "sysctl -qw net.ipv6.conf.all.forwarding=1");
    run(&world.node.netns, "ip addr add fd77:0:0:1::1/64 dev pod2 nodad");
    let heard = world.node.netns.run(|| UdpSocket::bind("[::]:7001")).unwrap().unwrap();
    let tell = || {
        let told = pod.netns.run(|| UdpSocket::bind("[::]:0")?.send_to(&[7], "[fd77:0:0:1::]:7001")).unwrap();
        heard.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        told.is_ok() && heard.recv(&mut [0; 8]).is_ok()
    };
    // Neighbour discovery takes its time on new links.
    wait_for("the address to answer without a policy", tell);
    let network = world.start(&world.config(allow), &world.spec(&pod, "agent", &[])).unwrap();
    // What was told before may have come late.
    heard.set_nonblocking(true).unwrap();
    while heard.recv(&mut [0; 8]).is_ok() {}
    heard.set_nonblocking(false).unwrap();
    assert!(!tell(), "the anycast address of routers");
    let underlay = world.node.address.to_string();
    for own in ["10.77.0.1", &underlay, "fd77::1"] {
        assert!(pod.is_refused(own, 10250), "{own}: an address of the node's");
    }
    assert!(pod.fetches(&format!("http://{SERVICE}/")), "what is beyond the node");
    let at = "10.77.0.1".parse::<Ipv4Addr>().unwrap();
    assert!(World::reaches(&pod.netns, at, 9100), "the node names its own address, and this port");
    assert!(pod.is_refused(&underlay, 9100), "it names another");

    // One that the node gets later.
    run(&world.node.netns, "ip addr add 203.0.113.77/32 dev lo");
    wait_for("the node's new address to be closed", || {
        connect(&pod.netns, ([203, 0, 113, 77], 10250).into(), LIMIT).is_err()
    });
    let file = world.dir().join(format!("audit/{}.jsonl", network.peer()));
    assert_eq!(network.stop(), Vec::<String>::new());
    let text = std::fs::read_to_string(file).unwrap();
    let told = |line: &str| {
        ["10.77.0.1", "\"dstPort\":10250,", "\"reason\":\"uplink\""].iter().all(|word| line.contains(word))
    };
    assert!(text.lines().any(told), "{text}");

    // The pod's own word is not the node's.
    let rules = format!("10.77.0.1/32 {underlay}/32");
    let spec = world.spec(&asking, "asking", &[("lattice.io/egress-allow", &rules)]);
    let network = world.start(&world.config(allow), &spec).unwrap();
    for own in ["10.77.0.1", &underlay] {
        assert!(asking.is_refused(own, 10250), "{own}: the annotation names it, and the node does not");
    }
    assert!(World::reaches(&asking.netns, at, 9100));
    assert_eq!(network.stop(), Vec::<String>::new());
    assert_eq!(left(&world), Vec::<String>::new());
}
