use tokio::time::timeout;

use super::*;
use crate::{fake::Fake, live::tests::overlay};
use lattice_wire::message::RefusalCode;

const PATIENCE: Duration = Duration::from_secs(30);

fn relay(rest: &str) -> RelayServer {
    format!("lrp://{rest}#sha256={}", "0".repeat(64)).parse().unwrap()
}

fn reach(token: &str, not_after: i64) -> Reach {
    Reach {
        stun: vec!["localhost:3478".into(), "192.0.2.1:3478".into(), "no port".into(), "10.42.0.9:1".into()],
        relays: vec![
            relay("192.0.2.2:6267?name=a"),
            relay("[2001:db8::1]:1?tcp=2&name=b"),
            relay("nowhere.invalid:1?name=c"),
            RelayServer { fingerprint: "none".into(), ..relay("x:1") },
        ],
        relay_token: Some(token.into()),
        token_not_after: Some(not_after),
    }
}

fn finder(fake: &Fake, me: &PeerId) -> watch::Receiver<Arc<Reachable>> {
    let underlay = Arc::new(Netns::current().unwrap());
    Finder::start(fake.client.clone(), me.clone(), underlay, overlay(), &Handle::current())
}

async fn until(found: &mut watch::Receiver<Arc<Reachable>>, fits: impl Fn(&Reachable) -> bool) -> Reachable {
    let wait = found.wait_for(|found| fits(found));
    timeout(PATIENCE, wait).await.expect("it is found").unwrap().as_ref().clone()
}

#[tokio::test]
async fn names_become_addresses_and_what_has_no_form_nothing() {
    let fake = Fake::start().await;
    let me = PeerId::from_random([1; 10]);
    let end = now_unix() + 3600;
    fake.answer(&subject::peer(&me, PeerVerb::Reach), move |_| Ok(reach("lr-x", end))).await;
    let mut found = finder(&fake, &me);
    let stun = until(&mut found, |found| found.stun.len() > 1).await;
    assert!(stun.stun.iter().any(|at| at.ip().is_loopback() && at.port() == 3478), "localhost: {stun:?}");
    assert!(
        stun.stun.iter().all(|at| *at != "10.42.0.9:1".parse().unwrap()),
        "an overlay address is no server"
    );
    assert_eq!(stun.token.as_deref(), Some("lr-x"));
    assert!(!format!("{stun:?}").contains("lr-x"));
    let [a, b, c] = &stun.relays[..] else { panic!("{stun:?}") };
    assert_eq!((&a.quic[..], &a.tcp[..]), (&["192.0.2.2:6267".parse().unwrap()][..], &[][..]));
    assert_eq!(
        (&b.quic[..], &b.tcp[..]),
        (&["[2001:db8::1]:1".parse().unwrap()][..], &["[2001:db8::1]:2".parse().unwrap()][..])
    );
    assert!(c.quic.is_empty(), "who is not found is still named: {c:?}");
}

#[tokio::test]
async fn a_token_is_replaced_after_a_reconnect_and_is_gone_when_it_is_over() {
    let fake = Fake::start().await;
    let me = PeerId::from_random([1; 10]);
    let begin = now_unix();
    let count = std::sync::atomic::AtomicU32::new(0);
    let asked = fake
        .answer(&subject::peer(&me, PeerVerb::Reach), move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0 => Err(RefusalCode::Unavailable),
            1 => Ok(reach("lr-1", begin + 3600)),
            // The control plane's clock is behind, or the peer was removed meanwhile.
            2 => Ok(reach("lr-2", now_unix() + 4)),
            _ => Err(RefusalCode::PeerUnknown),
        })
        .await;
    let mut found = finder(&fake, &me);
    until(&mut found, |found| found.token.as_deref() == Some("lr-1")).await;
    assert_eq!(asked.lock().unwrap().len(), 2, "what failed was tried again");
    fake.client.force_reconnect().await.unwrap();
    until(&mut found, |found| found.token.as_deref() == Some("lr-2")).await;
    let over = until(&mut found, |found| found.token.is_none()).await;
    assert_eq!(over.relays.len(), 3, "the servers stay");
}

#[tokio::test]
async fn it_ends_with_its_last_reader() {
    let fake = Fake::start().await;
    let me = PeerId::from_random([1; 10]);
    let (found, receiver) = watch::channel(Arc::default());
    let lookups = Lookups::new(Arc::new(Netns::current().unwrap()));
    let (client, overlay, reach) = (fake.client.clone(), overlay(), Reach::default());
    let finder = Finder { client, me, overlay, reach, lookups, connects: 0, due: 0, failures: 0, found };
    let task = tokio::spawn(finder.run());
    drop(receiver);
    timeout(PATIENCE, task).await.expect("it ends").unwrap();
}

#[test]
fn due_at_half_of_the_time_and_never_in_a_hurry() {
    assert_eq!(due(Some(3600), 0, 0), 1800);
    assert!((1350..1800).contains(&due(Some(3600), 255, 0)));
    assert_eq!(due(None, 0, 100), 1900);
    for end in [i64::MIN, 0, 5] {
        assert_eq!(due(Some(end), 9, 0), AT_MOST_EVERY);
    }
    assert!(due(Some(i64::MAX), 0, 0) <= 1800, "whatever latticed says");
}
