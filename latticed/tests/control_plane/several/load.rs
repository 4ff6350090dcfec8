//! Clients that do not give up: they enrol through any latticed until one says yes, and then live.

use std::{
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lattice_wire::{
    message::{EnrollGrant, EnrollRequest, RefusalCode, Reply, Signaling},
    subject::{self, PeerVerb},
};
use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};

use crate::{
    peer::{PATIENCE, Peer, connect, public_key, request},
    server::Server,
};

/// Clients that enrol over NATS.
pub const PEERS: usize = 32;
/// Clients that enrol over HTTP.
pub const AGENTS: usize = 8;
/// Clients with the same one-time token.
pub const RIVALS: usize = 6;

/// So many enrol at the same time: the others begin while things are being killed.
const AT_ONCE: usize = 4;
/// So long until a client takes an answer for lost and asks again, elsewhere.
const LOST: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);

/// What all clients share.
struct World {
    /// Where the latticed are now.
    http: RwLock<Vec<String>>,
    admin: String,
    turn: Semaphore,
    enrolled: watch::Sender<usize>,
    stop: watch::Sender<bool>,
    asked: AtomicUsize,
}

/// The running clients.
pub struct Load {
    world: Arc<World>,
    peers: Vec<JoinHandle<(String, Peer)>>,
    agents: Vec<JoinHandle<Option<(String, String)>>>,
    rivals: Vec<JoinHandle<Option<(String, Peer)>>>,
    policies: JoinHandle<usize>,
}

/// What they were told.
pub struct Done {
    pub peers: Vec<Peer>,
    /// Names and ids.
    pub acknowledged: Vec<(String, String)>,
}

impl Load {
    pub fn start(servers: &[Server], admin: &str) -> Self {
        let world = Arc::new(World {
            http: RwLock::default(),
            admin: admin.to_owned(),
            turn: Semaphore::new(AT_ONCE),
            enrolled: watch::Sender::new(0),
            stop: watch::Sender::new(false),
            asked: AtomicUsize::new(0),
        });
        let many = servers[0].token("w", u32::try_from(PEERS).unwrap());
        let one = servers[0].token("w", 1);
        let load = Self {
            peers: (0..PEERS).map(|n| tokio::spawn(live(Arc::clone(&world), n, many.clone()))).collect(),
            agents: (0..AGENTS).map(|n| tokio::spawn(agent(Arc::clone(&world), n))).collect(),
            rivals: (0..RIVALS).map(|n| tokio::spawn(rival(Arc::clone(&world), n, one.clone()))).collect(),
            policies: tokio::spawn(policies(Arc::clone(&world))),
            world,
        };
        load.now(servers);
        load
    }

    /// Where the latticed are from now on.
    pub fn now(&self, servers: &[Server]) {
        *self.world.http.write().unwrap() = servers.iter().map(|server| server.http.clone()).collect();
    }

    /// Waits until so many clients are enrolled.
    pub async fn enrolled(&self, count: usize) {
        timeout(PATIENCE, self.world.comes_to(count)).await.expect("they enrol");
    }

    /// Ends it: nobody asks for anything any more.
    pub async fn end(self) -> Done {
        self.world.stop.send_replace(true);
        let mut done = Done { peers: vec![], acknowledged: vec![] };
        let mut peers = vec![];
        for peer in self.peers {
            peers.push(peer.await.unwrap());
        }
        for rival in self.rivals {
            peers.extend(rival.await.unwrap());
        }
        for (name, peer) in peers {
            done.acknowledged.push((name, peer.id().to_string()));
            done.peers.push(peer);
        }
        for agent in self.agents {
            done.acknowledged.extend(agent.await.unwrap());
        }
        assert!(self.policies.await.unwrap() > 0, "policies came and went");
        done
    }
}

