//! What stands in the way of an uplink is named, with what helps.

use std::fs;

use lattice_tests::{Lab, Process, agent, remains};
use serde_json::Value;

use crate::world::{Field, LIMIT, PORT, REFUSED, SERVER, after};

#[test]
fn without_nft_or_writable_sysctls_nothing_is_opened() {
    let field = Field::new();
    let nft = field.on_runner("sh", &["-c", "PATH=$PATH:/usr/sbin:/sbin command -v nft"]);
    let hide = format!("mount --bind /dev/null {}", nft.trim());
    let fixed = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys";
    // A rule that can only be outside is refused before a token is spent; for the other the map is needed.
    let (public, private) = ("203.0.113.7/32:443", "192.168.50.1/32:443");
    for (rule, setup, code, says) in [
        (public, hide.as_str(), 72, "apt-get install nftables"),
        (private, &hide, 72, "apt-get install nftables"),
        (public, fixed, 71, "forwarding to 1: Read-only file system"),
    ] {
        let mut command = field.start("a", &[rule]);
        command.args(["--agent-binary", "/bin/true"]);
        let out = field.finish(after(&command, setup));
        assert_eq!(out.code, code, "{}", out.stderr);
        let error = out.stderr.lines().find(|line| line.starts_with("error:")).unwrap_or_default();
        assert!(error.contains(says), "{}", out.stderr);
        assert!(!out.stderr.contains("could not undo"), "{}", out.stderr);
        let spent = field.runner.dir.join("a/etc").exists();
        assert_eq!(spent, !(rule == public && setup == hide), "{}", out.stderr);
        field.assert_clean();
    }
}

#[test]
fn a_firewall_that_would_drop_it_is_named_with_what_helps() {
    let field = Field::new();
    let drop = "add table inet mine; add chain inet mine onward { type filter hook forward priority 0; policy drop; }";
    field.on_runner("nft", &[drop]);
    let rule = format!("{SERVER}/32:{PORT}");
    let probes = [format!("http:{SERVER}:{PORT}")];
    let (attempts, out) = field.probe("a", &[&rule], &probes);
    assert_ne!(attempts[0].result, "ok");
    let warning = out.stderr.lines().find(|line| line.starts_with("warning:")).unwrap_or_default();
    assert!(warning.contains("nft list chain inet mine onward"), "{}", out.stderr);
    let (_, remedy) = warning.split_once("to allow it: ").expect("a remedy");
    for command in remedy.split("; ") {
        field.on_runner("sh", &["-c", &command.replace('"', "\\\"")]);
    }
    let (attempts, out) = field.probe("a", &[&rule], &probes);
    assert!(attempts[0].result == "ok" && !out.stderr.contains("warning:"), "{attempts:?} {}", out.stderr);
    field.on_runner("nft", &["delete table inet mine"]);
    field.assert_clean();
}

#[test]
fn a_rule_that_this_host_has_no_route_for_is_accepted_with_a_warning() {
    let mut lab = Lab::start();
    let host = lab.host();
    let rules = ["203.0.113.7/32:443", "10.42.0.9/32:80", "tcp:[2001:db8::1]:443"];
    let mut command = agent::start(&lab, &host, "agent", &rules);
    let probes = ["tcp:203.0.113.7:443", "tcp:203.0.113.8:443", "tcp:[2001:db8::1]:443"];
    command.args(["--agent-binary", "/usr/local/bin/demo-agent", "--"]).args(probes);
    let out = Process::spawn(command, "agent", lab.dir.path()).finish(LIMIT);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let warnings: Vec<&str> = out.stderr.lines().filter(|line| line.starts_with("warning:")).collect();
    assert_eq!(warnings.len(), 2, "{}", out.stderr);
    assert!(
        warnings[0].contains("--egress-allow 203.0.113.7/32:443: this host has no route"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("--egress-allow tcp:[2001:db8::1]:443: this host has no"), "{warnings:?}");
    let attempts = agent::attempts(&out.stdout);
    assert!(attempts.iter().all(|attempt| REFUSED.contains(&attempt.result.as_str())), "{attempts:?}");
    let text = fs::read_to_string(host.dir.join("audit.jsonl")).expect("the records");
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    let about = |ip: &str| records.iter().find(|record| record["dstIP"] == ip).expect("a record");
    for (ip, reason, rule) in [
        ("203.0.113.7", "uplink", "203.0.113.7/32 (this host has no route to it)"),
        ("2001:db8::1", "uplink", "2001:db8::1/128 (this host has no route to it)"),
        ("203.0.113.8", "default-deny", ""),
    ] {
        let record = about(ip);
        assert_eq!((&record["action"], &record["reason"]), (&"deny".into(), &reason.into()), "{record}");
        assert_eq!(record["rule"].as_str().unwrap_or_default(), rule, "{record}");
    }
    remains::assert_none(&host);
}
