//! Enrolment: everything that can be checked without the token is checked before it is looked at.

use std::time::Instant;

use async_nats::Message;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use lattice_policy::Preset;
use lattice_wire::{
    PeerId, Token,
    message::{EnrollGrant, EnrollRequest, Refusal, RefusalCode},
    subject,
};
use nkeys::{KeyPair, KeyPairType};
use tracing::{debug, info};

use super::{internal, parse, refusal, reply};
use crate::{
    app::{App, now},
    keys::random,
    limit::RateLimiter,
    nats::jwt_expiry,
    store::{
        enroll::{EnrollRefused, NewPeer},
        netmap::host,
        peers::{Address, Endpoints},
        tokens::TokenRefused,
    },
};

/// Requests with one bootstrap user, in a row and per second: a client needs one or two.
const BOOTSTRAP_BURST: u32 = 8;
const BOOTSTRAP_PER_SECOND: f64 = 0.1;
const BOOTSTRAPS: usize = 20_000;
/// Refusals that the log shows, in a row and per second. Strangers cause them.
const LOG_BURST: u32 = 100;
const LOG_PER_SECOND: u32 = 5;

/// How much strangers may ask. They pay for each bootstrap user at the HTTP API, where addresses are counted.
pub(super) struct Limits {
    requests: RateLimiter<String>,
    log: RateLimiter<()>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: RateLimiter::new(BOOTSTRAP_BURST, BOOTSTRAP_PER_SECOND, BOOTSTRAPS),
            log: RateLimiter::new(LOG_BURST, LOG_PER_SECOND, 1),
        }
    }
}

pub(super) async fn handle(app: &App, limits: &Limits, message: Message) {
    let Some(to) = message.reply else { return debug!("enrolment without an inbox ignored") };
    // The requester chooses where the reply goes. Only what is an inbox of ours counts, or a flood would have as many
    // names as it wants.
    let nonce = subject::enroll_nonce(&to).filter(|nonce| app.issuer.is_nonce(nonce, now()));
    let Some(nonce) = nonce.map(str::to_owned) else {
        return debug!("enrolment without an inbox of its own ignored");
    };
    let result = match limits.requests.take(&nonce, Instant::now()) {
        Err(_) => {
            Err(refusal(RefusalCode::RateLimited, "too many requests with one bootstrap user: get another"))
        }
        Ok(()) => match parse(&message.payload) {
            Ok(request) => enroll(app, request).await,
            Err(refusal) => Err(refusal),
        },
    };
    app.metrics.enrolment(if result.is_ok() { "granted" } else { "refused" });
    if let Err(refusal) = &result
        && limits.log.take(&(), Instant::now()).is_ok()
    {
        // It may quote the request.
        info!(code = ?refusal.code, reason = %refusal.message.escape_debug(), "enrolment refused");
    }
    reply(app, to, result).await;
}

async fn enroll(app: &App, request: EnrollRequest) -> Result<EnrollGrant, Refusal> {
    verify(&request)?;
    let preset = request.preset.as_deref().map(narrowing).transpose()?;
    let now = now();
    // A peer that has lost nothing but its JWT needs no token.
    let token = match request.token.as_str() {
        "" => None,
        text => Some(token(app, text, now).await?),
    };
    let peer = NewPeer {
        id: &PeerId::from_random(random()),
        name: &request.name,
        kind: request.kind,
        wireguard_public_key: request.wireguard_public_key,
        nats_public_key: &request.nats_public_key,
        endpoints: &Endpoints::sanitized(&request.endpoints),
        preset: preset.map(Preset::as_str),
        // It ends with the membership when that is earlier, which only makes this later than needed.
        jwt_expires_at: jwt_expiry(None, now),
    };
    let admitted = app.store.enroll(&peer, token.as_ref(), now).await.map_err(|e| internal(&e))?;
    if let (Some(token), Err(EnrollRefused::Token(TokenRefused::Used))) = (&token, &admitted) {
        replayed(app, token, &request).await?;
    }
    let admitted = admitted.map_err(|e| refuse(&e))?;
    // Were it to fail, asking again would cost the token nothing.
    let expires_at = jwt_expiry(admitted.not_after, now);
    let nats_jwt = app
        .issuer
        .peer(&admitted.peer, &request.name, &request.nats_public_key, expires_at, now)
        .map_err(|_| refusal(RefusalCode::Malformed, "nats_public_key cannot be certified"))?;
    app.presence.heard(&admitted.peer, now);
    if !admitted.again {
        app.maps.changed(admitted.workspace.clone());
        info!(peer = %admitted.peer, name = %request.name, workspace = %admitted.workspace, "peer enrolled");
    }
    Ok(EnrollGrant {
        peer: admitted.peer,
        workspace: admitted.workspace,
        address: host(Address(admitted.address)),
        nats_jwt,
        not_after: admitted.not_after,
    })
}

