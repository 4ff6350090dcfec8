use std::sync::Mutex;

use lattice_policy::{Action, Counter, RuleId, RuleSpec, parse_rule};
use lattice_wire::{
    MapPolicy, PeerId, WorkspaceId,
    netmap::{Layer, MapRule},
};

use super::*;
use crate::enforce::Enforce;

/// What an enforcer was given: generations and the texts of their rules.
pub(crate) type Loaded = Arc<Mutex<Vec<(u32, Vec<String>)>>>;

/// A map whose policy allows `egress`; `None` is a server without policies.
pub(crate) fn map(egress: Option<&[&str]>) -> NetMap {
    let allow = |text: &&str| MapRule { allow: true, rule: (*text).into(), policy: Some("p".into()) };
    let layers = |texts: &[&str]| {
        let egress = texts.iter().map(allow).collect();
        vec![Layer { name: "policies".into(), egress, ingress: Vec::new() }]
    };
    NetMap {
        epoch: 1,
        generation: 1,
        workspace: WorkspaceId::from_random([1; 10]),
        workspace_name: None,
        peer: PeerId::from_random([9; 10]),
        address: "10.42.0.9/32".parse().unwrap(),
        pool: "10.42.0.0/16".parse().unwrap(),
        prefix: "fd12:3456:789a::/48".parse().unwrap(),
        peers: Vec::new(),
        not_after: None,
        policy: egress.map(|texts| MapPolicy { layers: layers(texts) }),
    }
}

/// Of every such map.
pub(crate) fn overlay() -> lattice_policy::Overlay {
    overlay::of(&map(None)).unwrap()
}

/// A live policy of `map` whose enforcer takes a policy when `takes` says so, at each attempt.
pub(crate) fn live(
    flags: &[&str],
    map: &NetMap,
    takes: impl FnMut(&Policy) -> bool + Send + 'static,
) -> (Live, Loaded) {
    let flags: Vec<RuleSpec> = flags.iter().map(|text| parse_rule(text).unwrap()).collect();
    let current = Arc::new(wanted(1, &flags.clone().into(), map, 0).unwrap());
    let generations = Generations::default();
    generations.add(current.clone());
    let loaded = Loaded::default();
    let log = loaded.clone();
    let enforcer = Fake { takes: Box::new(takes), log };
    let enforcer = Arc::new(Mutex::new(enforcer));
    let closed = Closed { nets: vec![map.pool.into()], ..Closed::default() };
    (Live::new(flags.into(), current, generations, enforcer, closed), loaded)
}

/// The end of pins that the enforcer does not take.
const UNPINNABLE: u64 = 13;

/// Takes a policy when it wants to, and remembers its rules for IPv4, beside which are those for the same peers' IPv6; pins are among them.
struct Fake {
    takes: Box<dyn FnMut(&Policy) -> bool + Send>,
    log: Loaded,
}

impl Enforce for Fake {
    fn apply(&mut self, policy: &Policy, _table: &Table, pins: &[Pin]) -> Result<(), Failure> {
        if !(self.takes)(policy) {
            return Err(Failure::new(Kind::Kernel, "no memory"));
        }
        let rules =
            policy.rules().iter().filter(|rule| rule.net.addr().is_ipv4()).map(|rule| rule.text.clone());
        let pins = pins.iter().map(|pin| format!("pin {}", pin.address));
        self.log.lock().unwrap().push((policy.generation, rules.chain(pins).collect()));
        Ok(())
    }
    fn pin(&mut self, pins: &[Pin]) -> Result<(), Failure> {
        if pins.iter().any(|pin| pin.until_ns == UNPINNABLE) {
            return Err(Failure::new(Kind::Kernel, "no memory"));
        }
        let pins = pins.iter().map(|pin| format!("pin {}", pin.address)).collect();
        self.log.lock().unwrap().push((0, pins));
        Ok(())
    }
    fn police(&mut self, _: &str) -> Result<(), Failure> {
        Ok(())
    }
    fn lost(&self) -> Result<u64, Failure> {
        Ok(0)
    }
    fn counters(&self) -> Result<Vec<(RuleId, Counter)>, Failure> {
        Ok(Vec::new())
    }
}

fn last(loaded: &Loaded) -> (u32, Vec<String>) {
    loaded.lock().unwrap().last().unwrap().clone()
}

#[test]
fn flags_decide_for_an_older_server() {
    let policy = wanted(1, &vec![parse_rule("10.42.0.5").unwrap()].into(), &map(None), 0).unwrap();
    let rules: Vec<(Action, &str, bool)> = policy
        .rules()
        .iter()
        .map(|rule| (rule.action, rule.text.as_str(), rule.net.addr().is_ipv6()))
        .collect();
    let both = |text| [false, true].map(|is_v6| (Action::Allow, text, is_v6));
    assert_eq!(rules, [both("10.42.0.5"), both("icmp:10.42.0.0/16")].concat());
}

