//! A rule for everything opens neither the host nor who else is on it.

use std::fs;

use lattice_tests::lab::wait_until;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::{Field, LIMIT, NEIGHBOUR, PORT, REFUSED, SERVER, has_ipv6, serve};

#[test]
fn a_wide_rule_reaches_no_host_no_other_agent_and_no_metadata() {
    let field = Field::new();
    let _service = serve(&field.lab, &field.runner, 8080);
    let wide = ["0.0.0.0/0", "::/0"];
    let other = field.visitor("other", &wide);
    let listed = field.on_runner("ip", &["-4", "-o", "addr"]);
    let line = listed.lines().find(|line| line.contains("lattice-")).expect("the other's link");
    let outside = line.split_whitespace().nth(3).unwrap().split('/').next().unwrap();
    let inside = std::net::Ipv4Addr::from(u32::from(outside.parse::<std::net::Ipv4Addr>().unwrap()) + 1);
    let [a, b, c, _] = field.runner.address.octets();
    let refused: Vec<String> = [
        format!("tcp:{}:8080", field.runner.address),
        format!("udp:{}:8080", field.runner.address),
        format!("udp:{a}.{b}.{c}.255:8080"),
        "tcp:[2001:db8:50::2]:8080".into(),
        format!("tcp:{outside}:8080"),
        format!("tcp:{inside}:8080"),
        "tcp:169.254.169.254:80".into(),
        "tcp:[fd00:ec2::254]:80".into(),
        "tcp:[64:ff9b::a9fe:a9fe]:80".into(),
    ]
    .into_iter()
    .filter(|probe| has_ipv6() || !probe.contains("2001:"))
    .collect();
    let mut probes = vec![format!("http:{SERVER}:{PORT}"), format!("http:{NEIGHBOUR}:{PORT}")];
    probes.extend(refused.iter().cloned());
    let (attempts, _) = field.probe("a", &wide, &probes);
    for attempt in &attempts {
        let refused = refused.contains(&attempt.probe);
        assert_eq!(refused, REFUSED.contains(&attempt.result.as_str()), "{attempt:?}");
        assert_eq!(!refused, attempt.result == "ok", "{attempt:?}");
    }
    assert_eq!(attempts.len(), probes.len());
    let records = field.records("a");
    for target in &refused {
        let (host, _) = target.split_once(':').unwrap().1.rsplit_once(':').unwrap();
        let host = host.trim_matches(['[', ']']);
        let about: Vec<_> = records.iter().filter(|record| record["dstIP"] == host).collect();
        let is_metadata = ["169.254.", "fd00:ec2:", "64:ff9b:"].iter().any(|net| host.starts_with(net));
        let reason = if is_metadata { "rule-deny" } else { "uplink" };
        let denied = about.iter().all(|record| record["action"] == "deny" && record["reason"] == reason);
        assert!(denied && !about.is_empty(), "{target}: {about:#?}");
    }
    // The one's end leaves the other its way out, and neither its coming nor its going changed the other's policy: that cuts flows.
    let visits = || other.output().0.lines().count();
    let seen = visits();
    wait_until(LIMIT, "more visits", || visits() > seen + 3);
    let file = field.runner.dir.join("other/audit.jsonl");
    let records = || -> Vec<Value> {
        // The last line may be half written.
        let lines = fs::read_to_string(&file).expect("the records");
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let visits_of: Vec<Value> = records().into_iter().filter(|record| record["dstIP"] == SERVER).collect();
    assert!(
        visits_of.iter().all(|record| record["generation"] == visits_of[0]["generation"]),
        "{visits_of:#?}"
    );
    // An address that the host gets is the host's from then on, for who was allowed to go there before.
    field.on_runner("ip", &["addr", "add", &format!("{SERVER}/32"), "dev", "lo"]);
    wait_until(LIMIT, "a refusal on record", || {
        records().iter().any(|record| record["dstIP"] == SERVER && record["reason"] == "uplink")
    });
    field.on_runner("ip", &["addr", "del", &format!("{SERVER}/32"), "dev", "lo"]);
    other.signal(Signal::SIGTERM);
    other.finish(LIMIT);
    field.assert_clean();
}