/// Guessing takes no write lock. What else speaks against a token does not concern a peer that asks again.
async fn token(app: &App, text: &str, now: i64) -> Result<Token, Refusal> {
    let token: Token = text.parse().map_err(|e| refusal(RefusalCode::TokenUnknown, format!("{e}")))?;
    match app.store.check_token(&token, now).await.map_err(|e| internal(&e))? {
        Err(TokenRefused::Unknown) => Err(refuse(&TokenRefused::Unknown.into())),
        _ => Ok(token),
    }
}

/// Somebody else has a token that has done its work.
async fn replayed(app: &App, token: &Token, request: &EnrollRequest) -> Result<(), Refusal> {
    let row = app.store.token(token.id()).await.map_err(|e| internal(&e))?;
    let detail = format!("for {}, over NATS", request.name);
    app.replayed(token.id(), row.map(|row| row.workspace).as_ref(), detail).await;
    Ok(())
}

/// A preset that takes from a peer and gives it nothing: those that let others in, or show it to them, come with a token.
fn narrowing(text: &str) -> Result<Preset, Refusal> {
    match text.parse() {
        Ok(Preset::Coordinator) => Err(refusal(
            RefusalCode::PresetRefused,
            "the preset coordinator lets other peers in: only an enrollment token can give it",
        )),
        Ok(preset @ (Preset::Sandboxed | Preset::Isolated)) => Ok(preset),
        Err(error) => Err(refusal(RefusalCode::PresetRefused, format!("{error}"))),
    }
}

/// That the requester holds the NATS key, and that the keys are usable.
fn verify(request: &EnrollRequest) -> Result<(), Refusal> {
    if request.wireguard_public_key.0 == [0; 32] {
        return Err(refusal(RefusalCode::Malformed, "the WireGuard key is all zero: make a key pair"));
    }
    let key = KeyPair::from_public_key(&request.nats_public_key)
        .ok()
        .filter(|key| key.key_pair_type() == KeyPairType::User)
        .ok_or_else(|| {
            refusal(RefusalCode::Malformed, "nats_public_key is not the public half of a user nkey (U…)")
        })?;
    let mut signature = [0; 64];
    let decoded = STANDARD.decode_slice(&request.proof, &mut signature);
    if decoded != Ok(64) || key.verify(&request.signed_bytes(), &signature).is_err() {
        return Err(refusal(
            RefusalCode::ProofInvalid,
            "proof does not match: it must be the signature of this request by nats_public_key, in base64",
        ));
    }
    Ok(())
}

