//! With a real nats-server, and nobody behind it who answers: a push, and the clock, are enough.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_nats::client::RequestErrorKind;
use lattice_dns::Names;
use lattice_policy::Policy;
use lattice_wire::{MapDelta, WgPrivateKey, credentials::VERSION, message::PeerKind};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::*;
use crate::{
    ServerUrl,
    heard::Heard,
    identity::Join,
    live::Live,
    settle::tests::{Seen, Told, with_policy},
};

/// Ends with the test.
struct Nats {
    child: Child,
    url: String,
    // Without a reader the server would die of its next line.
    _log: BufReader<ChildStderr>,
}

impl Nats {
    fn start() -> Self {
        let mut command = Command::new("nats-server");
        let mut child = command
            .args(["-a", "127.0.0.1", "-p", "-1"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("nats-server");
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let url = loop {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "nats-server ended");
            if let Some((_, at)) = line.split_once("Listening for client connections on ") {
                break format!("nats://{}", at.trim());
            }
        };
        Self { child, url, _log: log }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn credentials(map: &NetMap, nats_url: &str) -> Credentials {
    Credentials {
        version: VERSION,
        name: "a".parse().unwrap(),
        peer: map.peer.clone(),
        workspace: map.workspace.clone(),
        address: map.address,
        server_url: String::new(),
        nats_url: nats_url.into(),
        nats_tls: None,
        server_ca: None,
        nats_jwt: String::new(),
        nats_seed: String::new(),
        wireguard_private_key: WgPrivateKey::from_random([7; 32]),
        listen_port: 0,
    }
}

impl Told {
    async fn next(&mut self) -> String {
        // Only says when the test has failed.
        tokio::time::timeout(Duration::from_secs(30), self.0.recv()).await.unwrap().unwrap()
    }

    async fn expect<const N: usize>(&mut self, what: [&str; N]) {
        for what in what {
            assert_eq!(self.next().await, what);
        }
    }
}

/// A tunnel whose policy allows 10.42.0.0/24, and whose enforcer takes a policy when `takes` says so.
async fn tunnel(nats: &Nats, takes: impl Fn(&Policy) -> bool + Send + 'static) -> (Tunnel, Told) {
    let (tunnel, _, told) = tunnel_and_policy(nats, takes).await;
    (tunnel, told)
}

async fn tunnel_and_policy(
    nats: &Nats,
    takes: impl Fn(&Policy) -> bool + Send + 'static,
) -> (Tunnel, Arc<Mutex<Live>>, Told) {
    let map = with_policy(&["10.42.0.0/24"]);
    let (seen, told) = Seen::new();
    let credentials = credentials(&map, &nats.url);
    let join = Join {
        name: credentials.name.clone(),
        kind: PeerKind::Sandbox,
        server: ServerUrl::parse("http://127.0.0.1:1", None).unwrap(),
        token: None,
        credentials: "/nonexistent".into(),
        listen_port: 0,
        preset: None,
        for_good: false,
    };
    let live = Arc::new(seen.live("10.42.0.0/24", takes));
    let current = watch::Sender::new(Arc::new(map));
    let tunnel = Tunnel {
        client: async_nats::connect(&nats.url).await.unwrap(),
        renewal: Renewal::new(join, session::Jwt::new(""), &credentials, None),
        credentials,
        underlay: Arc::new(Netns::current().unwrap()),
        applier: Applier::new(
            current,
            Arc::new(seen),
            Names::default(),
            Some(live.clone()),
            None,
            Heard::just_now(),
        ),
        for_good: false,
    };
    (tunnel, live, told)
}

/// Waits until the server knows of the subscription: what is pushed before reaches nobody. Garbage is not a map.
async fn subscribed(server: &Client) {
    let to = subject::config(&with_policy(&[]).peer);
    loop {
        let asked = server.request(to.clone(), "garbage".into());
        match tokio::time::timeout(Duration::from_millis(100), asked).await {
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {}
            _ => return,
        }
    }
}

#[tokio::test]
async fn a_pushed_policy_and_the_end_of_the_own_time_are_followed() {
    let nats = Nats::start();
    let server = async_nats::connect(&nats.url).await.unwrap();
    let (tunnel, mut told) = tunnel(&nats, |_| true).await;
    let sync = Sync::start(tunnel).await.unwrap();
    assert_eq!(told.next().await, "3 peers", "one of the four has expired");

    let push = async |generation, egress: &[&str], not_after| {
        let map = NetMap { generation, not_after, ..with_policy(egress) };
        let to = subject::config(&map.peer);
        let payload = serde_json::to_vec(&MapUpdate::Full(map)).unwrap();
        server.publish(to, payload.into()).await.unwrap();
    };
    subscribed(&server).await;
    push(2, &["10.42.0.5"], None).await;
    told.expect(["1 rules, taken", "3 peers"]).await;
    push(3, &["10.42.0.0/24"], None).await;
    told.expect(["3 peers", "1 rules, taken"]).await;

    push(4, &["10.42.0.0/24"], Some(now_unix() + 1)).await;
    // Before its time is over the peers are set once more, unless the machine is slow.
    while told.next().await != "0 rules, taken" {}
    told.expect(["0 peers"]).await;
    push(5, &["10.42.0.0/24"], None).await;
    told.expect(["3 peers", "1 rules, taken"]).await;
    sync.end().await;
}

/// Of another history only what was asked for is taken: what is pushed may be of before, or of after.
#[tokio::test]
async fn a_push_of_another_epoch_makes_it_ask_and_changes_nothing() {
    let nats = Nats::start();
    let (mut tunnel, mut told) = tunnel(&nats, |_| true).await;
    let map = tunnel.applier.map.clone();
    let other = NetMap { epoch: map.epoch + 1, generation: 99, ..with_policy(&[]) };
    let delta = MapDelta {
        epoch: other.epoch,
        since: map.generation,
        generation: 99,
        changed: vec![],
        removed: map.peers.iter().map(|peer| peer.id.clone()).collect(),
        sum: 0,
        not_after: None,
        policy: None,
    };
    for update in [MapUpdate::Full(other.clone()), MapUpdate::Delta(delta)] {
        assert_eq!(tunnel.update(update, None).await, Applied::Gap);
        assert_eq!(tunnel.applier.map, map);
    }
    // Its history is younger than ours.
    let younger = NetMap { generation: 0, ..other };
    let asked = Some(map.version());
    assert_eq!(tunnel.update(MapUpdate::Full(younger.clone()), asked).await, Applied::Newer);
    assert_eq!(*tunnel.applier.map, younger);
    told.expect(["0 rules, taken"]).await;
}

/// The first thing that it does is to ask for the map, which takes five seconds here, as the heartbeat after it. The own time is over
/// before: were the addresses to wait for an answer, that would come first.
#[tokio::test]
async fn while_nats_does_not_answer_the_hosts_addresses_and_the_end_of_the_own_time_are_followed() {
    let nats = Nats::start();
    let (mut tunnel, live, mut told) = tunnel_and_policy(&nats, |_| true).await;
    let ends = Some(now_unix() + 5);
    tunnel.applier.map = Arc::new(NetMap { not_after: ends, ..with_policy(&["10.42.0.0/24"]) });
    let sync = Sync::start(tunnel).await.unwrap();
    told.expect(["3 peers"]).await;
    kill(Pid::from_raw(nats.child.id().cast_signed()), Signal::SIGSTOP).unwrap();
    // By then it has asked. Were it not so, this test would say less, and not fail.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = std::time::Instant::now();
    for own in ["192.0.2.1/32", "192.0.2.2/32"] {
        let nets = vec![own.parse().unwrap()];
        live.lock().unwrap_or_else(PoisonError::into_inner).set_unreachable(nets, Vec::new());
        // What is denied is a rule, too.
        told.expect(["2 rules, taken", "3 peers"]).await;
    }
    println!("two changes took {:?}", begun.elapsed());
    told.expect(["0 rules, taken", "0 peers"]).await;
    sync.end().await;
}

#[tokio::test]
async fn what_could_not_be_applied_is_tried_again() {
    let nats = Nats::start();
    let takes = Arc::new(AtomicBool::new(false));
    let now = takes.clone();
    let (mut tunnel, mut told) = tunnel(&nats, move |_| now.load(Ordering::Relaxed)).await;
    tunnel.replace(NetMap { generation: 2, ..with_policy(&["10.42.0.5"]) }).await;
    told.expect(["1 rules, not", "0 rules, not", "0 peers"]).await;

    takes.store(true, Ordering::Relaxed);
    let pushes = tunnel.client.subscribe("nothing").await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(tunnel.follow(pushes, stopped));
    told.expect(["1 rules, taken", "3 peers"]).await;
    stop.send(true).unwrap();
    task.await.unwrap();
}
