//! The whole resolver in real network namespaces: an agent in one, a nameserver on `127.0.0.53:53` of another, and the
//! resolver between them. Needs root.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions marked #[test] as tests")]

mod inside;
mod lab;
mod upstream;

use std::{
    collections::HashSet,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, RecordType},
};
use lattice_dns::{
    Transport, Why,
    limits::{MAX_CONNECTIONS, TCP_PIPELINE, WILDCARD_NAMES},
};

use crate::lab::{AGENT, Lab, PATIENCE, addresses, query, read_framed};

const A: RecordType = RecordType::A;

fn v4(d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, d))
}

#[test]
fn permitted_names_are_resolved_and_pinned() {
    let lab = Lab::new();
    let reply = lab.udp(&query("Api.Example.com.", A));
    assert_eq!((reply.metadata.response_code, addresses(&reply)), (ResponseCode::NoError, vec![v4(1)]));
    assert!(reply.authorities.is_empty() && reply.additionals.is_empty() && reply.edns.is_none());
    assert_eq!(lab.gate.pinned(), [("api.example.com".to_owned(), vec![v4(1)])]);
    let seen = lab.upstream.seen();
    let [asked] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(asked.name.eq_ignore_ascii_case("api.example.com."), "{asked:?}");
    assert!(asked.additionals == 1 && asked.options == 0, "an OPT record and nothing in it: {asked:?}");
    let reply = lab.udp(&query("api.example.com.", RecordType::AAAA));
    assert_eq!(addresses(&reply), ["2001:db8::1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn overlay_names_are_answered_here() {
    let lab = Lab::new();
    assert_eq!(addresses(&lab.udp(&query("tool.lattice.", A))), [IpAddr::from([10, 42, 0, 2])]);
    assert_eq!(addresses(&lab.tcp(&query("tool.acme.lattice.", A))), [IpAddr::from([10, 42, 0, 2])]);
    lab.names.replace([("new".into(), vec![IpAddr::from([10, 42, 0, 9])])], Some("acme"), vec![]);
    assert_eq!(lab.udp(&query("tool.lattice.", A)).metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(addresses(&lab.udp(&query("new.lattice.", A))), [IpAddr::from([10, 42, 0, 9])]);
    let reply = lab.udp(&query("9.0.42.10.in-addr.arpa.", RecordType::PTR));
    assert_eq!(reply.answers[0].data.to_string(), "new.lattice.");
    assert_eq!(lab.resolver.counters().local, 5);
    assert!(lab.upstream.seen().is_empty());
}

#[test]
fn what_is_refused_never_reaches_the_nameserver() {
    let lab = Lab::new();
    let refused = [
        ("secret.evil.com.", A),
        ("denied.example.com.", A),
        ("api.example.com.", RecordType::TXT),
        ("api.example.com.", RecordType::ANY),
        ("8.8.8.8.in-addr.arpa.", RecordType::PTR),
        ("single.", A),
    ];
    for (name, kind) in refused {
        for reply in [lab.udp(&query(name, kind)), lab.tcp(&query(name, kind))] {
            assert_eq!(reply.metadata.response_code, ResponseCode::Refused, "{name} {kind}");
        }
    }
    assert_eq!(
        lab.udp(&query("api.example.com.", RecordType::HTTPS)).metadata.response_code,
        ResponseCode::NoError
    );
    // The nameserver answers in order: had it seen any of them, it would say so now.
    lab.udp(&query("api.example.com.", A));
    let seen: Vec<String> =
        lab.upstream.seen().into_iter().map(|asked| asked.name.to_ascii_lowercase()).collect();
    assert_eq!(seen, ["api.example.com."]);
    let refusals = lab.gate.refused();
    let first = &refusals[0];
    assert_eq!(
        (first.name.as_str(), first.qtype.as_str(), first.why),
        ("secret.evil.com", "A", Why::Unknown)
    );
    assert_eq!((first.transport, first.rule), (Transport::Udp, None));
    assert!(first.client.ip() == AGENT.ip() && first.client.port() != 0);
    let denied = refusals.iter().find(|refusal| refusal.why == Why::Denied).unwrap();
    assert_eq!(denied.rule, Some(9));
    assert_eq!(lab.resolver.counters().refused(Why::Type), 4);
}

#[test]
fn chains_are_flattened_and_strangers_in_the_answer_are_dropped() {
    let lab = Lab::new();
    let reply = lab.udp(&query("chain.example.com.", A));
    assert_eq!(addresses(&reply), [v4(7)]);
    let [record] = reply.answers.as_slice() else { panic!("{reply}") };
    assert_eq!(record.name.to_ascii(), "chain.example.com.");
    assert_eq!(lab.gate.pinned(), [("chain.example.com".to_owned(), vec![v4(7)])]);
}

#[test]
fn rebinding_is_filtered_by_the_gate() {
    let lab = Lab::new();
    assert_eq!(addresses(&lab.udp(&query("mixed.example.com.", A))), [v4(1)]);
    let reply = lab.udp(&query("rebind.example.com.", A));
    assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::Refused, 0));
    assert_eq!(lab.resolver.counters().refused(Why::Answer), 1);
}

#[test]
fn no_such_name_and_no_such_type_are_told_in_our_words() {
    let lab = Lab::new();
    for (name, code) in
        [("missing.example.com.", ResponseCode::NXDomain), ("empty.example.com.", ResponseCode::NoError)]
    {
        for _ in 0..2 {
            let reply = lab.udp(&query(name, A));
            assert_eq!(reply.metadata.response_code, code);
            assert!(reply.answers.is_empty() && reply.authorities.is_empty());
        }
    }
    assert_eq!(lab.upstream.seen().len(), 2, "remembered");
}

#[test]
fn a_truncated_answer_is_fetched_by_tcp() {
    let lab = Lab::new();
    let reply = lab.udp(&query("big.example.com.", A));
    assert_eq!(addresses(&reply).len(), 25);
    let how: Vec<Transport> = lab.upstream.seen().into_iter().map(|asked| asked.transport).collect();
    assert_eq!(how, [Transport::Udp, Transport::Tcp]);
}

#[test]
fn what_is_too_large_for_the_agent_is_truncated_and_whole_by_tcp() {
    let lab = Lab::new();
    let many = (0..60).map(|i| IpAddr::from([10, 42, 1, i])).collect();
    lab.names.replace([("many".into(), many)], None, vec![]);
    let reply = lab.udp(&query("many.lattice.", A));
    assert!(reply.metadata.truncation && reply.answers.is_empty());
    assert_eq!(addresses(&lab.tcp(&query("many.lattice.", A))).len(), 60);
}

#[test]
fn forged_answers_are_ignored() {
    let lab = Lab::new();
    // Before the good answer: one with another id, and one from another port.
    assert_eq!(addresses(&lab.udp(&query("forged.example.com.", A))), [v4(1)]);
    assert_eq!(lab.resolver.counters().upstream_wrong, 1, "what is from another port does not even arrive");
    // Nothing but bad guesses, and one that is right but for the spelling: both are asked again by TCP.
    for name in ["flood.example.com.", "swapped.example.com."] {
        assert_eq!(addresses(&lab.udp(&query(name, A))), [v4(1)], "{name}");
        assert_eq!(lab.upstream.seen().last().unwrap().transport, Transport::Tcp, "{name}");
    }
    let seen = lab.upstream.seen();
    let by_udp = seen.iter().filter(|asked| asked.transport == Transport::Udp);
    let origins: HashSet<_> = by_udp.map(|asked| (asked.id, asked.from.port())).collect();
    assert_eq!((seen.len(), origins.len()), (5, 3), "{seen:?}");
}

#[test]
fn the_next_nameserver_is_asked_when_one_fails_or_is_silent() {
    // Nobody listens on the first; the second is ours.
    let lab = Lab::with("nameserver 127.0.0.99\nnameserver 127.0.0.53\n");
    assert_eq!(addresses(&lab.udp(&query("api.example.com.", A))), [v4(1)]);
    assert_eq!(lab.resolver.counters().upstream_timeouts, 1);
    assert_eq!(addresses(&lab.udp(&query("chain.example.com.", A))), [v4(7)]);
    assert_eq!(lab.resolver.counters().upstream_timeouts, 1, "who answered is asked first");
    assert_eq!(lab.udp(&query("broken.example.com.", A)).metadata.response_code, ResponseCode::ServFail);
    let reply = lab.udp(&query("silent.example.com.", A));
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(lab.resolver.counters().failed, 2);
}

#[test]
fn a_changed_resolv_conf_is_followed() {
    let lab = Lab::with("# none yet\n");
    assert_eq!(lab.udp(&query("api.example.com.", A)).metadata.response_code, ResponseCode::ServFail);
    lab.resolv_conf("nameserver 127.0.0.53\n");
    lab.wait("the new nameserver is asked", || {
        lab.udp(&query("api.example.com.", A)).metadata.response_code == ResponseCode::NoError
    });
}

#[test]
fn equal_questions_share_one_and_hundreds_wait_at_a_time() {
    let lab = Lab::new();
    let sockets: Vec<_> = (0..4).map(|_| lab.socket()).collect();
    // The nameserver holds "slow" back until it is asked for "api".
    for (batch, socket) in (1..).zip(&sockets) {
        for id in 0..100 {
            let mut message = query("slow.example.com.", A);
            message.metadata.id = id;
            socket.send_to(&message.to_vec().unwrap(), AGENT).unwrap();
        }
        // A socket's buffer does not hold them all.
        lab.wait("it reads", || lab.resolver.counters().queries == 100 * batch);
    }
    assert_eq!(addresses(&lab.udp(&query("api.example.com.", A))), [v4(1)], "nobody blocks others");
    for socket in &sockets {
        let mut ids: Vec<u16> = (0..100).map(|_| lab::receive(socket).metadata.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..100).collect::<Vec<u16>>());
    }
    assert_eq!(lab.resolver.counters().forwarded, 2);
}

