//! What a policy names is reached, by name and by address; everything else is refused at once, in the client's own protocol, and on record.

use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::{
    client::{Client, get},
    services::{ANSWER, HELLO, NAMESERVER, UDP_ECHO},
    world::{CLOSED_PAGE, PAGE, UID, World},
};

/// REP of SOCKS: not allowed; nothing listens.
pub(crate) const DENIED: u8 = 2;
const REFUSED: u8 = 5;
/// Exit codes of curl: no tunnel; refused by SOCKS.
const NO_TUNNEL: i32 = 56;
const NO_SOCKS: i32 = 97;

#[test]
fn names_and_addresses_are_judged_alike_by_both_protocols() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let (far, proxy) = (world.far_ip.to_string(), pod.proxy());
    assert!(proxy.ip().is_loopback() && proxy.port() != 0, "{proxy}");
    let rule = format!("{far}/32:{PAGE}");
    for scheme in ["socks5h", "http"] {
        let via = format!("{scheme}://{proxy}");
        for host in [far.as_str(), "far", "far.lattice", "FAR.demo.lattice."] {
            let out = world.curl(&user, &via, &format!("http://{host}:{PAGE}/"));
            assert_eq!((out.code, out.stdout.as_str()), (0, HELLO), "{via} {host}: {}", out.stderr);
        }
        for target in
            [format!("{far}:{CLOSED_PAGE}"), format!("far.lattice:{CLOSED_PAGE}"), "example.com:80".into()]
        {
            let out = world.curl(&user, &via, &format!("http://{target}/"));
            if scheme == "http" {
                assert_eq!(out.code, NO_TUNNEL, "{target}: {}", out.stderr);
                assert!(out.stderr.contains("403"), "{target}: {}", out.stderr);
            } else {
                assert_eq!(out.code, NO_SOCKS, "{target}: {}", out.stderr);
                assert!(out.stderr.contains("(2)"), "{target}: {}", out.stderr);
            }
        }
    }
    let client = world.client(&pod);
    for (target, error, says) in [
        (format!("{far}:{CLOSED_PAGE}"), "destination_ip_prohibited", "default-deny"),
        ("example.com:80".into(), "http_request_denied", "name"),
    ] {
        let answer = client.http_connect(&target);
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
        assert!(answer.contains(error) && answer.contains(&format!("lattice: {target}: ")), "{answer}");
        assert!(answer.contains(says), "{answer}");
    }
    assert_eq!(client.reply(&far, 7001), REFUSED, "allowed, but nothing listens");
    assert_eq!(client.reply("nobody.lattice", PAGE), 4, "no such peer");
    assert!(client.http_connect("nobody.lattice:80").contains("dns_error"));
    assert_ne!(client.reply("10.42.77.77", PAGE), 0, "nobody has that address");

    let to = |record: &Value, ip: &str, port: u16| record["dstIP"] == ip && record["dstPort"] == port;
    let allowed = pod.record("the allowed page", |r| to(r, &far, PAGE) && r["action"] == "allow");
    assert_eq!(
        (&allowed["rule"], &allowed["reason"]),
        (&Value::from(rule), &"rule-allow".into()),
        "{allowed}"
    );
    assert_eq!((&allowed["class"], &allowed["agent"]), (&"cooperative".into(), &"agent".into()), "{allowed}");
    assert_eq!(
        (&allowed["direction"], &allowed["srcIP"]),
        (&"egress".into(), &pod.address.to_string().into())
    );
    let denied = pod.record("the closed page", |r| to(r, &far, CLOSED_PAGE));
    assert_eq!((&denied["action"], &denied["reason"]), (&"deny".into(), &"default-deny".into()), "{denied}");
    assert_eq!((&denied["rule"], &denied["proto"]), (&Value::Null, &"tcp".into()), "{denied}");
    let name = pod.record("the name", |r| r["name"] == "example.com");
    assert_eq!((&name["action"], &name["reason"]), (&"deny".into(), &"name".into()), "{name}");
    assert!(!pod.records().iter().any(|r| to(r, &far, CLOSED_PAGE) && r["action"] == "allow"));

    let audit = user.dir.join("audit.jsonl");
    pod.end();
    let verified = world.lab.run(&world.near, &["audit", "verify", &audit.display().to_string()]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
}

