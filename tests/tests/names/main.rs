//! Rules by name, from the agent's resolver to the packet: what a rule means is reached, nothing beside it, and nobody else
//! is told what was asked.

mod pins;
mod world;

use std::path::Path;

use lattice_tests::{Prober, remains};
use world::{NEIGHBOUR, REFUSED, SERVER, SERVER_6, World};

/// Enforcers that let an agent out of the overlay.
const ENFORCERS: [[&str; 2]; 2] = [["--enforcer", "ebpf"], ["--enforcer", "nftables"]];
const NO_NAME: &str = "curl 6";

#[test]
fn an_allowed_name_is_reached_and_nothing_beside_it() {
    let world = World::new();
    for enforcer in ENFORCERS {
        let server = format!("tcp:{SERVER}:80");
        let [neighbour, port, udp_port] =
            [format!("tcp:{NEIGHBOUR}:80"), format!("tcp:{SERVER}:8080"), format!("tcp:{SERVER}:53")];
        let expected = [
            ("tcp:23.20.0.7:443", REFUSED),
            ("curl:http://api.example.com/", "ok"),
            ("curl:http://API.Example.COM.:443/", "ok"),
            (server.as_str(), "ok"),
            ("curl:http://api.example.com:8080/", "curl 7"),
            ("curl:http://other.example.com/", NO_NAME),
            ("curl:http://example.com/", NO_NAME),
            ("udp:TXT:api.example.com", "REFUSED"),
            ("udp:MX:api.example.com", "REFUSED"),
            ("udp:ANY:api.example.com", "REFUSED"),
            ("udp:HTTPS:api.example.com", "NOERROR"),
            ("udp:A:x.api.example.com", "REFUSED"),
            (&neighbour, REFUSED),
            (&port, REFUSED),
            (&udp_port, REFUSED),
        ];
        let probes: Vec<&str> = expected.iter().map(|(probe, _)| *probe).collect();
        let run = world.run(&enforcer, &["api.example.com:443", "api.example.com:80"], &probes);
        run.assert_results(&expected);
        assert_eq!(run.attempt("curl:http://api.example.com/").detail, format!("hello from {SERVER}"));
        assert_eq!(run.attempt("udp:HTTPS:api.example.com").detail, 0, "an address that nobody pinned");

        // Only the permitted name left the host, and only by its addresses.
        for query in &run.queries {
            assert!(["api.example.com A", "api.example.com AAAA"].contains(&query.as_str()), "{query}");
        }
        let allows = run.records.iter().filter(|record| record["action"] == "allow");
        let mut by: Vec<String> = allows
            .map(|r| format!("{}:{} {}", r["dstIP"], r["dstPort"], r["rule"]).replace('"', ""))
            .collect();
        by.sort();
        by.dedup();
        let rule = |port: u16| format!("{SERVER}:{port} api.example.com:{port}");
        assert_eq!(by, [rule(443), rule(80)], "{enforcer:?}");
        for name in ["other.example.com", "example.com", "x.api.example.com", "api.example.com TXT"] {
            assert!(run.denied("name", name).is_some(), "{name}: {:#?}", run.records);
        }
        for port in [443, 8080, 53] {
            let denied =
                |r: &&serde_json::Value| r["dstPort"] == port && r["action"] == "deny" && r["proto"] == "tcp";
            let found = run.records.iter().find(denied);
            assert!(found.is_some_and(|record| record["dstIP"] == SERVER), "{port}: {:#?}", run.records);
        }
        remains::assert_none(&world.runner);
    }
}

