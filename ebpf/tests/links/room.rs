//! Policies of many rules.

use std::net::{Ipv4Addr, UdpSocket};

use lattice_ebpf::{AttachMode, Pin};
use lattice_policy::{Proto, Reason, RuleId, Table};

use crate::lab::{AGENT4, Kind, Lab, NOWHERE4, entry, line};

const RULES: u32 = 10_000;

/// The address of rule `n`; those between the rules' are nobody's.
fn target(n: u32) -> Ipv4Addr {
    (u32::from(Ipv4Addr::new(11, 0, 0, 0)) + 2 * n).into()
}

fn many() -> Table {
    let egress = (1..=RULES).map(|n| entry(&format!("{}/32", target(n)), &[line(Proto::Udp, Some(53), n)]));
    Table { egress: egress.collect(), ingress: Vec::new() }
}

#[test]
fn each_of_ten_thousand_rules_decides_for_itself() {
    let mut lab = Lab::new(Kind::Tun, AttachMode::Auto);
    lab.enforcer().apply(&many(), &[], 1).unwrap();
    let sender = lab.in_agent(|| UdpSocket::bind((AGENT4, 0)).unwrap());
    let send = |to: Ipv4Addr, port| {
        // What comes back of an earlier refusal is told here.
        while sender.send_to(b"x", (to, port)).is_err() {}
    };
    for n in (1..=RULES).step_by(997).chain([RULES]) {
        let (to, beside) = (target(n), Ipv4Addr::from(u32::from(target(n)) + 1));
        for (to, port, rule, reason) in [
            (to, 53, n, Reason::RuleAllow),
            (to, 54, 0, Reason::DefaultDeny),
            (beside, 53, 0, Reason::DefaultDeny),
        ] {
            send(to, port);
            let told = lab.wait_for(|flow| flow.dst == (to, port).into());
            assert_eq!((told.reason, told.rule), (reason, RuleId(rule)), "{told:?}");
        }
    }
    assert_eq!(lab.enforcer().lost().unwrap(), 0);
}

#[test]
fn a_policy_that_is_refused_for_want_of_room_leaves_the_old_one_in_force() {
    let mut lab = Lab::new(Kind::Tun, AttachMode::Auto);
    lab.enforcer().apply(&many(), &[], 1).unwrap();
    let wide = entry("0.0.0.0/0", &[line(Proto::Udp, None, 1)]);
    let pin = |n: usize| Pin {
        address: target(u32::try_from(n).unwrap()).into(),
        matches: vec![line(Proto::Any, None, 2)],
        until_ns: u64::MAX,
    };
    let too_many: Vec<Pin> = (0..=Pin::MAX).map(pin).collect();
    let table = Table { egress: vec![wide], ingress: Vec::new() };
    lab.enforcer().apply(&table, &too_many, 2).unwrap_err();
    let sender = lab.in_agent(|| UdpSocket::bind((AGENT4, 0)).unwrap());
    for (to, reason) in [(NOWHERE4, Reason::DefaultDeny), (target(7), Reason::RuleAllow)] {
        while sender.send_to(b"x", (to, 53)).is_err() {}
        let told = lab.wait_for(|flow| flow.dst.ip() == to);
        assert_eq!((told.reason, told.generation), (reason, 1), "{told:?}");
    }
}
