//! Changes of the policy while packets are on their way, and the life of the table.

use std::{
    io::ErrorKind,
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use lattice_nftables::{NftError, Nftables};
use lattice_policy::{Action, Match, PortRange, Proto, Table};

use crate::{
    lab::{Lab, PEER4, entry, line, options, table},
    refused,
};

/// Both let UDP 53 of the peer pass, and neither anything else of UDP; they differ in size and in their rules.
fn policies() -> [Table; 2] {
    let many = (0..500).map(|n| {
        let net = Ipv4Addr::from(0x0B00_0000 + 2 * n).to_string() + "/32";
        entry(&net, &[line(Proto::Any, None, 100 + n)])
    });
    let open = [line(Proto::Udp, Some(53), 2)];
    let deny = Match {
        ports: Some(PortRange { lo: 54, hi: 60 }),
        action: Action::Deny,
        ..line(Proto::Udp, None, 3)
    };
    let mut wide = table();
    wide.egress = std::iter::once(entry("10.42.0.0/24", &[deny, open[0]])).chain(many).collect();
    [table(), wide]
}

#[test]
fn nothing_leaks_and_nothing_allowed_is_refused_during_a_hundred_switches() {
    let mut lab = Lab::new();
    let policies = policies();
    lab.nftables.apply(&policies[0], &[], 1).unwrap();
    let (closed, open) = (lab.peer_binds(PEER4.into(), 54), lab.peer_binds(PEER4.into(), 53));
    closed.set_nonblocking(true).unwrap();
    let (flood, allowed) = (lab.agent_udp(PEER4.into(), 54), lab.agent_udp(PEER4.into(), 53));
    let (over, flooded) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(flood.send(b"leak").is_err() || closed.recv(&mut [0; 9]).is_err());
                flooded.fetch_add(1, Ordering::Relaxed);
            }
        });
        let exchanged = scope.spawn(|| {
            let mut exchanged = 0u64;
            while !over.load(Ordering::Relaxed) {
                allowed.send(&exchanged.to_be_bytes()).unwrap();
                let mut buffer = [0; 8];
                let (_, from) = open.recv_from(&mut buffer).unwrap();
                assert_eq!(u64::from_be_bytes(buffer), exchanged);
                open.send_to(&buffer, from).unwrap();
                allowed.recv(&mut buffer).unwrap();
                exchanged += 1;
            }
            exchanged
        });
        for generation in 2..102 {
            let policy = &policies[generation as usize % 2];
            lab.nftables.apply(policy, &[], generation).unwrap();
        }
        over.store(true, Ordering::Relaxed);
        assert!(exchanged.join().unwrap() > 100);
    });
    assert!(flooded.into_inner() > 100);
    assert_eq!(closed.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock, "not one leaked");
    // No policy leaves anything of itself behind but the last two.
    let listed = lab.agent.command("nft list maps");
    assert_eq!(listed.matches("map tcp_").count(), 2, "{listed}");
}

#[test]
fn a_refused_policy_leaves_the_old_one_in_force() {
    let mut lab = Lab::new();
    lab.nftables.apply(&table(), &[], 1).unwrap();
    let _open = lab.peer_listens(PEER4.into(), 8080);
    // In the way of the next policy's sets.
    lab.agent.command("nft add map inet lattice tcp_2 { type ipv4_addr : mark; }");
    let refusal = lab.nftables.apply(&Table::default(), &[], 2).unwrap_err();
    assert!(matches!(refusal, NftError::Nft { .. }), "{refusal}");
    assert!(refusal.to_string().contains("still is"), "{refusal}");
    lab.connect(PEER4.into(), 8080).unwrap();
    lab.nftables.apply(&Table::default(), &[], 2).unwrap();
    refused(lab.connect(PEER4.into(), 8080));
}

#[test]
fn old_sets_that_are_gone_are_not_in_the_way() {
    let mut lab = Lab::new();
    lab.nftables.apply(&table(), &[], 1).unwrap();
    lab.nftables.apply(&table(), &[], 2).unwrap();
    lab.agent.command("nft delete map inet lattice tcp_1");
    lab.nftables.apply(&Table::default(), &[], 3).unwrap();
    refused(lab.connect(PEER4.into(), 8080));
    assert_eq!(lab.wait_for(|f| f.dst.port() == 8080).generation, 3);
}

#[test]
fn a_second_load_denies_everything_and_knows_no_flow_of_the_first() {
    let mut lab = Lab::new();
    lab.nftables.apply(&table(), &[], 1).unwrap();
    let open = lab.peer_listens(PEER4.into(), 8080);
    let live = lab.connect(PEER4.into(), 8080).unwrap();
    let _accepted = open.accept().unwrap();
    let agent = lab.agent.clone();
    let busy = Nftables::load(&options(&agent)).unwrap_err();
    assert!(matches!(busy, NftError::Log { .. }), "two readers of one group: {busy}");
    refused(lab.connect(PEER4.into(), 8080));
    drop((lab.events, live));
    let mut other = options(&agent);
    other.table = "else; flush ruleset".into();
    assert!(matches!(Nftables::load(&other), Err(NftError::TableName(_))));
    lab.nftables = Nftables::load(&options(&agent)).unwrap();
    lab.events = lab.nftables.events().unwrap();
    assert!(matches!(lab.nftables.events(), Err(NftError::EventsTaken)));
    refused(lab.connect(PEER4.into(), 8080));
    lab.nftables.apply(&table(), &[], 1).unwrap();
    lab.connect(PEER4.into(), 8080).unwrap();
}

#[test]
fn a_removed_table_polices_nothing() {
    let lab = Lab::new();
    let _open = lab.peer_listens(PEER4.into(), 9090);
    refused(lab.connect(PEER4.into(), 9090));
    let Lab { nftables, pair, .. } = lab;
    nftables.remove().unwrap();
    pair.connect(PEER4.into(), 9090).unwrap();
    assert_eq!(pair.agent.command("nft list ruleset"), "");
}

#[test]
fn what_the_reader_is_too_late_for_is_counted() {
    let mut lab = Lab::new();
    lab.nftables.apply(&table(), &[], 1).unwrap();
    let socket = lab.agent.run(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
    let sent = 20_000;
    for n in 0..sent {
        let _ = socket.send_to(b"x", (Ipv4Addr::from(0x0B00_0000 + n), 9));
    }
    // The next record tells how many are missing before it.
    let later = lab.agent.run(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
    lab.told();
    let _ = later.send_to(b"x", (PEER4, 99));
    lab.wait_for(|f| f.dst.port() == 99);
    let lost = lab.nftables.lost();
    assert!(lost > 0 && lost < u64::from(sent), "{lost}");
}