#[test]
fn a_wildcard_means_what_is_below_it_through_aliases_and_in_both_families() {
    let world = World::new();
    let v6 = if Path::new("/proc/sys/net/ipv6/conf/lo/force_forwarding").exists() {
        "ok"
    } else {
        println!("SKIPPED: IPv6 uplinks: this kernel has no force_forwarding (Linux 6.17)");
        "curl 7"
    };
    let long = format!("udp:A:{}.{}.{}.example.com", "a".repeat(60), "b".repeat(60), "c".repeat(60));
    let expected = [
        ("curl:http://sub.example.com/", "ok"),
        ("curl:http://deep.sub.example.com/", "ok"),
        ("curl:http://SUB.Example.com./", "ok"),
        ("curl:http://xn--bcher-kva.example.com/", "ok"),
        ("curl:http://v6.example.com/", v6),
        ("name:v6.example.com", "ok"),
        ("curl:http://alias.example.com/", "ok"),
        ("curl:http://cdn.example.net/", NO_NAME),
        ("curl:http://middle.example.net/", NO_NAME),
        ("curl:http://example.com/", NO_NAME),
        ("curl:http://evilexample.com/", NO_NAME),
        ("curl:http://example.com.evil.net/", NO_NAME),
        ("udp:A:com", "REFUSED"),
        (&long, "REFUSED"),
        ("curl:http://sub.example.com:443/", "curl 7"),
    ];
    let probes: Vec<&str> = expected.iter().map(|(probe, _)| *probe).collect();
    let run = world.run(&[], &["*.example.com:80"], &probes);
    run.assert_results(&expected);
    assert_eq!(run.attempt("name:v6.example.com").detail, serde_json::json!([SERVER_6]));
    assert_eq!(run.attempt("curl:http://alias.example.com/").detail, format!("hello from {NEIGHBOUR}"));
    let told: Vec<&String> = run
        .queries
        .iter()
        .filter(|query| query.split(' ').next().is_none_or(|name| !name.ends_with(".example.com")))
        .collect();
    assert!(told.is_empty(), "{told:?}");
    assert!(!run.queries.iter().any(|query| query.starts_with("aaaa")), "{:?}", run.queries);
    remains::assert_none(&world.runner);
}

#[test]
fn a_name_opens_no_address_that_is_not_public() {
    let world = World::new();
    let closed = [
        ("metadata.example.com", "A", "169.254.169.254"),
        ("loopback.example.com", "A", "127.0.0.1"),
        ("loopback.example.com", "AAAA", "::1"),
        ("peer.example.com", "A", "10.42.0.77"),
        ("hub.example.com", "A", "192.168.50.1"),
        ("own.example.com", "A", "23.20.0.99"),
        // Records write a mapped address as the one that is meant.
        ("mapped.example.com", "AAAA", SERVER),
        ("nat64.example.com", "AAAA", "64:ff9b::a9fe:a9fe"),
    ];
    let questions: Vec<String> = closed.iter().map(|(name, kind, _)| format!("udp:{kind}:{name}")).collect();
    let mut probes: Vec<&str> = questions.iter().map(String::as_str).collect();
    let others = [
        "name:mixed.example.com",
        "tcp:192.168.50.1:8080",
        "tcp:169.254.169.254:80",
        "tcp:10.42.0.77:80",
        "tcp:23.20.0.99:80",
    ];
    probes.extend(others);
    for enforcer in ENFORCERS {
        let run = world.run(&enforcer, &["*.example.com"], &probes);
        assert_eq!(run.out.code, 0, "{}", run.out.stderr);
        for ((name, kind, address), question) in closed.iter().zip(&questions) {
            assert_eq!(run.result(question), "REFUSED", "{name} {kind}");
            let on_record = run.records.iter().any(|record| {
                record["reason"] == "answer" && record["name"] == *name && record["dstIP"] == *address
            });
            assert!(on_record, "{name} {address}: {:#?}", run.records);
        }
        // Of two addresses, the agent is told the one that it may use.
        assert_eq!(run.attempt("name:mixed.example.com").detail, serde_json::json!([SERVER]));
        for refused in &others[1..] {
            assert_eq!(run.result(refused), REFUSED, "{refused}");
        }

        // A rule by address is another matter: that one is told, and nothing else of it is open.
        let rules = ["*.example.com", "tcp:192.168.50.1/32:8080", "10.42.0.77/32:80"];
        let probes = [
            "udp:A:hub.example.com",
            "udp:A:peer.example.com",
            "udp:A:metadata.example.com",
            "tcp:192.168.50.1:8080",
            "tcp:192.168.50.1:4222",
        ];
        let run = world.run(&enforcer, &rules, &probes);
        let results: Vec<&str> = probes.iter().map(|probe| run.result(probe)).collect();
        // What is reached there is the host's, of which an uplink shows no agent anything.
        assert_eq!(results[..3], ["NOERROR", "NOERROR", "REFUSED"], "{}", run.out.stderr);
        assert_eq!(results[4], REFUSED);
        remains::assert_none(&world.runner);
    }
}