fn refuse(refused: &EnrollRefused) -> Refusal {
    let code = match refused {
        EnrollRefused::Token(TokenRefused::Unknown) => RefusalCode::TokenUnknown,
        EnrollRefused::Token(TokenRefused::Revoked) => RefusalCode::TokenRevoked,
        EnrollRefused::Token(TokenRefused::Expired) => RefusalCode::TokenExpired,
        EnrollRefused::Token(TokenRefused::Used) => RefusalCode::TokenUsed,
        EnrollRefused::NameTaken(_) => RefusalCode::NameTaken,
        EnrollRefused::KeyTaken => RefusalCode::KeyTaken,
        EnrollRefused::Preset(_) => RefusalCode::PresetRefused,
        EnrollRefused::Prefix(_) | EnrollRefused::Reserved(_) => RefusalCode::NameRefused,
        EnrollRefused::NotReserved
        | EnrollRefused::NoPeer
        | EnrollRefused::OtherRequest
        | EnrollRefused::Gone => RefusalCode::PeerUnknown,
        EnrollRefused::PoolExhausted { .. } | EnrollRefused::WorkspaceFull => RefusalCode::PoolExhausted,
    };
    refusal(code, refused.to_string())
}

#[cfg(test)]
mod tests {
    use lattice_wire::{WgPublicKey, message::PeerKind};
    use proptest::prelude::*;

    use super::*;

    fn signed(key: &KeyPair) -> EnrollRequest {
        let mut request = EnrollRequest {
            name: "a".parse().unwrap(),
            kind: PeerKind::Sandbox,
            token: "t".into(),
            wireguard_public_key: WgPublicKey([1; 32]),
            nats_public_key: key.public_key(),
            endpoints: vec![],
            preset: None,
            proof: String::new(),
        };
        request.proof = STANDARD.encode(key.sign(&request.signed_bytes()).unwrap());
        request
    }

    fn code(request: &EnrollRequest) -> Option<RefusalCode> {
        verify(request).err().map(|refusal| refusal.code)
    }

    #[test]
    fn accepts_the_holder_of_the_key_only() {
        let (mine, other) = (KeyPair::new_user(), KeyPair::new_user());
        assert_eq!(code(&signed(&mine)), None);
        let claims = [
            EnrollRequest { nats_public_key: other.public_key(), ..signed(&mine) },
            EnrollRequest { wireguard_public_key: WgPublicKey([2; 32]), ..signed(&mine) },
            EnrollRequest { token: "u".into(), ..signed(&mine) },
            EnrollRequest { name: "b".parse().unwrap(), ..signed(&mine) },
            EnrollRequest { kind: PeerKind::Node, ..signed(&mine) },
            EnrollRequest { preset: Some("isolated".into()), ..signed(&mine) },
            EnrollRequest { proof: String::new(), ..signed(&mine) },
            EnrollRequest { proof: "A".repeat(4000), ..signed(&mine) },
        ];
        for claim in claims {
            assert_eq!(code(&claim), Some(RefusalCode::ProofInvalid));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_request_may_come(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            key in "\\PC{0,70}|U[A-Z2-7]{55}",
            proof in "\\PC{0,100}|[A-Za-z0-9+/]{86}==",
            token in "\\PC{0,70}",
        ) {
            let _ = parse::<EnrollRequest>(&bytes);
            let request = EnrollRequest { nats_public_key: key, proof, token, ..signed(&KeyPair::new_user()) };
            let text = serde_json::to_vec(&request).unwrap();
            prop_assert!(parse::<EnrollRequest>(&text).is_ok_and(|request| verify(&request).is_err()));
        }
    }

    #[test]
    fn refuses_keys_that_are_not_a_users() {
        let account = KeyPair::new_account();
        assert_eq!(code(&signed(&account)), Some(RefusalCode::Malformed));
        let user = KeyPair::new_user();
        for key in ["", "U", "not a key", &user.seed().unwrap()] {
            let request = EnrollRequest { nats_public_key: key.into(), ..signed(&user) };
            assert_eq!(code(&request), Some(RefusalCode::Malformed), "{key}");
        }
        let zero = EnrollRequest { wireguard_public_key: WgPublicKey([0; 32]), ..signed(&user) };
        assert_eq!(code(&zero), Some(RefusalCode::Malformed));
    }
}
