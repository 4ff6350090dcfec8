//! Addresses that stand for names, and what was counted.

use std::io::{Read, Write};

use lattice_nftables::NftError;
use lattice_policy::{Action, Pin, Proto, Reason, Table};
use nix::time::{ClockId, clock_gettime};

use crate::{
    lab::{Lab, NOWHERE4, PEER4, PEER6, entry, line, table},
    peers, refused,
};

const SECOND: u64 = 1_000_000_000;

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    now.tv_sec() as u64 * SECOND + now.tv_nsec() as u64
}

fn pin(address: impl Into<std::net::IpAddr>, port: u16, rule: u32, seconds: u64) -> Pin {
    let matches = vec![line(Proto::Tcp, Some(port), rule)];
    Pin { address: address.into(), matches, until_ns: now_ns() + seconds * SECOND }
}

#[test]
fn a_pin_opens_an_address_until_it_ends_and_its_flows_live_on() {
    let mut lab = Lab::new();
    assert!(matches!(lab.nftables.pin(&[]), Err(NftError::NoPolicy)));
    lab.nftables.apply(&Table::default(), &[], 1).unwrap();
    for ip in peers() {
        let open = lab.peer_listens(ip, 443);
        refused(lab.connect(ip, 443));
        // Long enough for a slow machine, and later replaced by one that is over at once.
        lab.nftables.pin(&[pin(ip, 443, 70, 600)]).unwrap();
        let mut agent = lab.connect(ip, 443).unwrap();
        let (mut peer, _) = open.accept().unwrap();
        let told = lab.wait_for(|f| f.dst.ip() == ip && f.action == Action::Allow);
        assert_eq!((told.rule.0, told.reason, told.generation), (70, Reason::RuleAllow, 1));
        refused(lab.connect(ip, 444));

        lab.nftables.pin(&[pin(ip, 443, 70, 1)]).unwrap();
        lab.eventually(|lab| lab.connect(ip, 443).is_err());
        agent.write_all(b"still here").unwrap();
        peer.read_exact(&mut [0; 10]).unwrap();
        peer.write_all(b"so am I").unwrap();
        agent.read_exact(&mut [0; 7]).unwrap();

        // A new policy without the pin ends them.
        lab.nftables.apply(&Table::default(), &[], 1).unwrap();
        agent.write_all(b"hello?").and_then(|()| agent.read_exact(&mut [0; 1])).unwrap_err();
    }
}

#[test]
fn a_pin_takes_the_place_of_an_earlier_one_of_its_address() {
    let mut lab = Lab::new();
    lab.nftables.apply(&Table::default(), &[pin(PEER4, 1, 70, 600), pin(PEER6, 443, 71, 600)], 1).unwrap();
    let (_one, _two, _three) = (
        lab.peer_listens(PEER4.into(), 443),
        lab.peer_listens(PEER4.into(), 1),
        lab.peer_listens(PEER6.into(), 443),
    );
    lab.connect(PEER4.into(), 1).unwrap();
    lab.connect(PEER6.into(), 443).unwrap();
    lab.nftables.pin(&[pin(PEER4, 443, 72, 600)]).unwrap();
    lab.connect(PEER4.into(), 443).unwrap();
    refused(lab.connect(PEER4.into(), 1));
    lab.connect(PEER6.into(), 443).unwrap();
    // The same again, one that is over already, and one twice: the last counts.
    lab.nftables.pin(&[pin(PEER4, 1, 70, 600), pin(PEER4, 443, 72, 600), pin(PEER6, 443, 71, 0)]).unwrap();
    lab.connect(PEER4.into(), 443).unwrap();
    refused(lab.connect(PEER4.into(), 1));
    refused(lab.connect(PEER6.into(), 443));
}

#[test]
fn no_pin_opens_what_the_table_denies() {
    let mut lab = Lab::new();
    let mut deny = line(Proto::Tcp, Some(443), 9);
    deny.action = Action::Deny;
    let table = Table { egress: vec![entry("10.42.0.0/16", &[deny])], ingress: Vec::new() };
    lab.nftables.apply(&table, &[pin(PEER4, 443, 70, 600)], 1).unwrap();
    let _open = lab.peer_listens(PEER4.into(), 443);
    refused(lab.connect(PEER4.into(), 443));
    let told = lab.wait_for(|f| f.dst.port() == 443);
    assert_eq!((told.rule.0, told.reason), (9, Reason::RuleDeny));
}

#[test]
fn at_most_so_many_addresses_are_pinned() {
    let mut lab = Lab::new();
    lab.nftables.apply(&Table::default(), &[], 1).unwrap();
    let pins: Vec<Pin> =
        (0..Pin::MAX as u32).map(|n| pin(std::net::Ipv4Addr::from(0x0B00_0000 + n), 443, 70, 600)).collect();
    lab.nftables.pin(&pins).unwrap();
    assert!(
        matches!(lab.nftables.pin(&[pin(PEER4, 443, 70, 600)]), Err(NftError::TooManyPins(n)) if n > Pin::MAX)
    );
    // The same ones anew are no more than there are.
    lab.nftables.pin(&pins).unwrap();
    lab.nftables.apply(&Table::default(), &[], 1).unwrap();
    lab.nftables.pin(&[pin(PEER4, 443, 70, 600)]).unwrap();
}

#[test]
fn rules_count_their_packets_and_those_of_their_flows() {
    let mut lab = Lab::new();
    let mut deny = line(Proto::Udp, Some(54), 9);
    deny.action = Action::Deny;
    let mut table = table();
    table.egress[0].matches.push(deny);
    assert_eq!(lab.nftables.counters().unwrap(), []);
    lab.nftables.apply(&table, &[], 1).unwrap();
    let server = lab.peer_binds(PEER4.into(), 53);
    let client = lab.agent_udp(PEER4.into(), 53);
    client.send(b"12345678").unwrap();
    let (_, from) = server.recv_from(&mut [0; 9]).unwrap();
    server.send_to(b"12345678", from).unwrap();
    client.recv(&mut [0; 9]).unwrap();
    let _ = lab.agent_udp(PEER4.into(), 54).send(b"1234");
    // What no rule names: a port, and an address that is not in any prefix.
    for (ip, size) in [(PEER4, 5), (NOWHERE4, 6)] {
        let _ = lab.agent_udp(ip.into(), 55).send(&[0; 6][..size]);
    }
    let counted: Vec<_> = lab.nftables.counters().unwrap();
    let counted: Vec<_> = counted.into_iter().map(|(rule, c)| (rule.0, c.packets, c.bytes)).collect();
    assert_eq!(counted, [(0, 2, 33 + 34), (1, 0, 0), (2, 2, 2 * 36), (9, 1, 32)]);
    lab.nftables.apply(&table, &[], 2).unwrap();
    assert!(lab.nftables.counters().unwrap().iter().all(|(_, c)| c.packets == 0), "since the policy came");
}