#[test]
fn a_generation_is_a_change_of_the_effective_policy() {
    let (mut live, loaded) = live(&["10.42.0.0/16"], &map(Some(&["10.42.0.5"])), |_| true);
    let mut newer = map(Some(&["10.42.0.5"]));
    newer.generation = 99;
    assert!(live.change(&newer, 0).is_none(), "other reasons make a new map too");

    let wider = live.change(&map(Some(&["10.42.0.4/31"])), 0).unwrap();
    assert!(!wider.narrows);
    live.put(wider).unwrap();
    assert_eq!(last(&loaded), (2, vec!["10.42.0.4/31 (policy p)".to_owned()]));

    let other = live.change(&map(Some(&["10.42.0.6"])), 0).unwrap();
    assert!(other.narrows);
    live.put(other).unwrap();
    assert_eq!(last(&loaded).0, 3);
    let texts =
        [2, 3].map(|generation| live.generations.rule_text(generation, lattice_policy::RuleId(1)).unwrap());
    assert_eq!(texts, ["10.42.0.4/31 (policy p)", "10.42.0.6 (policy p)"]);
}

#[test]
fn a_peer_whose_time_is_over_may_do_nothing_until_it_is_renewed() {
    let mut map = map(Some(&["10.42.0.5"]));
    map.not_after = Some(100);
    let (mut live, loaded) = live(&["10.42.0.0/16"], &map, |_| true);
    assert!(live.change(&map, 99).is_none());
    live.put(live.change(&map, 100).unwrap()).unwrap();
    assert_eq!(last(&loaded), (2, vec![]));
    assert!(live.change(&map, 101).is_none());
    map.not_after = Some(200);
    live.put(live.change(&map, 101).unwrap()).unwrap();
    assert_eq!(last(&loaded), (3, vec!["10.42.0.5 (policy p)".to_owned()]));
}

#[test]
fn a_wider_policy_that_is_not_taken_leaves_the_old_one() {
    let (mut live, loaded) = live(&["10.42.0.0/16"], &map(Some(&["10.42.0.5"])), |_| false);
    let wider = map(Some(&["10.42.0.0/24"]));
    let stuck = live.put(live.change(&wider, 0).unwrap()).unwrap_err();
    assert!(!stuck.too_wide);
    assert!(loaded.lock().unwrap().is_empty());
    assert!(live.change(&wider, 0).is_some(), "to be tried again");
    assert!(live.generations.rule_text(2, lattice_policy::RuleId(1)).is_none(), "it was never in force");
}

#[test]
fn a_narrower_policy_that_is_not_taken_denies_everything() {
    let fits = |policy: &Policy| policy.rules().len() != 2;
    let (mut live, loaded) = live(&["10.42.0.0/16"], &map(Some(&["10.42.0.0/24"])), fits);
    let narrower = map(Some(&["10.42.0.5"]));
    let stuck = live.put(live.change(&narrower, 0).unwrap()).unwrap_err();
    assert!(!stuck.too_wide);
    assert_eq!(last(&loaded), (2, vec![]));
    assert!(live.change(&narrower, 0).is_some(), "to be tried again");

    let (mut dead, _) = super::tests::live(&["10.42.0.0/16"], &map(Some(&["10.42.0.0/24"])), |_| false);
    assert!(dead.put(dead.change(&narrower, 0).unwrap()).unwrap_err().too_wide);
}

#[test]
fn a_policy_that_cannot_be_read_or_combined_denies() {
    let (mut live, loaded) = live(&["10.42.0.0/16"], &map(Some(&["10.42.0.5"])), |_| true);
    live.put(live.change(&map(Some(&["tcp:{role=tool}"])), 0).unwrap()).unwrap();
    assert_eq!(last(&loaded), (2, vec![]));
}

#[test]
fn pins_hold_over_a_change_that_still_permits_the_name() {
    let rules = ["0.0.0.0/0", "api.example.com:443"];
    let (mut live, loaded) = live(&["api.example.com:443"], &map(Some(&rules)), |_| true);
    assert!(matches!(live.query("api.example.com"), (NameVerdict::Allowed(_), false)));
    assert_eq!(live.query("other.example.com").0, NameVerdict::Unknown);
    let answers: Vec<IpAddr> =
        ["93.184.216.34", "10.42.0.7", "169.254.169.254"].map(|ip| ip.parse().unwrap()).into();
    let answer = live.learn("api.example.com", &answers, 100).unwrap();
    assert_eq!(answer.admitted, answers[..1]);
    assert_eq!(answer.refused.len(), 2);
    assert_eq!(last(&loaded).1, ["pin 93.184.216.34"]);

    let narrower = map(Some(&["0.0.0.0/0:443", "10.42.0.0/16"]));
    let change = live.change(&narrower, 0).unwrap();
    live.put(change).unwrap();
    assert!(last(&loaded).1.contains(&"pin 93.184.216.34".to_owned()), "{:?}", last(&loaded));
    let change = live.change(&map(Some(&["10.42.0.0/16"])), 0).unwrap();
    live.put(change).unwrap();
    assert!(!last(&loaded).1.iter().any(|text| text.contains("93.184")), "{:?}", last(&loaded));
}

