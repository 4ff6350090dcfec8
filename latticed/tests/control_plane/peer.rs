//! A peer, as `lattice` is one, but able to misbehave.

use std::{sync::Arc, time::Duration};

use async_nats::{AuthError, Client, ConnectOptions, Event, Subscriber};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt as _;
use lattice_wire::{
    Applied, MapRequest, MapUpdate, MapVersion, NetMap, PeerId, WgPrivateKey, WgPublicKey,
    message::{Ack, EnrollGrant, EnrollRequest, Heartbeat, Leave, PeerKind, RefusalCode, Reply, Signaling},
    subject::{self, PeerVerb},
};
use nkeys::KeyPair;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};

use crate::server::Server;

/// An enrolled and connected peer.
pub struct Peer {
    pub grant: EnrollGrant,
    pub key: Arc<KeyPair>,
    pub link: Link,
}

/// A connection to NATS and what happens on it.
pub struct Link {
    pub client: Client,
    events: mpsc::UnboundedReceiver<Event>,
}

/// So long until a test fails that would otherwise hang.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// Connects as the user of `jwt` to the NATS server that `at` tells of.
pub async fn connect(
    at: &Signaling,
    jwt: &str,
    key: &Arc<KeyPair>,
    inbox: &str,
) -> Result<Link, async_nats::ConnectError> {
    let key = Arc::clone(key);
    let (sender, events) = mpsc::unbounded_channel();
    let mut options = ConnectOptions::with_jwt(jwt.to_owned(), move |nonce| {
        let key = Arc::clone(&key);
        async move { key.sign(&nonce).map_err(AuthError::new) }
    })
    .custom_inbox_prefix(inbox)
    .connection_timeout(PATIENCE)
    .event_callback(move |event| {
        let _ = sender.send(event);
        async {}
    });
    if let Some(trust) = &at.nats_tls {
        options = options.require_tls(true).tls_client_config(trust.client_config().unwrap());
    }
    let client = options.connect(at.nats_url.split(',').collect::<Vec<_>>()).await?;
    Ok(Link { client, events })
}

/// Connects as a bootstrap user.
pub async fn bootstrap(signaling: &Signaling) -> Link {
    let user = &signaling.bootstrap;
    let key = Arc::new(KeyPair::from_seed(&user.seed).unwrap());
    connect(signaling, &user.jwt, &key, &user.inbox).await.unwrap()
}

/// A correct enrolment request for new keys.
pub fn request(name: &str, token: &str) -> (EnrollRequest, Arc<KeyPair>) {
    let key = Arc::new(KeyPair::new_user());
    let request = EnrollRequest {
        name: name.parse().unwrap(),
        kind: PeerKind::Sandbox,
        token: token.to_owned(),
        wireguard_public_key: WgPrivateKey::from_random(random()).public(),
        nats_public_key: key.public_key(),
        endpoints: vec!["192.0.2.1:51820".parse().unwrap()],
        preset: None,
        proof: String::new(),
    };
    (sign(request, &key), key)
}

pub fn sign(mut request: EnrollRequest, key: &KeyPair) -> EnrollRequest {
    request.proof = STANDARD.encode(key.sign(&request.signed_bytes()).unwrap());
    request
}

/// Sends an enrolment request.
pub async fn ask_to_enroll(link: &Link, request: &EnrollRequest) -> Result<EnrollGrant, RefusalCode> {
    link.ask(subject::ENROLL, &serde_json::to_vec(request).unwrap()).await
}

/// The code of the refusal of an enrolment with new keys.
pub async fn refused(server: &Server, name: &str, token: &str) -> RefusalCode {
    let link = bootstrap(&server.signaling()).await;
    ask_to_enroll(&link, &request(name, token).0).await.expect_err("enrolment is refused")
}

impl Link {
    /// Sends a request and reads the reply.
    pub async fn ask<T: DeserializeOwned>(&self, subject: &str, payload: &[u8]) -> Result<T, RefusalCode> {
        let reply = self.client.request(subject.to_owned(), payload.to_vec().into()).await.unwrap();
        match serde_json::from_slice(&reply.payload).unwrap() {
            Reply::Ok(value) => Ok(value),
            Reply::Error(refusal) => Err(refusal.code),
        }
    }

