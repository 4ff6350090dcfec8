//! Policies that change under traffic.

use std::{
    collections::HashSet,
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use lattice_ebpf::{AttachMode, Pin};
use lattice_policy::{Match, PortRange, Proto, Reason, Table};

use crate::lab::{AGENT4, Kind, Lab, NOWHERE4, entry, line};

/// Rule and generation are the same number, so an old pin under a new policy would be told as two.
#[test]
fn pins_change_with_their_policy_and_not_before() {
    let mut lab = Lab::new(Kind::Tun, AttachMode::Auto);
    let pins = |n: u32| {
        let matches = vec![line(Proto::Udp, None, n)];
        [Pin { address: NOWHERE4.into(), matches, until_ns: u64::MAX }]
    };
    lab.enforcer().apply(&Table::default(), &pins(1), 1).unwrap();
    let stop = AtomicBool::new(false);
    let mut told = Vec::new();
    thread::scope(|scope| {
        let (sender, stop) = (lab.in_agent(|| UdpSocket::bind((AGENT4, 0)).unwrap()), &stop);
        scope.spawn(move || {
            // Each port is a new flow. It also ends when the test fails.
            for port in (1..=u16::MAX).cycle().take(1 << 24).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let _ = sender.send_to(b"x", (NOWHERE4, port));
            }
        });
        for n in 2..20 {
            lab.enforcer().apply(&Table::default(), &pins(n), n).unwrap();
            lab.enforcer().pin(&pins(n)).unwrap();
            told.extend(lab.take_told());
        }
        stop.store(true, Ordering::Relaxed);
    });
    told.extend(lab.take_told());
    told.retain(|flow| flow.dst.ip() == NOWHERE4);
    assert!(told.iter().map(|flow| flow.generation).max() > Some(2), "there was no traffic");
    for flow in told {
        assert_eq!((flow.reason, flow.rule.0), (Reason::RuleAllow, flow.generation), "{flow:?}");
    }
}

/// Every policy lets in the same by rules whose number is its generation: by a prefix of its own or a pin in turn, and by a set
/// of ports. A packet that met two policies would be told as such, or be denied.
#[test]
fn a_packet_is_judged_by_one_policy_however_fast_they_change() {
    let mut lab = Lab::new(Kind::Tun, AttachMode::Auto);
    let targets = [NOWHERE4, [203, 0, 113, 1].into()];
    let apply = |lab: &mut Lab, n: u32| {
        let any = line(Proto::Udp, None, n);
        // Too many for one value; every port is in one of them.
        let set: Vec<Match> = (0..8).map(|nth| Match { ports: Some(ports(nth)), ..any }).collect();
        let mut egress = vec![entry("203.0.113.0/24", &set)];
        let mut pins = Vec::new();
        if n.is_multiple_of(8) {
            pins.push(Pin { address: NOWHERE4.into(), matches: vec![any], until_ns: u64::MAX });
        } else {
            egress.push(entry("198.51.100.1/32", &[any]));
        }
        lab.enforcer().apply(&Table { egress, ingress: Vec::new() }, &pins, n).unwrap();
    };
    apply(&mut lab, 1);
    let (stop, mut told) = (AtomicBool::new(false), Vec::new());
    thread::scope(|scope| {
        let (sender, stop) = (lab.in_agent(|| UdpSocket::bind((AGENT4, 0)).unwrap()), &stop);
        scope.spawn(move || {
            // Each port is a new flow. It also ends when the test fails.
            let ports = (1..=u16::MAX).cycle().take(1 << 24);
            for port in ports.take_while(|_| !stop.load(Ordering::Relaxed)) {
                let _sent = targets.map(|to| sender.send_to(b"x", (to, port)));
            }
        });
        for n in 2..=1000 {
            apply(&mut lab, n);
            told.extend(lab.take_told());
        }
        stop.store(true, Ordering::Relaxed);
    });
    told.extend(lab.take_told());
    for to in targets {
        let generations: HashSet<u32> =
            told.iter().filter(|flow| flow.dst.ip() == to).map(|flow| flow.generation).collect();
        assert!(generations.len() > 5, "only {} policies met traffic to {to}", generations.len());
    }
    // A packet that was held up while three policies came is dropped.
    for flow in told.iter().filter(|flow| flow.proto == 17 && flow.reason != Reason::NoPolicy) {
        assert_eq!((flow.reason, flow.rule.0), (Reason::RuleAllow, flow.generation), "{flow:?}");
    }
}

fn ports(nth: u16) -> PortRange {
    PortRange { lo: nth << 13, hi: nth << 13 | 0x1fff }
}