#[test]
fn wildcards_are_limited() {
    let lab = Lab::new();
    let mut refused = 0;
    for index in 0..WILDCARD_NAMES + 20 {
        let reply = lab.udp(&query(&format!("n{index}.wild.example.com."), A));
        refused += usize::from(reply.metadata.response_code == ResponseCode::Refused);
    }
    assert_eq!(refused, 20);
    let seen = lab.upstream.seen();
    assert_eq!(seen.len(), WILDCARD_NAMES);
    let several = |what: &str, different: HashSet<String>| {
        assert!(different.len() > WILDCARD_NAMES / 2, "{what} can be guessed: {different:?}");
    };
    several("the id", seen.iter().map(|asked| asked.id.to_string()).collect());
    several("the port", seen.iter().map(|asked| asked.from.port().to_string()).collect());
    let domain = |name: &str| name.split_once('.').unwrap().1.to_owned();
    several("the spelling", seen.iter().map(|asked| domain(&asked.name)).collect());
    let long = format!("{}.{}.wild.example.com.", "a".repeat(60), "b".repeat(60));
    assert_eq!(lab.udp(&query(&long, A)).metadata.response_code, ResponseCode::Refused);
    let counters = lab.resolver.counters();
    assert_eq!((counters.refused(Why::WildcardNames), counters.refused(Why::WildcardLength)), (20, 1));
}

