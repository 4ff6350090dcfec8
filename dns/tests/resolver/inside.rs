//! The resolver asked from within its process, as a proxy does.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use hickory_proto::rr::RecordType;
use lattice_dns::{
    NotResolved, Transport, Why,
    limits::{MAX_OUTSTANDING, NAME_BURST},
};
use tokio::{runtime::Builder, task::JoinSet, time::timeout};

use crate::lab::{AGENT, Lab, PATIENCE, query};

/// Of a proxy.
const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)), 4321);

fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, work).await }).expect("it is answered")
}

fn ask(lab: &Lab, name: &str) -> Result<Vec<IpAddr>, NotResolved> {
    wait(lab.resolver.asker().addresses(name, CLIENT))
}

fn refused(why: Why, rule: Option<u32>) -> Result<Vec<IpAddr>, NotResolved> {
    Err(NotResolved::Refused { why, rule })
}

#[test]
fn both_kinds_are_told_pinned_and_remembered() {
    let lab = Lab::without_sockets();
    let v4 = IpAddr::from([192, 0, 2, 1]);
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    for name in ["api.example.com", "API.Example.com."] {
        assert_eq!(ask(&lab, name), Ok(vec![v4, v6]), "{name}");
    }
    let api = || "api.example.com".to_owned();
    let mut pinned = lab.gate.pinned();
    pinned.sort();
    assert_eq!(pinned, [(api(), vec![v4]), (api(), vec![v4]), (api(), vec![v6]), (api(), vec![v6])]);
    let counters = lab.resolver.counters();
    assert_eq!((counters.queries, counters.forwarded, counters.cached), (4, 2, 2));
    assert_eq!(ask(&lab, "mixed.example.com"), Ok(vec![v4, v6]), "what the gate does not admit is not told");
    assert_eq!(ask(&lab, "chain.example.com"), Ok(vec![IpAddr::from([192, 0, 2, 7]), v6]));
}

#[test]
fn peers_come_first_and_never_leave_the_host() {
    let lab = Lab::without_sockets();
    let tool = Ok(vec![IpAddr::from([10, 42, 0, 2])]);
    for name in ["tool", "TOOL.", "tool.lattice", "tool.acme.lattice."] {
        assert_eq!(ask(&lab, name), tool, "{name}");
    }
    assert_eq!(ask(&lab, "localhost"), Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
    assert_eq!(ask(&lab, "nobody.lattice"), Err(NotResolved::NoName));
    assert_eq!(ask(&lab, "nobody"), refused(Why::SingleLabel, None));
    assert!(lab.upstream.seen().is_empty());
}

/// What is refused over the sockets is refused here with the same words on record.
#[test]
fn refusals_are_those_of_the_sockets() {
    let by_sockets = Lab::new();
    let inside = Lab::without_sockets();
    for (name, why, rule) in [
        ("secret.evil.com", Why::Unknown, None),
        ("denied.example.com", Why::Denied, Some(9)),
        ("rebind.example.com", Why::Answer, Some(1)),
        ("*.example.com", Why::Name, None),
        ("single", Why::SingleLabel, None),
    ] {
        by_sockets.tcp(&query(&format!("{name}."), RecordType::A));
        assert_eq!(ask(&inside, name), refused(why, rule), "{name}");
    }
    let [(theirs, their_clients), (ours, our_clients)] = [by_sockets, inside].map(|lab| {
        let refusals = lab.gate.refused();
        let clients: Vec<IpAddr> = refusals.iter().map(|refusal| refusal.client.ip()).collect();
        let told =
            refusals.into_iter().map(|refusal| (refusal.name, refusal.why, refusal.rule, refusal.transport));
        // The other kind of address may have been refused when a second was over.
        let mut told: Vec<_> = told.collect();
        told.dedup();
        (told, clients)
    });
    assert_eq!(theirs, ours);
    assert!(their_clients.iter().all(|client| *client == AGENT.ip()));
    assert!(our_clients.iter().all(|client| *client == CLIENT.ip()));
    assert!(ours.iter().all(|(_, _, _, transport)| *transport == Transport::Tcp));
}

#[test]
fn names_that_cannot_be_asked_for_are_on_record_too() {
    let lab = Lab::without_sockets();
    let (label, name) = ("a".repeat(64), "a.".repeat(200));
    for unfit in
        ["a..example.com", "", ".", "..", label.as_str(), name.as_str(), "a\0.example.com", "é.example.com"]
    {
        assert_eq!(ask(&lab, unfit), refused(Why::Name, None), "{unfit:?}");
    }
    let told: Vec<String> = lab.gate.refused().into_iter().map(|refusal| refusal.name).collect();
    assert!(told.contains(&"a..example.com".to_owned()), "{told:?}");
    assert!(
        told.iter().all(|name| name.len() <= 255 && name.bytes().all(|c| c.is_ascii_graphic())),
        "{told:?}"
    );
    assert!(lab.upstream.seen().is_empty());
}

#[test]
fn no_such_name_and_no_nameserver_are_told_apart() {
    let lab = Lab::without_sockets();
    assert_eq!(ask(&lab, "missing.example.com"), Err(NotResolved::NoName));
    assert_eq!(ask(&lab, "empty.example.com"), Err(NotResolved::NoName));
    assert_eq!(ask(&lab, "broken.example.com"), Err(NotResolved::Failed));
    assert_eq!(ask(&lab, "silent.example.com"), Err(NotResolved::Failed), "the deadline holds");
}

#[test]
fn what_waits_is_bounded_and_the_oldest_goes() {
    let lab = Lab::without_sockets();
    let results = wait(async {
        let mut asking = JoinSet::new();
        for _ in 0..MAX_OUTSTANDING {
            let asker = lab.resolver.asker();
            asking.spawn(async move { asker.addresses("silent.example.com", CLIENT).await });
        }
        asking.join_all().await
    });
    let count = |wanted: &Result<_, _>| results.iter().filter(|result| *result == wanted).count();
    let (pushed_out, failed) = (count(&refused(Why::Outstanding, Some(1))), count(&Err(NotResolved::Failed)));
    assert_eq!(pushed_out + failed, MAX_OUTSTANDING);
    assert_eq!(lab.resolver.counters().refused(Why::Outstanding), MAX_OUTSTANDING as u64);
    assert!(failed > 0 && pushed_out > 0, "{pushed_out} pushed out, {failed} failed");
}

#[test]
fn the_limits_of_the_sockets_hold() {
    let lab = Lab::without_sockets();
    // Never remembered, so each one is asked anew: the burst is that of both kinds together.
    let burst = usize::try_from(NAME_BURST).unwrap();
    let results: Vec<_> = (0..burst).map(|_| ask(&lab, "broken.example.com")).collect();
    assert!(results.contains(&refused(Why::NameRate, Some(1))), "{results:?}");
}

#[test]
fn who_waits_learns_that_the_resolver_has_ended() {
    let mut lab = Lab::without_sockets();
    let asker = lab.resolver.asker();
    let waiting = {
        let asker = asker.clone();
        std::thread::spawn(move || wait(asker.addresses("silent.example.com", CLIENT)))
    };
    lab.wait("the question is on its way", || !lab.upstream.seen().is_empty());
    lab.resolver = Lab::without_sockets().resolver;
    assert_eq!(waiting.join().unwrap(), Err(NotResolved::Failed));
    assert_eq!(wait(asker.addresses("tool", CLIENT)), Err(NotResolved::Failed));
}
