//! Enrolment as peers do it, but for the connection that each would make.

use std::{
    ops::Range,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use async_nats::Client;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{StreamExt as _, stream};
use lattice_wire::{
    PeerId, WgPrivateKey,
    message::{EnrollGrant, EnrollRequest, PeerKind, Reply},
    subject,
};
use nkeys::KeyPair;
use tokio::time::timeout;

use crate::{bootstrap::Nonces, control::Control, peers::PATIENCE};

/// As many as latticed works on at once.
const WINDOW: usize = 32;

/// Enrols the peers of these numbers; how many a second.
pub async fn enroll(
    control: &Control,
    client: &Client,
    token: &str,
    which: Range<usize>,
) -> (Vec<PeerId>, f64) {
    let nonces = Nonces::of(&control.account()).unwrap();
    let count = which.len();
    // Signed before the clock starts: that is the clients' work.
    let requests: Vec<(usize, Vec<u8>)> =
        which.map(|n| (n, serde_json::to_vec(&request(token, n)).unwrap())).collect();
    let (began, nonces) = (Instant::now(), &nonces);
    let ids = stream::iter(requests)
        .map(|(n, payload)| async move {
            // Not sooner: it is good for five minutes.
            let inbox = inbox(nonces, n);
            let mut replies = client.subscribe(inbox.clone()).await.unwrap();
            client.publish_with_reply(subject::ENROLL, inbox, payload.into()).await.unwrap();
            let reply = timeout(PATIENCE, replies.next()).await.expect("an answer").unwrap();
            match serde_json::from_slice(&reply.payload).unwrap() {
                Reply::<EnrollGrant>::Ok(grant) => grant.peer,
                Reply::Error(refusal) => panic!("enrolment refused: {refusal}"),
            }
        })
        .buffer_unordered(WINDOW)
        .collect()
        .await;
    (ids, count as f64 / began.elapsed().as_secs_f64())
}

/// Of a bootstrap user of its own.
fn inbox(nonces: &Nonces, n: usize) -> String {
    let mut random = [0; 6];
    random[2..].copy_from_slice(&u32::try_from(n).unwrap().to_be_bytes());
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 300;
    format!("{}.1", subject::bootstrap_inbox(&nonces.make(random, end.cast_signed())))
}

fn request(token: &str, n: usize) -> EnrollRequest {
    let mut secret = [1; 32];
    secret[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
    let key = KeyPair::new_user();
    let mut request = EnrollRequest {
        name: format!("agent-{n}").parse().unwrap(),
        kind: PeerKind::Sandbox,
        token: token.to_owned(),
        wireguard_public_key: WgPrivateKey::from_random(secret).public(),
        nats_public_key: key.public_key(),
        // Where its heartbeats will say that it is: they are no news.
        endpoints: vec![([192, 0, 2, 1], 1000).into()],
        preset: None,
        proof: String::new(),
    };
    request.proof = STANDARD.encode(key.sign(&request.signed_bytes()).unwrap());
    request
}