#[test]
fn tcp_takes_several_queries_and_answers_those_that_are_ready() {
    let lab = Lab::new();
    let mut stream = lab.connect();
    let mut bytes = Vec::new();
    for (id, name) in
        [(1, "slow.example.com."), (2, "tool.lattice."), (3, "evil.com."), (4, "api.example.com.")]
    {
        let mut message = query(name, A);
        message.metadata.id = id;
        bytes.extend(lab::framed(&message));
    }
    // Byte by byte, as the slowest of clients.
    for byte in bytes {
        stream.write_all(&[byte]).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut ids: Vec<u16> = (0..4).map(|_| read_framed(&mut stream).metadata.id).collect();
    assert_eq!(&ids[..2], [2, 3]);
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4]);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "then it is closed");
}

#[test]
fn idle_and_greedy_connections_do_not_block_others() {
    let lab = Lab::new();
    let mut idle: Vec<TcpStream> = (0..MAX_CONNECTIONS).map(|_| lab.connect()).collect();
    // Each of them is known to be accepted once it was answered.
    for stream in &mut idle {
        stream.write_all(&lab::framed(&query("tool.lattice.", A))).unwrap();
        read_framed(stream);
    }
    let mut greedy = lab.connect();
    assert_eq!(greedy.read(&mut [0]).unwrap_or(0), 0, "one too many is closed");
    assert_eq!(lab.resolver.counters().refused(Why::Connections), 1);
    assert_eq!(addresses(&lab.udp(&query("api.example.com.", A))), [v4(1)]);
    // A message that no query can be as long as, and one that ends early.
    idle[0].write_all(&[0xff, 0xff, 0]).unwrap();
    assert_eq!(idle[0].read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(lab.resolver.counters().malformed, 1);
    idle[1].write_all(&[0, 40, 1]).unwrap();
    drop(idle);
    lab.wait("the places are given back", || {
        let mut stream = lab.connect();
        let sent = stream.write_all(&lab::framed(&query("tool.lattice.", A)));
        sent.is_ok() && lab::try_read_framed(&mut stream).is_some()
    });
}

#[test]
fn a_connection_has_so_many_queries_and_no_more() {
    let lab = Lab::new();
    let mut stream = lab.connect();
    stream.write_all(&lab::framed(&query("silent.example.com.", A)).repeat(4 * TCP_PIPELINE)).unwrap();
    lab.wait("it reads", || lab.resolver.counters().queries >= TCP_PIPELINE as u64);
    lab.udp(&query("api.example.com.", A));
    let counters = lab.resolver.counters();
    // Once the first have their replies, further ones are read.
    assert!(counters.queries == TCP_PIPELINE as u64 + 1 || counters.failed > 0, "{counters:?}");
}

/// A client that never reads its replies fills its own queue and nobody else's, until it is cut off.
#[test]
fn who_does_not_read_is_not_served_further() {
    let lab = Lab::new();
    let mut stream = lab.connect();
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let queries = lab::framed(&query("tool.lattice.", A)).repeat(100);
    let (start, mut stalled) = (Instant::now(), 0);
    loop {
        assert!(start.elapsed() < PATIENCE, "it is not cut off");
        match stream.write(&queries) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stalled += 1;
                assert_eq!(addresses(&lab.tcp(&query("tool.lattice.", A))), [IpAddr::from([10, 42, 0, 2])]);
            }
            Err(_) => break,
        }
    }
    assert!(stalled > 0, "it was read from on and on");
}

