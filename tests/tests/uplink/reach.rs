//! What a rule names is reached, from the uplink's address alone, and nothing beside it.

use lattice_tests::{Attempt, Sniffer, agent};
use serde_json::Value;

use crate::world::{Field, NEIGHBOUR, PORT, REFUSED, SERVER, SERVER_6, has_ipv6};

#[test]
fn a_rule_outside_the_overlay_is_reached_and_nothing_beside_it() {
    let field = Field::new();
    let mut allowed = vec![format!("http:{SERVER}:{PORT}")];
    if has_ipv6() {
        allowed.push(format!("http:[{SERVER_6}]:{PORT}"));
    }
    let denied = [
        format!("tcp:{SERVER}:{}", PORT + 1),
        format!("tcp:{NEIGHBOUR}:{PORT}"),
        format!("udp:{SERVER}:{PORT}"),
        format!("tcp:{}:{PORT}", field.server.address),
        format!("tcp:{}:22", field.runner.address),
        format!("tcp:[{SERVER_6}]:{}", PORT + 1),
        "tcp:10.42.77.77:80".into(),
        "tcp:169.254.169.254:80".into(),
    ];
    let rules = [format!("tcp:{SERVER}/32:{PORT}"), format!("tcp:[{SERVER_6}/128]:{PORT}")];
    let probes: Vec<String> = allowed.iter().chain(&denied).cloned().collect();
    let (attempts, out) = field.probe("a", &[&rules[0], &rules[1]], &probes);
    for attempt in &attempts {
        if allowed.contains(&attempt.probe) {
            assert_eq!(attempt.result, "ok", "{attempt:?}\n{}", out.stderr);
        } else {
            assert!(REFUSED.contains(&attempt.result.as_str()), "at once, not hung: {attempt:?}");
        }
    }
    assert_eq!(attempts.len(), probes.len());

    let records = field.records("a");
    for target in &denied {
        let (host, port) = target.split_once(':').unwrap().1.rsplit_once(':').unwrap();
        let host = host.trim_matches(['[', ']']);
        let found = records.iter().any(|record| {
            record["dstIP"] == host
                && record["dstPort"].as_u64() == port.parse().ok()
                && record["action"] == "deny"
        });
        assert!(found, "no record of {target}: {records:#?}");
    }
    let allows = records.iter().filter(|record| record["action"] == "allow");
    let mut by: Vec<&str> = allows.map(|record| record["rule"].as_str().unwrap()).collect();
    by.sort_unstable();
    by.dedup();
    assert_eq!(by, rules.iter().take(allowed.len()).collect::<Vec<_>>());
    // Nothing that the agent did not do: neither IGMP nor neighbour discovery of the link.
    let strange = records.iter().find(|record| record["reason"] == "multicast");
    assert_eq!(strange, None);
    field.assert_clean();
}

/// Connects from each of its two addresses to the server, then from that of the uplink to a peer.
const FROM_EACH_ADDRESS: &str = "
import errno, json, socket, sys
server, peer = (sys.argv[1], int(sys.argv[2])), ('10.42.77.77', 80)
def source(to):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect((to, 9))
        return asked.getsockname()[0]
uplink, overlay = source(server[0]), source(peer[0])
for by, own, to in ('uplink', uplink, server), ('overlay', overlay, server), ('to a peer', uplink, peer):
    try:
        socket.create_connection(to, 20, (own, 0)).close()
        result = 'ok'
    except OSError as error:
        result = errno.errorcode.get(error.errno, 'timeout')
    print(json.dumps({'probe': by, 'result': result, 'detail': own}))
";
/// Of no link of the runner's.
const OTHER: &str = "198.51.100.99";

#[test]
fn each_link_takes_packets_from_its_own_address_alone() {
    let field = Field::new();
    // The twin: where nobody minds, a host sends from any address that it has.
    field.on_runner("ip", &["addr", "add", &format!("{OTHER}/32"), "dev", "lo"]);
    let wire = Sniffer::start(&field.server.netns, |packet| packet.src.to_string() == OTHER);
    let url = format!("http://{SERVER}:{PORT}/");
    field.lab.on(&field.runner, "curl", &["-s", "-m", "1", "--interface", OTHER, &url]);
    assert!(!wire.finish().is_empty(), "the twin did not get through either");

    for enforcer in ["ebpf", "nftables"] {
        let (rule, of_peer) = (format!("tcp:{SERVER}/32:{PORT}"), "tcp:10.42.77.77/32:80");
        let mut command = field.start(enforcer, &[&rule, of_peer]);
        command.args(["--enforcer", enforcer]);
        command.args(["--agent-binary", "/usr/bin/python3", "--", "-c", FROM_EACH_ADDRESS, SERVER]);
        command.arg(PORT.to_string());
        let out = field.finish(command);
        assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
        let attempts = agent::attempts(&out.stdout);
        let [uplink, overlay, peer] = &attempts[..] else { panic!("{}", out.stdout) };
        assert_eq!(uplink.result, "ok", "{}", out.stderr);
        let records = field.records(enforcer);
        let about = |attempt: &Attempt, to: &str| {
            let ours = records.iter().find(|r| r["srcIP"] == attempt.detail && r["dstIP"] == to);
            ours.map(|record| [record["action"].clone(), record["reason"].clone()])
        };
        assert_eq!(about(uplink, SERVER), Some(["allow", "rule-allow"].map(Value::from)));
        for (attempt, to) in [(overlay, SERVER), (peer, "10.42.77.77")] {
            assert!(REFUSED.contains(&attempt.result.as_str()), "{enforcer}: at once, not hung: {attempt:?}");
            assert_eq!(
                about(attempt, to),
                Some(["deny", "spoofed"].map(Value::from)),
                "{enforcer}: {records:#?}"
            );
        }
    }
    field.on_runner("ip", &["addr", "del", &format!("{OTHER}/32"), "dev", "lo"]);
    field.assert_clean();
}
