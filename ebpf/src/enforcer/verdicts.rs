//! Verdicts of the programs, by `BPF_PROG_TEST_RUN`, without any network: those that every enforcer must give (`tests/verdicts`), then
//! what only a program of the kernel has.

use aya::maps::{HashMap, Map, MapData};
use lattice_policy::{Action, Direction, Proto, Reason, Table};
use lattice_verdicts::{Judge as _, packet::*, table::*};

use self::fixture::{Fixture, arp, ethernet, frame};
use crate::{EbpfError, Enforcer, Options, harness::Outcome};

mod fixture;
mod full;
mod link;
mod own;
mod pins;

mod shared {
    lattice_verdicts::suite!(crate::enforcer::verdicts::fixture::Fixture);
}

#[test]
fn a_flow_that_another_cpu_saw_later_is_alive() {
    let mut fixture = Fixture::with(&table());
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    let pin = fixture.harness.pins().dir.join(format!("abi{}/FLOWS", crate::abi::VERSION));
    let map = Map::LruHashMap(MapData::from_pin(pin).unwrap());
    let mut flows: HashMap<_, [u8; 40], [u8; 24]> = HashMap::try_from(map).unwrap();
    let (key, mut flow) = flows.iter().next().unwrap().unwrap();
    let seen_ns = u64::from_ne_bytes(flow[..8].try_into().unwrap());
    flow[..8].copy_from_slice(&(seen_ns + 3_600_000_000_000).to_ne_bytes());
    flows.insert(key, flow, 0).unwrap();
    assert_eq!(fixture.ingress(&ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b""))), Reason::Established);
}

#[test]
fn a_second_loader_is_refused_and_a_later_one_takes_over() {
    let mut fixture = Fixture::with(&table());
    let pin_dir = fixture.harness.pins().dir.clone();
    let own = vec![[10, 42, 0, 9].into()];
    let options = Options { pin_dir: pin_dir.clone(), own: own.clone(), attach: crate::AttachMode::Auto };
    assert!(matches!(Enforcer::load(&options), Err(EbpfError::InUse(dir)) if dir == pin_dir));
    assert!(matches!(fixture.harness.enforcer.events(), Err(EbpfError::EventsTaken)));
    let mut fixture = fixture.reload(&own);
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::Spoofed, "the addresses are the new ones");
    let packet = ip4(6, [10, 42, 0, 9], TOOL, &tcp(1111, 8080, SYN, b""));
    assert_eq!(fixture.egress(&packet), Reason::RuleAllow, "the policy is the pinned one");
}

#[test]
fn a_directory_elsewhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { pin_dir: dir.path().into(), own: Vec::new(), attach: crate::AttachMode::Auto };
    assert!(matches!(Enforcer::load(&options), Err(EbpfError::PinDir { .. })));
}

#[test]
fn maps_of_another_layout_are_not_taken_over() {
    let mut fixture = Fixture::with(&table());
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    let dir = fixture.harness.pins().dir.clone();
    std::fs::rename(dir.join(format!("abi{}", crate::abi::VERSION)), dir.join("abi1")).unwrap();
    let mut fixture = fixture.reload(&[OWN4.into()]);
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::NoPolicy, "neither its policy nor its flows");
}