#[test]
fn garbage_is_survived() {
    let lab = Lab::new();
    let socket = lab.socket();
    for length in 0..600 {
        let noise: Vec<u8> = (0..length).map(|i| (i * 31 + length * 7) as u8).collect();
        socket.send_to(&noise, AGENT).unwrap();
    }
    socket.send_to(&[0; 5000], AGENT).unwrap();
    assert_eq!(addresses(&lab.udp(&query("garbage.example.com.", A))), [v4(1)]);
    assert!(lab.resolver.counters().malformed > 0);
}

#[test]
fn it_ends_at_once_and_frees_its_sockets() {
    let lab = Lab::new();
    let socket = lab.socket();
    socket.send_to(&query("silent.example.com.", A).to_vec().unwrap(), AGENT).unwrap();
    lab.wait("the question is on its way", || !lab.upstream.seen().is_empty());
    let mut stream = lab.connect();
    let lab = lab.restart();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "closed");
    assert_eq!(addresses(&lab.udp(&query("api.example.com.", A))), [v4(1)]);
}

/// glibc is what most agents resolve with: it asks for A and AAAA at once, from one socket.
#[test]
fn the_c_library_is_content() {
    let lab = Lab::new();
    let Some(found) = lab.getaddrinfo("api.example.com") else { return };
    assert_eq!(found, "192.0.2.1 2001:db8::1");
    assert_eq!(lab.getaddrinfo("tool.lattice").unwrap(), "10.42.0.2");
    assert_eq!(lab.getaddrinfo("secret.evil.com").unwrap(), "");
}

/// A reply that is ours has the query's id and question.
#[test]
fn replies_fit_their_queries() {
    let lab = Lab::new();
    let asked = query("tOOl.Lattice.", A);
    let reply: Message = lab.udp(&asked);
    assert_eq!(reply.metadata.id, asked.metadata.id);
    assert!(reply.queries[0].name.eq_case(&asked.queries[0].name));
    assert!(matches!(reply.answers[0].data, RData::A(_)));
}