impl World {
    /// Asks the next latticed. `None` when it does not answer.
    async fn http(
        self: &Arc<Self>,
        method: &'static str,
        path: &str,
        body: Option<Value>,
    ) -> Option<(u16, Value)> {
        let n = self.asked.fetch_add(1, Ordering::Relaxed);
        let url = {
            let http = self.http.read().unwrap();
            format!("{}{path}", http.get(n % http.len().max(1))?)
        };
        let bearer = format!("Bearer {}", self.admin);
        let asked = spawn_blocking(move || {
            let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(LOST));
            let request =
                ureq::http::Request::builder().method(method).uri(url).header("authorization", bearer);
            let request = request.header("content-type", "application/json");
            let body = body.map(|body| body.to_string()).unwrap_or_default();
            let mut answer = ureq::Agent::from(config.build()).run(request.body(body).ok()?).ok()?;
            let text = answer.body_mut().read_to_string().ok()?;
            Some((answer.status().as_u16(), serde_json::from_str(&text).unwrap_or_default()))
        });
        asked.await.unwrap()
    }

    /// Ready when so many are enrolled.
    async fn comes_to(&self, count: usize) {
        self.enrolled.subscribe().wait_for(|enrolled| *enrolled >= count).await.unwrap();
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// One attempt, as `lattice` makes it. `None` when something on the way is gone.
    async fn enroll(
        self: &Arc<Self>,
        request: &EnrollRequest,
    ) -> Option<(Signaling, Result<EnrollGrant, RefusalCode>)> {
        let (_, at) =
            self.http("GET", "/api/v1/signaling", None).await.filter(|(status, _)| *status == 200)?;
        let at: Signaling = serde_json::from_value(at).unwrap();
        let key = Arc::new(KeyPair::from_seed(&at.bootstrap.seed).unwrap());
        let link = connect(&at, &at.bootstrap.jwt, &key, &at.bootstrap.inbox).await.ok()?;
        let payload = serde_json::to_vec(request).unwrap();
        let reply = timeout(LOST, link.client.request(subject::ENROLL, payload.into())).await.ok()?.ok()?;
        match serde_json::from_slice(&reply.payload).unwrap() {
            Reply::Ok(grant) => Some((at, Ok(grant))),
            Reply::Error(refusal) => Some((at, Err(refusal.code))),
        }
    }

    /// Attempts until somebody says yes, or what only a spent token is answered.
    async fn enrolled(self: &Arc<Self>, request: &EnrollRequest, key: Arc<KeyPair>) -> Option<Peer> {
        loop {
            match timeout(LOST * 2, self.enroll(request)).await.ok().flatten() {
                Some((at, Ok(grant))) => {
                    let inbox = subject::inbox(&grant.peer);
                    let Ok(link) = connect(&at, &grant.nats_jwt, &key, &inbox).await else { continue };
                    // As if that answer had been lost.
                    match timeout(LOST * 2, self.enroll(request)).await.ok().flatten() {
                        Some((_, Ok(again))) => {
                            assert_eq!((again.peer, again.address), (grant.peer.clone(), grant.address))
                        }
                        Some((_, Err(RefusalCode::Internal | RefusalCode::RateLimited))) | None => {}
                        Some((_, Err(other))) => panic!("{}: {other:?}", request.name),
                    }
                    return Some(Peer { grant, key, link });
                }
                Some((_, Err(RefusalCode::TokenUsed))) => return None,
                Some((_, Err(RefusalCode::Internal | RefusalCode::RateLimited))) | None => sleep(PAUSE).await,
                Some((_, Err(other))) => panic!("{}: {other:?}", request.name),
            }
        }
    }
}

/// Enrols, and then heartbeats and renews itself.
async fn live(world: Arc<World>, n: usize, token: String) -> (String, Peer) {
    let (request, key) = request(&format!("peer-{n}"), &token);
    let turn = world.turn.acquire().await.unwrap();
    let peer = world.enrolled(&request, key).await.expect("there are uses for all");
    drop(turn);
    world.enrolled.send_modify(|enrolled| *enrolled += 1);
    let beat = json!({"endpoints": [format!("192.0.2.{}:51820", n + 1)], "generation": 0});
    let mut stop = world.stop.subscribe();
    while !world.stopped() {
        for (verb, body) in [(PeerVerb::Heartbeat, &beat), (PeerVerb::Renew, &json!({}))] {
            let asked = peer.link.client.request(subject::peer(peer.id(), verb), body.to_string().into());
            if let Ok(Ok(reply)) = timeout(LOST, asked).await {
                let reply: Reply<Value> = serde_json::from_slice(&reply.payload).unwrap();
                assert!(!matches!(reply, Reply::Error(refusal) if refusal.code == RefusalCode::PeerUnknown));
            }
        }
        let _ = timeout(PAUSE * 5, stop.wait_for(|stop| *stop)).await;
    }
    (request.name.to_string(), peer)
}

/// Enrols over HTTP: its name and its id, if it was told. Who asks again after a lost answer finds its own name taken.
async fn agent(world: Arc<World>, n: usize) -> Option<(String, String)> {
    world.comes_to(n * 4).await;
    let name = format!("agent-{n}");
    let body = json!({"agentName": name, "workspaceId": "w", "publicKey": public_key()});
    let mut lost = false;
    loop {
        let answer = world.http("POST", "/api/v1/agent-enroll", Some(body.clone())).await;
        match answer {
            Some((201, made)) => {
                world.enrolled.send_modify(|enrolled| *enrolled += 1);
                return Some((name, made["peerId"].as_str().unwrap().to_owned()));
            }
            Some((409, taken)) => {
                assert!(lost, "{taken}");
                world.enrolled.send_modify(|enrolled| *enrolled += 1);
                return None;
            }
            Some((429 | 500.., _)) | None => {
                lost = true;
                sleep(PAUSE).await;
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Enrols with a token that admits one of several.
async fn rival(world: Arc<World>, n: usize, token: String) -> Option<(String, Peer)> {
    world.comes_to(n * 6).await;
    let (request, key) = request(&format!("rival-{n}"), &token);
    Some((request.name.to_string(), world.enrolled(&request, key).await?))
}

/// Adds and removes a policy; how often that succeeded.
async fn policies(world: Arc<World>) -> usize {
    let mut made = 0;
    while !world.stopped() {
        let rules = json!([{"direction": "egress", "action": "deny", "rule": "tcp:192.0.2.0/24:443"}]);
        let body = json!({"workspace": "w", "policy": {"name": "p", "rules": rules}});
        let added = world.http("POST", "/api/v1/policies", Some(body)).await;
        made += usize::from(added.is_some_and(|(status, _)| status == 201));
        world.http("DELETE", "/api/v1/policies/p?workspace=w", None).await;
        sleep(PAUSE).await;
    }
    made
}
