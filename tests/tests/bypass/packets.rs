//! Packets, by every kind of socket and every way to say where to.

use lattice_policy::{Action, Reason};

use crate::{
    Enforcer,
    cases::{Case, GUARDED, RAW, UNNAMED, arrived, names},
    world::{Result, World},
};

/// In the sandbox nothing arrived, nothing succeeded, nothing hung, and the record says why.
fn assert_blocked(world: &World, enforcer: Enforcer, cases: &[Case], egress: &[&str]) {
    let (results, seen) = world.in_sandbox(enforcer, &names(cases), egress);
    let records = world.records();
    let mut wrong = Vec::new();
    for case in cases {
        let Some(Result { result, .. }) = results.iter().find(|result| result.name == case.name) else {
            wrong.push(format!("{}: no result", case.name));
            continue;
        };
        if arrived(case, &seen) {
            wrong.push(format!("{}: ARRIVED ({result})", case.name));
        }
        // By packets alone, whoever sends to a group is told nothing, as on any network; who joins one, only by his own kernel.
        let told = case.reason != Some(Reason::Multicast) && case.name != "joined";
        if told && ["ok", "silence"].contains(&result.as_str()) {
            wrong.push(format!("{}: was not told that it is refused ({result})", case.name));
        }
        let to = case.to();
        let recorded = records.iter().any(|record| {
            record.dst_ip == to && record.action == Action::Deny && Some(record.reason) == case.reason
        });
        if case.reason.is_some() && !recorded {
            let of_it: Vec<_> = records.iter().filter(|record| record.dst_ip == to).collect();
            wrong.push(format!("{}: not on record as {:?}: {of_it:?} ({result})", case.name, case.reason));
        }
    }
    assert!(wrong.is_empty(), "{enforcer:?}: {wrong:#?}");
}

/// Beside the sandbox it arrives, which proves the attempt.
fn assert_works_natively(world: &World, cases: &[Case]) {
    let (results, seen) = world.natively(&names(cases));
    let result = |case: &Case| results.iter().find(|result| result.name == case.name);
    // Not every kernel has SCTP, UDP-Lite and multipath TCP.
    let unknown = |case: &Case| {
        result(case).is_some_and(|r| ["EPROTONOSUPPORT", "ESOCKTNOSUPPORT"].contains(&r.result.as_str()))
    };
    let absent = cases.iter().filter(|case| case.proto != 0 && !arrived(case, &seen));
    let (skipped, missing): (Vec<_>, Vec<_>) = absent.partition(|case| unknown(case));
    for case in skipped {
        println!("SKIPPED: {}: this kernel has no such protocol", case.name);
    }
    let missing: Vec<_> =
        missing.into_iter().map(|case| format!("{}: {:?}", case.name, result(case))).collect();
    assert!(missing.is_empty(), "the twin did not get through either: {missing:#?}");
}

#[test]
fn what_no_rule_names_is_out_of_reach() {
    let world = World::new();
    assert_works_natively(&world, &UNNAMED);
    for enforcer in Enforcer::ALL {
        assert_blocked(&world, enforcer, &UNNAMED, enforcer.rules(&["tcp:203.0.113.7/32:443"]));
    }
}

#[test]
fn what_is_guarded_is_out_of_reach_of_a_rule_for_everything() {
    let world = World::new();
    assert_works_natively(&world, &GUARDED);
    for enforcer in Enforcer::ALL {
        assert_blocked(&world, enforcer, &GUARDED, enforcer.rules(&["0.0.0.0/0", "::/0"]));
    }
}

#[test]
fn no_socket_of_the_sandbox_says_what_the_policy_does_not_know() {
    let world = World::new();
    assert_works_natively(&world, &RAW);
    for enforcer in Enforcer::ALL {
        assert_blocked(&world, enforcer, &RAW, enforcer.rules(&["0.0.0.0/0", "::/0"]));
    }
}