#[test]
fn what_is_pinned_already_costs_the_enforcer_nothing() {
    let rules = ["0.0.0.0/0", "api.example.com:443"];
    let (mut live, loaded) = live(&["api.example.com:443"], &map(Some(&rules)), |_| true);
    let address = [IpAddr::from([93, 184, 216, 34])];
    let mut learn =
        |until| live.learn("api.example.com", &address, until).map(|answer| answer.admitted.len());
    assert_eq!(learn(100).unwrap(), 1);
    for until in [100, 99, 100] {
        assert_eq!(learn(until).unwrap(), 1);
    }
    assert_eq!(loaded.lock().unwrap().len(), 1, "an agent that asks in a loop keeps no policy waiting");
    learn(101).unwrap();
    assert_eq!(loaded.lock().unwrap().len(), 2);
}

#[test]
fn an_address_that_could_not_be_pinned_is_not_told() {
    let rules = ["0.0.0.0/0", "*.example.com:443"];
    let (mut live, loaded) = live(&["*.example.com:443"], &map(Some(&rules)), |_| true);
    let [first, second] = [1, 2].map(|n| [IpAddr::from([93, 184, 216, n])]);
    assert!(live.learn("a.example.com", &first, UNPINNABLE).is_err());
    assert!(
        live.learn("a.example.com", &first, UNPINNABLE).is_err(),
        "the book has it, the enforcer has not"
    );
    assert!(live.learn("b.example.com", &second, 40).is_err());
    live.expire_pins(UNPINNABLE);
    assert_eq!(last(&loaded).1, ["pin 93.184.216.2"], "what was not taken is made up for");
}

#[test]
fn each_look_at_the_pins_reaches_the_enforcer() {
    let rules = ["0.0.0.0/0", "api.example.com:443"];
    let (mut live, loaded) = live(&["api.example.com:443"], &map(Some(&rules)), |_| true);
    live.learn("api.example.com", &[IpAddr::from([93, 184, 216, 34])], 100).unwrap();
    live.expire_pins(100);
    assert_eq!(last(&loaded).1, [""; 0], "nftables ends what its clock has missed");
    assert_eq!(loaded.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_new_address_of_the_host_is_denied_at_once_and_a_gone_one_until_another_change() {
    let wide = map(Some(&["0.0.0.0/0"]));
    let (mut live, loaded) = live(&["0.0.0.0/0"], &wide, |_| true);
    let again = live.again();
    let nets: Vec<IpNet> = vec!["192.0.2.1/32".parse().unwrap()];
    live.set_unreachable(nets.clone(), Vec::new());
    again.notified().await;
    let change = live.change(&wide, 0).unwrap();
    assert!(change.narrows);
    live.put(change).unwrap();
    assert!(last(&loaded).1.iter().any(|text| text.starts_with("192.0.2.1/32")), "{:?}", last(&loaded));
    let denies = RuleId(u32::try_from(live.policy().rules().len()).unwrap());
    let reason = |generation| live.generations.reason(generation, lattice_policy::Reason::RuleDeny, denies);
    assert_eq!(reason(2), lattice_policy::Reason::Uplink);
    assert_eq!(reason(1), lattice_policy::Reason::RuleDeny);

    let unasked = async || {
        let asked = tokio::time::timeout(Duration::from_millis(1), again.notified()).await;
        assert!(asked.is_err(), "a new policy judges every flow anew");
    };
    live.set_unreachable(nets.clone(), Vec::new());
    unasked().await;
    live.set_unreachable(Vec::new(), Vec::new());
    unasked().await;
    assert!(live.change(&wide, 0).is_none(), "not by a map that says the same either");
    live.set_unreachable(nets.clone(), Vec::new());
    unasked().await;
    live.set_unreachable(Vec::new(), Vec::new());

    let other = map(Some(&["0.0.0.0/0:443"]));
    live.put(live.change(&other, 0).unwrap()).unwrap();
    assert_eq!(last(&loaded), (3, vec!["0.0.0.0/0:443 (policy p)".to_owned()]));
    assert!(live.change(&other, 0).is_none());
    live.set_unreachable(nets, Vec::new());
    again.notified().await;
    assert!(live.change(&other, 0).unwrap().narrows, "it is new again");
}

#[tokio::test]
async fn what_the_host_has_no_route_to_is_denied_as_long_as_that_is_so() {
    let wide = map(Some(&["0.0.0.0/0"]));
    let (mut live, loaded) = live(&["0.0.0.0/0"], &wide, |_| true);
    let again = live.again();
    let unrouted: Vec<IpNet> = vec!["0.0.0.0/0".parse().unwrap()];
    live.set_unreachable(Vec::new(), unrouted.clone());
    again.notified().await;
    live.put(live.change(&wide, 0).unwrap()).unwrap();
    assert_eq!(last(&loaded).1.last().unwrap(), "0.0.0.0/0 (this host has no route to it)");
    live.set_unreachable(Vec::new(), unrouted);
    assert!(live.change(&wide, 0).is_none(), "nothing new");
    live.set_unreachable(Vec::new(), Vec::new());
    again.notified().await;
    let change = live.change(&wide, 0).unwrap();
    assert!(!change.narrows);
    live.put(change).unwrap();
    assert_eq!(last(&loaded).1.len(), 1, "{:?}", last(&loaded));
}
