//! Two hosts find a path through the kernel's own NATs: a direct one where there can be one, else by the relay. With the kernel's
//! WireGuard where there is one, as in the virtual machines, which run some of these tests.

use std::time::Duration;

use lattice_overlay::kernel_has_wireguard;
use lattice_tests::{Host, Lab, Nat, Process, lab::wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// The path that `host` has to `peer`, as `lattice status` says: its kind and where it leads.
fn path(lab: &Lab, host: &Host, name: &str, peer: &str) -> (String, String) {
    let out = lab.run(host, &["status", name, "-o", "json"]);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let status: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
    let peers = status["peers"][0]["overlay"]["peers"].as_array().cloned().unwrap_or_default();
    let Some(found) = peers.into_iter().find(|found| found["name"] == peer) else {
        return Default::default();
    };
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("path"), text("endpoint"))
}

fn ping(lab: &Lab, host: &Host, peer: &str) -> lattice_tests::Output {
    // The second is for a path that was cut just before: a second of loss is what that may cost.
    lab.run(host, &["ping", peer, "--count", "3", "--timeout", "2"])
}

struct Pair {
    lab: Lab,
    a: Host,
    b: Host,
    _up: [Process; 2],
}

/// Two hosts that have joined, each behind its NAT or none.
fn joined(lab: Lab, a: Host, b: Host) -> Pair {
    joined_with(lab, a, b, "auto")
}

/// The same, with that WireGuard at the second one.
fn joined_with(lab: Lab, a: Host, b: Host, wireguard: &str) -> Pair {
    let up = [(&a, "a", "auto"), (&b, "b", wireguard)].map(|(host, name, wireguard)| {
        let (up, _) = lab.up_with(host, name, &["--wireguard", wireguard]);
        let kernel = wireguard == "auto" && kernel_has_wireguard();
        let backend = if kernel { "kernel" } else { "userspace" };
        assert!(up.output().1.contains(&format!(" {backend} udp ")), "{}", up.output().1);
        up
    });
    wait_until(LIMIT, "both to know of each other", || {
        path(&lab, &a, "a", "b") != Default::default() && path(&lab, &b, "b", "a") != Default::default()
    });
    Pair { lab, a, b, _up: up }
}

impl Pair {
    /// How both see it, for whoever looks at a failure.
    fn statuses(&self) -> String {
        let of = |host: &Host, name: &str| self.lab.run(host, &["status", name]).stdout;
        of(&self.a, "a") + &of(&self.b, "b")
    }

    fn assert_reach(&self, kind: &str, endpoint: &str) {
        for (host, name, peer) in [(&self.a, "a", "b"), (&self.b, "b", "a")] {
            let out = ping(&self.lab, host, peer);
            assert_eq!(out.code, 0, "{name} to {peer}: {}{}{}", out.stdout, out.stderr, self.statuses());
        }
        let mut seen = Default::default();
        wait_until(LIMIT, &format!("a {kind} path"), || {
            let _ = ping(&self.lab, &self.a, "b");
            seen = path(&self.lab, &self.a, "a", "b");
            seen.0 == kind && seen.1.starts_with(endpoint)
        });
    }
}

#[test]
fn two_nats_that_keep_ports_are_passed() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::Cone);
    let (b, router) = lab.host_behind(Nat::Cone);
    joined(lab, a, b).assert_reach("direct", &router.address.to_string());
}

#[test]
fn two_symmetric_nats_are_passed_by_the_relay() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::Symmetric);
    let (b, _b) = lab.host_behind(Nat::Symmetric);
    let pair = joined(lab, a, b);
    pair.assert_reach("relay", "");
    wait_until(LIMIT, "the reason why not directly", || {
        ping(&pair.lab, &pair.a, "b").stdout.contains("symmetric")
    });
}

#[test]
fn without_udp_there_is_the_relay_by_tcp() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::NoUdp);
    let b = lab.host();
    joined(lab, a, b).assert_reach("relay", "");
}

#[test]
fn a_direct_path_that_is_cut_is_replaced_by_the_relay_and_comes_back() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, other) = lab.host_behind(Nat::Cone);
    let (b, router) = lab.host_behind(Nat::Cone);
    let pair = joined(lab, a, b);
    pair.assert_reach("direct", "");
    router.cut(other.address);
    pair.assert_reach("relay", "");
    router.heal();
    pair.assert_reach("direct", "");
}

#[test]
fn a_host_that_gets_another_address_is_found_again() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::Cone);
    let (b, mut router) = lab.host_behind(Nat::Cone);
    let mut pair = joined(lab, a, b);
    pair.assert_reach("direct", &router.address.to_string());
    router.renumber(&mut pair.lab);
    pair.assert_reach("direct", &router.address.to_string());
}

#[test]
fn without_a_relay_and_a_stun_server_a_host_behind_a_nat_reaches_one_in_the_open() {
    let mut lab = Lab::start();
    let (a, _a) = lab.host_behind(Nat::Symmetric);
    let b = lab.host();
    let address = b.address.to_string();
    joined(lab, a, b).assert_reach("direct", &address);
}

#[test]
fn a_relay_that_is_killed_and_comes_back_is_used_again() {
    let mut lab = Lab::start();
    let mut reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::Symmetric);
    let (b, _b) = lab.host_behind(Nat::Symmetric);
    let pair = joined(lab, a, b);
    pair.assert_reach("relay", "");
    drop(reach.relay);
    let out = ping(&pair.lab, &pair.a, "b");
    assert_ne!(out.code, 0, "nothing else leads there: {}", out.stdout);
    reach.relay = pair.lab.start_relay();
    wait_until(LIMIT, "the relay to be used again", || ping(&pair.lab, &pair.a, "b").code == 0);
}

/// One of them is in user space in any case.
#[test]
fn two_kinds_of_wireguard_find_each_other_through_nats() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::Cone);
    let (b, router) = lab.host_behind(Nat::Cone);
    joined_with(lab, a, b, "userspace").assert_reach("direct", &router.address.to_string());
}