    /// Waits until the connection is lost.
    pub async fn lost(&mut self) {
        let wait = async { while self.events.recv().await.unwrap() != Event::Disconnected {} };
        timeout(PATIENCE, wait).await.expect("the server closes the connection");
    }

    /// Waits until the server says that something was not allowed, and returns what.
    pub async fn violation(&mut self) -> String {
        let wait = async {
            loop {
                if let Event::ServerError(error) = self.events.recv().await.unwrap() {
                    return error.to_string();
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("the server reports a violation").to_lowercase()
    }
}

impl Peer {
    /// Enrols with new keys and connects.
    pub async fn enroll(server: &Server, name: &str, token: &str) -> Self {
        let signaling = server.signaling();
        let link = bootstrap(&signaling).await;
        let (request, key) = request(name, token);
        let grant = ask_to_enroll(&link, &request).await.unwrap();
        Self::resume(server, grant, key).await
    }

    /// Connects with what it was granted before.
    pub async fn resume(server: &Server, grant: EnrollGrant, key: Arc<KeyPair>) -> Self {
        let link =
            connect(&server.signaling(), &grant.nats_jwt, &key, &subject::inbox(&grant.peer)).await.unwrap();
        Self { grant, key, link }
    }

    pub fn id(&self) -> &PeerId {
        &self.grant.peer
    }

    pub async fn map_since(&self, have: Option<MapVersion>) -> Result<MapUpdate, RefusalCode> {
        let payload = serde_json::to_vec(&MapRequest { have }).unwrap();
        self.link.ask(&subject::peer(self.id(), PeerVerb::Netmap), &payload).await
    }

    pub async fn netmap(&self) -> Result<NetMap, RefusalCode> {
        match self.map_since(None).await? {
            MapUpdate::Full(map) => Ok(map),
            other => panic!("not the whole map: {other:?}"),
        }
    }

    /// Asks until latticed answers: a cluster takes a moment to know who listens where.
    pub async fn answered(&self) {
        let subject = subject::peer(self.id(), PeerVerb::Netmap);
        let wait = async { while self.link.client.request(subject.clone(), "".into()).await.is_err() {} };
        timeout(PATIENCE, wait).await.expect("latticed answers");
    }

    pub async fn heartbeat(&self, endpoints: &[&str]) -> Result<Ack, RefusalCode> {
        let endpoints = endpoints.iter().map(|text| text.parse().unwrap()).collect();
        let payload = serde_json::to_vec(&Heartbeat { endpoints, generation: 0 }).unwrap();
        self.link.ask(&subject::peer(self.id(), PeerVerb::Heartbeat), &payload).await
    }

    pub async fn leave(&self) -> Result<Ack, RefusalCode> {
        self.link.ask(&subject::peer(self.id(), PeerVerb::Leave), json!({}).to_string().as_bytes()).await
    }

    pub async fn resign(&self) -> Result<Ack, RefusalCode> {
        let payload = serde_json::to_vec(&Leave { for_good: true }).unwrap();
        self.link.ask(&subject::peer(self.id(), PeerVerb::Leave), &payload).await
    }

    /// The map, and the pushes from now on.
    pub async fn pushes(&self) -> Pushes {
        let subscriber = self.link.client.subscribe(subject::config(self.id())).await.unwrap();
        self.link.client.flush().await.unwrap();
        // The answer proves that the server has the subscription.
        let map = self.netmap().await.unwrap();
        Pushes { subscriber, map }
    }
}

/// A map that pushes keep new.
pub struct Pushes {
    pub subscriber: Subscriber,
    pub map: NetMap,
}

/// The map after the first push with which it fits. Everything that is pushed must be an update that follows on the last.
pub async fn pushed(pushes: &mut Pushes, what: &str, fits: impl Fn(&NetMap) -> bool) -> NetMap {
    let wait = async {
        loop {
            let message = pushes.subscriber.next().await.unwrap();
            match serde_json::from_slice(&message.payload).unwrap() {
                MapUpdate::Full(map) => pushes.map = map,
                MapUpdate::Delta(delta) => assert_ne!(pushes.map.apply(delta), Applied::Gap),
                MapUpdate::Current => panic!("a push without news"),
            }
            if fits(&pushes.map) {
                return pushes.map.clone();
            }
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no push: {what}"))
}

/// A WireGuard key that nobody holds.
pub fn public_key() -> WgPublicKey {
    WgPrivateKey::from_random(random()).public()
}