#[test]
fn whoever_has_no_credentials_cannot_borrow_the_identity() {
    const SECRET: &str = "merlin:correct-horse-battery";
    let world = World::new();
    let user = world.user("agent");
    let file = user.file("proxy-auth", &format!("{SECRET}\n"));
    let pod = world.pod(&user, "agent", &["--proxy-auth-file", &file.display().to_string()]);
    let proxy = pod.proxy();
    let other = lattice_tests::User::new(&world.lab, &world.near, UID + 1, "other");
    let url = format!("http://{}:{PAGE}/", world.far_ip);
    let before = world.services.seen.connections.load(Ordering::Relaxed);
    for user in [&user, &other] {
        for wrong in ["", "merlin:wrong-horse-battery@", "mordred:correct-horse-battery@", "merlin:@"] {
            for (scheme, code) in [("socks5h", NO_SOCKS), ("http", NO_TUNNEL)] {
                let out = world.curl(user, &format!("{scheme}://{wrong}{proxy}"), &url);
                assert_eq!(out.code, code, "{scheme} {wrong:?}: {}{}", out.stdout, out.stderr);
                assert!(scheme == "socks5h" || out.stderr.contains("407"), "{}", out.stderr);
            }
        }
        assert_eq!(world.agent(user, "cat", &[&file.display().to_string()]).code, i32::from(user.id != UID));
    }
    assert_eq!(world.services.seen.connections.load(Ordering::Relaxed), before, "nobody came through");
    assert!(pod.records().iter().all(|record| record["dstPort"] != PAGE), "nothing was even judged");
    for scheme in ["socks5h", "http"] {
        let out = world.curl(&user, &format!("{scheme}://{SECRET}@{proxy}"), &url);
        assert_eq!((out.code, out.stdout.as_str()), (0, HELLO), "{}", out.stderr);
    }
    let bearer = "Proxy-Authorization: Bearer correct-horse-battery";
    let out = world.agent(
        &user,
        "curl",
        &["-sS", "-m", "20", "-p", "-x", &format!("http://{proxy}"), "--proxy-header", bearer, &url],
    );
    assert_eq!((out.code, out.stdout.as_str()), (0, HELLO), "{}", out.stderr);
    // Neither its arguments nor what it says carry the secret.
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", pod.process.pid())).unwrap();
    assert!(
        !arguments.contains("horse") && !lattice_tests::unprivileged::said(&pod.process).contains("horse")
    );
    pod.end();
}

#[test]
fn datagrams_go_by_an_association_and_each_is_judged() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let client: Client<'_> = world.client(&pod);
    let association = client.associate();
    let far = world.far_ip.to_string();
    for host in [far.as_str(), "far.lattice"] {
        let (from, answer) = association.call(host, UDP_ECHO, b"hello");
        assert_eq!((from, answer.as_slice()), ((world.far_ip, UDP_ECHO).into(), &b"hello"[..]), "{host}");
    }
    // A question for the address of example.com, as a resolver asks a peer.
    let question = b"\x2a\x2a\x01\0\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01";
    let (from, answer) = association.call(&far, NAMESERVER, question);
    assert_eq!(from.port(), NAMESERVER);
    assert!(answer.starts_with(b"\x2a\x2a\x81\x80\0\x01\0\x01") && answer.ends_with(&ANSWER), "{answer:?}");

    while association.receive().is_some() {}
    association.send(&far, 5353, b"not allowed");
    association.send("example.com", 53, b"not allowed");
    association.send("127.0.0.1", 53, b"not allowed");
    let denied = pod.record("the datagram", |r| r["dstPort"] == 5353);
    assert_eq!((&denied["action"], &denied["proto"]), (&"deny".into(), &"udp".into()), "{denied}");
    assert_eq!(association.receive(), None);
    // Still of use after what was refused, and beside a second one.
    let second = client.associate();
    assert_eq!(second.call(&far, UDP_ECHO, b"two").1, b"two");
    assert_eq!(association.call(&far, UDP_ECHO, b"one").1, b"one");
    assert_eq!(association.receive(), None, "no answer of another's");
    assert_eq!(get(client.reach(&far, PAGE), "/"), HELLO);
    pod.end();
}