#[test]
fn names_of_peers_stand_beside_names_of_the_internet_and_both_are_asked_by_tcp_too() {
    let mut world = World::new();
    let tool = world.lab.host();
    let (_node, ip) = world.lab.up(&tool, "tool");
    let _service = world.lab.serve_http(&tool, 8080);
    let expected = [
        ("curl:http://tool.lattice:8080/", "ok"),
        ("curl:http://tool.demo.lattice:8080/", "ok"),
        ("curl:http://tool:8080/", "ok"),
        ("curl:http://tool.lattice/", "curl 7"),
        ("curl:http://api.example.com/", "ok"),
        ("dns-tcp:A:api.example.com", "NOERROR"),
        ("dns-tcp:A:tool.lattice", "NOERROR"),
        ("dns-tcp:A:nobody.lattice", "NXDOMAIN"),
        ("dns-tcp:A:tool.other.lattice", "NXDOMAIN"),
        ("dns-tcp:A:other.example.com", "REFUSED"),
        ("udp:A:many.example.com", "NOERROR truncated"),
        ("name:many.example.com", "ok"),
        ("name:tool.lattice.example.com", "no name"),
    ];
    let probes: Vec<&str> = expected.iter().map(|(probe, _)| *probe).collect();
    let tool_rule = format!("{ip}/32:8080");
    let run = world.run(&[], &[&tool_rule, "api.example.com:80", "many.example.com:80"], &probes);
    run.assert_results(&expected);
    assert_eq!(run.attempt("name:many.example.com").detail.as_array().map(Vec::len), Some(32));
    assert!(run.queries.iter().all(|query| !query.contains("lattice")), "{:?}", run.queries);
    let by_tcp = run.denied("name", "other.example.com").expect("a record");
    assert_eq!((by_tcp["proto"].as_str(), by_tcp["dstPort"].as_u64()), (Some("tcp"), Some(53)));
    remains::assert_none(&world.runner);
}

#[test]
fn the_control_plane_narrows_and_denies_names_of_a_running_sandbox() {
    let world = World::new();
    let [api, other, sub] = ["api.example.com:80", "other.example.com:80", "sub.example.com:80"];
    let policy = |args: &[&str]| {
        let (verb, rest) = args.split_first().unwrap();
        world.lab.admin(&[&["policy", verb], rest, &["--workspace", "demo"]].concat());
    };
    let open = ["add", "open", "--selector", "kind=sandbox", "--allow-egress", "tcp:*.example.com:80"];
    let web = ["add", "web", "--selector", "kind=sandbox", "--allow-egress", "tcp:other.example.com:80"];
    let freeze = ["add", "freeze", "--selector", "name=agent", "--deny-egress"];
    for enforcer in ENFORCERS {
        let (asked, _none) = (world.queries().len(), std::fs::remove_file(world.audit()));
        policy(&open);
        policy(&[&freeze[..], &["sub.example.com"]].concat());
        let start = world.start(&enforcer, &["*.example.com:80"]);
        let mut agent = Prober::run(start, &world.lab, "agent", &[api.into(), other.into(), sub.into()]);
        agent.await_results("all but one are reached", &[(api, "ok"), (other, "ok"), (sub, "no")]);
        policy(&web);
        policy(&["remove", "open"]);
        agent.await_results("one is left", &[(api, "no"), (other, "ok"), (sub, "no")]);
        let about_sub = || world.queries()[asked..].iter().any(|query| query.starts_with("sub."));
        assert!(!about_sub(), "{:?}", world.queries());

        policy(&["remove", "freeze"]);
        policy(&open);
        agent.await_results("all are open", &[(api, "ok"), (other, "ok"), (sub, "ok")]);
        assert!(about_sub(), "else this test proves nothing");
        policy(&[&freeze[..], &["other.example.com"]].concat());
        agent.await_results("deny wins", &[(api, "ok"), (other, "no"), (sub, "ok")]);
        for name in ["freeze", "web", "open"] {
            policy(&["remove", name]);
        }
        agent.await_results("the flags alone hold", &[(api, "ok"), (other, "ok"), (sub, "ok")]);

        let records = world.records();
        let refused = |name: &str, rule: &str| {
            records.iter().any(|record| {
                record["reason"] == "name"
                    && record["name"] == name
                    && record["rule"].as_str().unwrap_or_default().contains(rule)
            })
        };
        assert!(refused("sub.example.com", "policy freeze"), "{records:#?}");
        assert!(refused("other.example.com", "policy freeze"), "{records:#?}");
        assert!(refused("api.example.com", ""), "{records:#?}");
        agent.end(&world.runner);
    }
}

#[test]
fn without_an_uplink_a_rule_by_name_is_refused() {
    let world = World::new();
    let run = world.run(&["--enforcer", "userspace"], &["api.example.com:80"], &["udp:A:api.example.com"]);
    assert_ne!(run.out.code, 0);
    assert!(run.out.stderr.contains("take --enforcer ebpf or nftables"), "{}", run.out.stderr);
    assert_eq!(run.queries, Vec::<String>::new());
    // The token is not spent on it.
    assert!(!run.out.stderr.contains("enrolled"), "{}", run.out.stderr);
    assert!(!world.runner.dir.join("etc/sandbox-credentials.json").exists());
    remains::assert_none(&world.runner);
}
