//! An uplink follows its host.

use std::fs;

use lattice_tests::{Host, Process, lab::wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::{Field, LIMIT, PORT, SERVER, serve};

/// A host that has no way out yet, gets one, and moves to another network.
#[test]
fn it_follows_the_host_to_another_network() {
    let mut field = Field::new();
    let second = field.lab.host();
    let link = |host: &Host, words: &str| {
        let words: Vec<&str> = words.split_whitespace().collect();
        let out = field.lab.on(host, "ip", &words);
        assert_eq!(out.code, 0, "ip {words:?}: {}", out.stderr);
    };
    lattice_overlay::link::add_veth(&field.runner.netns, "up1", &second.netns, "up1").expect("a pair");
    link(&second, &format!("addr add {SERVER}/32 dev lo"));
    for (host, ip) in [(&field.runner, "198.51.100.1/24"), (&second, "198.51.100.2/24")] {
        link(host, &format!("addr add {ip} dev up1"));
        link(host, "link set up1 up");
    }
    let _service = serve(&field.lab, &second, PORT);
    for (host, text) in [(&field.server, "first"), (&second, "second")] {
        fs::write(host.dir.join("who"), format!("by the {text}\n")).expect("a file");
    }
    link(&field.runner, "route del default");

    let mut command = field.start("a", &[&format!("tcp:{SERVER}/32:{PORT}")]);
    let script =
        format!("while :; do curl -sf -m 5 http://{SERVER}:{PORT}/who || echo refused $?; sleep 0.05; done");
    command.args(["--agent-binary", "/bin/sh", "--", "-c", &script]);
    let mut agent = Process::spawn(command, "a", field.lab.dir.path());
    agent.wait_for("refused 7\n", LIMIT);
    let expect = |words: &str, text: &str| {
        link(&field.runner, words);
        let (begun, seen) = (std::time::Instant::now(), agent.output().0.len());
        wait_until(LIMIT, text, || agent.output().0[seen..].lines().any(|line| line == text));
        println!("{text:?} {} ms after {words:?}", begun.elapsed().as_millis());
    };
    let first = format!("route replace default via {}", field.server.address);
    expect(&first, "by the first");
    expect("route replace default via 198.51.100.2", "by the second");
    expect(&first, "by the first");
    expect("route del default", "refused 7");
    let reasons = || -> Vec<String> {
        let text = fs::read_to_string(field.runner.dir.join("a/audit.jsonl")).expect("the records");
        // The last line may be half written.
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut reasons: Vec<String> = records
            .filter(|record| record["dstIP"] == SERVER)
            .filter_map(|record| record["reason"].as_str().map(str::to_owned))
            .collect();
        reasons.dedup();
        reasons
    };
    wait_until(LIMIT, "a refusal on record", || reasons().last().is_some_and(|reason| reason == "uplink"));
    expect("route replace default via 198.51.100.2", "by the second");
    let forwards = |link: &str| {
        field.on_runner("sysctl", &["-n", &format!("net.ipv4.conf.{link}.forwarding")]).trim() == "1"
    };
    assert!(forwards("up1") && !forwards("eth0"), "what led out before is closed again");

    assert_eq!(reasons(), ["uplink", "rule-allow", "uplink", "rule-allow"]);
    agent.signal(Signal::SIGTERM);
    agent.finish(LIMIT);
    assert!(!forwards("up1"));
    field.assert_clean();
}
