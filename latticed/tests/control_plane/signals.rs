//! Signals between peers, as a running sandbox sends and opens them, over NATS as latticed sets it up.

use std::{sync::Arc, time::Duration};

use lattice_bootstrap::{
    Roster, SignalReceiver, SignalSender, Signals,
    signals::{Fate, MAX_SIGNAL},
};
use lattice_wire::{
    NetMap, PeerId, Signal, WgPrivateKey, WgPublicKey,
    seal::{seal, signal_context},
    subject,
};
use nix::sys::signal::{Signal as ProcessSignal, kill};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};
use zeroize::Zeroizing;

use crate::{
    peer::{PATIENCE, Peer, ask_to_enroll, bootstrap, random, request, sign},
    server::{Server, start, wait_until},
};

/// A peer that holds its WireGuard key, and its two ends of signals.
struct End {
    peer: Peer,
    key: WgPrivateKey,
    roster: watch::Sender<Arc<Roster>>,
    sender: SignalSender,
    receiver: SignalReceiver,
}

impl End {
    async fn enroll(server: &Server, name: &str, token: &str) -> Self {
        let key = WgPrivateKey::from_random(random());
        let (mut wanted, user) = request(name, token);
        wanted.wireguard_public_key = key.public();
        let wanted = sign(wanted, &user);
        let link = bootstrap(&server.signaling()).await;
        let grant = ask_to_enroll(&link, &wanted).await.unwrap();
        let peer = Peer::resume(server, grant, user).await;
        let (roster, current) = watch::channel(Arc::<Roster>::default());
        let (client, me) = (peer.link.client.clone(), peer.id().clone());
        let (sender, receiver) = Signals::start(client, me, key.clone(), current, &Handle::current());
        Self { peer, key, roster, sender, receiver }
    }

    /// Takes the network map as it is now.
    async fn refresh(&self) -> NetMap {
        // The answer also proves that the server has the subscription that was made before.
        let map = self.peer.netmap().await.unwrap();
        self.roster.send_replace(Arc::new(Roster::of(&map, 0)));
        map
    }

    fn public(&self) -> WgPublicKey {
        self.key.public()
    }

    async fn next(&mut self) -> (WgPublicKey, Signal) {
        timeout(PATIENCE, self.receiver.receive()).await.expect("a signal comes")
    }

    /// Waits until so many signals had this fate.
    async fn had(&self, fate: Fate, count: u64) {
        let wait = async {
            while self.sender.fates().of(fate) < count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{fate:?}: {:?}", self.sender.fates()));
        assert_eq!(self.sender.fates().of(fate), count, "{fate:?}");
    }

    /// Leaves `payload` for `to`, as it is.
    async fn leave(&self, to: &PeerId, payload: Vec<u8>) {
        let subject = subject::signal(to, self.peer.id());
        self.peer.link.client.publish(subject, payload.into()).await.unwrap();
    }

    fn sealed(&self, to: &End, text: &[u8]) -> Vec<u8> {
        let context = signal_context(self.peer.id(), to.peer.id());
        seal(&self.key, &to.public(), &context, text, Zeroizing::new(random())).unwrap()
    }
}

fn signal(seq: u64) -> Signal {
    Signal {
        epoch: 7,
        seq,
        answers: None,
        ufrag: "u".into(),
        password: "p".into(),
        candidates: vec![],
        relays: vec!["eu1".into()],
    }
}

async fn three(server: &Server) -> [End; 3] {
    let token = server.token("w", 3);
    let a = End::enroll(server, "a", &token).await;
    let b = End::enroll(server, "b", &token).await;
    let c = End::enroll(server, "c", &token).await;
    for end in [&a, &b, &c] {
        assert_eq!(end.refresh().await.peers.len(), 2);
    }
    [a, b, c]
}

#[tokio::test]
async fn two_peers_signal_each_other_also_when_nats_was_away() {
    let (_dir, server) = start();
    let [mut a, mut b, _c] = three(&server).await;
    a.sender.send(b.public(), signal(1));
    assert_eq!(b.next().await, (a.public(), signal(1)));
    b.sender.send(a.public(), signal(2));
    assert_eq!(a.next().await, (b.public(), signal(2)));

    let before = server.nats_pid().unwrap();
    kill(before, ProcessSignal::SIGKILL).unwrap();
    a.peer.link.lost().await;
    a.sender.send(b.public(), signal(3));
    wait_until("another nats-server", || server.nats_pid().is_some_and(|pid| pid != before));
    // Until the receiver has subscribed again, whatever comes for it is lost: then the sender sends anew, as it does for any answer.
    let again = async {
        loop {
            if let Ok(received) = timeout(Duration::from_millis(500), b.receiver.receive()).await {
                return received;
            }
            a.sender.send(b.public(), signal(3));
        }
    };
    assert_eq!(timeout(PATIENCE, again).await.expect("it comes"), (a.public(), signal(3)));
}

#[tokio::test]
async fn only_what_a_known_peer_sealed_for_this_one_is_opened() {
    let (_dir, server) = start();
    let [a, mut b, c] = three(&server).await;
    let to = &b.peer.id().clone();
    let good = a.sealed(&b, &serde_json::to_vec(&signal(1)).unwrap());

    // What another one has overheard, as its own; and in its own name, sealed with its own key as if from the first.
    c.leave(to, good.clone()).await;
    let forged = seal(&c.key, &b.public(), &signal_context(a.peer.id(), to), b"{}", Zeroizing::new(random()));
    c.leave(to, forged.unwrap()).await;
    b.had(Fate::Refused, 2).await;
    // Its own, but not what it should be.
    a.leave(to, b"garbage".to_vec()).await;
    a.leave(to, vec![]).await;
    b.had(Fate::Refused, 4).await;
    a.leave(to, a.sealed(&b, b"{}")).await;
    b.had(Fate::Malformed, 1).await;
    a.leave(to, vec![0; MAX_SIGNAL + 1]).await;
    b.had(Fate::TooBig, 1).await;
    assert!(b.receiver.try_receive().is_none());

    // Said again it comes again, word for word: that it is old is in it.
    for _ in 0..2 {
        a.leave(to, good.clone()).await;
        assert_eq!(b.next().await, (a.public(), signal(1)));
    }

    // Who is in no map any more is not heard, nor told anything.
    server.admin("DELETE", &format!("/api/v1/peers/{}", c.peer.id()), None);
    assert_eq!(b.refresh().await.peers.len(), 1);
    b.sender.send(c.public(), signal(1));
    b.had(Fate::Unknown, 1).await;
    b.roster.send_replace(Arc::default());
    a.leave(to, good).await;
    b.had(Fate::Unknown, 2).await;

    b.refresh().await;
    let big = Signal { ufrag: "u".repeat(MAX_SIGNAL), ..signal(1) };
    b.sender.send(a.public(), big);
    b.had(Fate::TooBig, 2).await;
    b.had(Fate::Received, 2).await;
}

#[tokio::test]
async fn who_floods_is_not_opened_and_others_are() {
    let (_dir, server) = start();
    let [a, mut b, c] = three(&server).await;
    let good = a.sealed(&b, &serde_json::to_vec(&signal(1)).unwrap());
    for _ in 0..2_000 {
        a.leave(b.peer.id(), good.clone()).await;
    }
    a.peer.netmap().await.unwrap();
    c.sender.send(b.public(), signal(9));
    while b.next().await != (c.public(), signal(9)) {}
    let fates = b.sender.fates();
    let [opened, dropped] = [Fate::Received, Fate::TooOften].map(|fate| fates.of(fate));
    assert!(dropped > 500 && opened + dropped == 2_001, "{fates:?}");
}
