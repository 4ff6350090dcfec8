//! Who this peer is: resumed from its credentials, or enrolled with a token.

use std::{net::SocketAddr, path::PathBuf};

use async_nats::Client;
use lattice_policy::{Overlay, Preset};
use lattice_wire::{
    Credentials, MapRequest, MapUpdate, MapVersion, NetMap, PeerName, Token,
    credentials::VERSION,
    message::{EnrollGrant, EnrollRequest, PeerKind, Signaling, TlsTrust},
    subject::{self, PeerVerb},
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    Failure, Kind, ServerUrl, Stop,
    clock::now_unix,
    credentials, jwt, overlay,
    pending::Pending,
    server,
    session::{self, Jwt, Place, User},
};

/// How a peer comes to its identity.
#[derive(Debug, Clone)]
pub struct Join {
    /// Name within the workspace.
    pub name: PeerName,
    /// Sandbox or node.
    pub kind: PeerKind,
    /// The control plane.
    pub server: ServerUrl,
    /// Needed only when there are no credentials yet.
    pub token: Option<Token>,
    /// The credentials file.
    pub credentials: PathBuf,
    /// UDP port of the WireGuard socket, 0 for any; kept with the credentials.
    pub listen_port: u16,
    /// A preset that it puts on itself: one that only narrows. Fails where the peer has been enrolled without.
    pub preset: Option<Preset>,
    /// Whether the peer is removed from its workspace when it ends: nobody will resume.
    pub for_good: bool,
}

/// An established identity.
pub(crate) struct Identity {
    pub(crate) credentials: Credentials,
    pub(crate) client: Client,
    /// What `client` connects with.
    pub(crate) jwt: Jwt,
    pub(crate) netmap: NetMap,
    /// What `netmap` says of it.
    pub(crate) overlay: Overlay,
    pub(crate) resumed: bool,
}

/// Resumes or enrols, then fetches the network map.
pub(crate) async fn establish(
    join: &Join,
    endpoints: Vec<SocketAddr>,
    stop: &Stop,
) -> Result<Identity, Failure> {
    tracing::info!(path = %join.credentials.display(), "Loading credentials");
    let (credentials, resumed) = match credentials::load(&join.credentials, &join.name)? {
        Some(mut credentials) => {
            // Of a start that was killed between storing the one and forgetting the other.
            Pending::remove(&join.credentials);
            if jwt::is_over(&credentials.nats_jwt, now_unix()) {
                stop.or(again(join, &mut credentials, endpoints)).await?;
            }
            (credentials, true)
        }
        None => (enroll(join, endpoints, stop).await?, false),
    };
    stop.or(meet(join, credentials, resumed)).await
}

async fn meet(join: &Join, mut credentials: Credentials, resumed: bool) -> Result<Identity, Failure> {
    let jwt = Jwt::new(&credentials.nats_jwt);
    let client = connect(join, &mut credentials, &jwt, resumed).await?;
    let netmap = fetch_map(&client, &credentials).await?;
    if netmap.peer != credentials.peer {
        return Err(Failure::new(Kind::Server, "latticed sent the network map of another peer"));
    }
    let overlay = overlay::of(&netmap)?;
    narrowed(join, &netmap)?;
    Ok(Identity { credentials, client, jwt, netmap, overlay, resumed })
}

/// A peer of former times may have been enrolled without the preset, and an older latticed may not know of it.
fn narrowed(join: &Join, map: &NetMap) -> Result<(), Failure> {
    let Some(preset) = join.preset else { return Ok(()) };
    let layer = format!("preset {preset}");
    // What follows a colon says why that layer is closed.
    let is_it = |name: &str| name.split(':').next() == Some(&layer);
    if map.policy.iter().flat_map(|policy| &policy.layers).any(|one| is_it(&one.name)) {
        return Ok(());
    }
    let text = format!(
        "the peer {} is enrolled without the preset {preset}: remove it with `lattice peer remove` and delete {}, and it is enrolled anew",
        join.name,
        join.credentials.display()
    );
    Err(Failure::new(Kind::Input, text))
}

/// Asks for the current network map.
async fn fetch_map(client: &Client, credentials: &Credentials) -> Result<NetMap, Failure> {
    let subject = subject::peer(&credentials.peer, PeerVerb::Netmap);
    match session::patient_request(client, subject, &MapRequest { have: None }).await? {
        MapUpdate::Full(map) => Ok(map),
        MapUpdate::Delta(_) | MapUpdate::Current => {
            Err(Failure::new(Kind::Server, "latticed did not send the whole network map"))
        }
    }
}

/// Asks for what is newer than `have`, or for the whole map.
pub(crate) async fn ask_map(
    client: &Client,
    credentials: &Credentials,
    have: Option<MapVersion>,
) -> Result<MapUpdate, Failure> {
    session::request(client, subject::peer(&credentials.peer, PeerVerb::Netmap), &MapRequest { have }).await
}

async fn connect(
    join: &Join,
    credentials: &mut Credentials,
    jwt: &Jwt,
    resumed: bool,
) -> Result<Client, Failure> {
    match connect_to(&credentials.nats_url, credentials, jwt).await {
        // NATS may have moved since the credentials were written: the server knows where it is now. How it proves who it is
        // stays what was pinned.
        Err(failure) if resumed && failure.kind == Kind::Server => {
            let (signaling, _) =
                ask_server(join, credentials.server_ca.as_deref()).await.map_err(|_| failure.clone())?;
            let now = signaling.nats_url;
            if now == credentials.nats_url {
                return Err(failure);
            }
            let client = connect_to(&now, credentials, jwt).await?;
            credentials.nats_url = now;
            credentials::store(&join.credentials, credentials)?;
            Ok(client)
        }
        other => other,
    }
}

async fn connect_to(nats_url: &str, credentials: &Credentials, jwt: &Jwt) -> Result<Client, Failure> {
    let inbox = subject::inbox(&credentials.peer);
    let user = User { jwt: jwt.clone(), seed: &credentials.nats_seed, inbox: &inbox };
    let place = Place { url: nats_url, tls: credentials.nats_tls.as_ref() };
    session::connect(place, user, &format!("lattice-{}", credentials.name)).await
}

async fn enroll(join: &Join, endpoints: Vec<SocketAddr>, stop: &Stop) -> Result<Credentials, Failure> {
    let Some(token) = &join.token else {
        let text = format!(
            "no credentials at {} and no token: give --token-file (or LATTICE_TOKEN) with a token from `lattice token create`",
            join.credentials.display()
        );
        return Err(Failure::new(Kind::Token, text));
    };
    // Kept before they are sent: were the reply to be lost, the same request again is granted again.
    let keys = Pending::load_or_make(&join.credentials, &join.name)?;
    let slot = credentials::Slot::reserve(&join.credentials)?;
    let (signaling, server_ca) = stop.or(ask_server(join, None)).await?;
    tracing::info!(name = %join.name, "Registering sandbox via NATS");
    let nats_tls = signaling.nats_tls.clone();
    let client = stop.or(newcomer(join, &signaling, nats_tls.as_ref())).await?;
    // From here on a signal waits, some seconds at most: the grant is worth keeping.
    let granted = ask(join, &client, Zeroizing::new(token.expose()), &keys, endpoints).await;
    if granted.as_ref().is_err_and(|failure| failure.kind == Kind::Taken) {
        // Nothing was granted to these keys, and nothing will be.
        Pending::remove(&join.credentials);
    }
    let grant = granted?;
    let credentials = Credentials {
        version: VERSION,
        name: join.name.clone(),
        peer: grant.peer,
        workspace: grant.workspace,
        address: grant.address,
        server_url: join.server.base().to_owned(),
        nats_url: signaling.nats_url.clone(),
        nats_tls,
        server_ca,
        nats_jwt: grant.nats_jwt,
        nats_seed: keys.nats_seed.clone(),
        wireguard_private_key: keys.wireguard_private_key.clone(),
        listen_port: join.listen_port,
    };
    slot.fill(&credentials)?;
    Pending::remove(&join.credentials);
    tracing::info!(path = %join.credentials.display(), "Sandbox credentials saved");
    Ok(credentials)
}

/// A new JWT for a peer whose own is over, through the door that newcomers use: the keys prove who asks, so no token is
/// needed and the peer stays the same.
pub(crate) async fn again(
    join: &Join,
    credentials: &mut Credentials,
    endpoints: Vec<SocketAddr>,
) -> Result<Option<i64>, Failure> {
    tracing::info!("the NATS credential is over: asking for another with the same keys");
    let keys = Pending {
        name: join.name.clone(),
        wireguard_private_key: credentials.wireguard_private_key.clone(),
        nats_seed: credentials.nats_seed.clone(),
    };
    let (signaling, _) = ask_server(join, credentials.server_ca.as_deref()).await?;
    let tls = credentials.nats_tls.as_ref().or(signaling.nats_tls.as_ref());
    let client = newcomer(join, &signaling, tls).await?;
    let grant = ask(join, &client, Zeroizing::new(String::new()), &keys, endpoints).await?;
    if grant.peer != credentials.peer {
        return Err(Failure::new(Kind::Server, "latticed takes this peer for another one"));
    }
    credentials.nats_jwt = grant.nats_jwt;
    credentials.nats_url = signaling.nats_url.clone();
    credentials::store(&join.credentials, credentials)?;
    Ok(grant.not_after)
}

/// A connection as the user that `signaling` made for one enrolment.
async fn newcomer(join: &Join, signaling: &Signaling, tls: Option<&TlsTrust>) -> Result<Client, Failure> {
    let user = &signaling.bootstrap;
    let user = User { jwt: Jwt::new(&user.jwt), seed: &user.seed, inbox: &user.inbox };
    let place = Place { url: &signaling.nats_url, tls };
    session::connect(place, user, &format!("lattice-enroll-{}", join.name)).await
}

async fn ask(
    join: &Join,
    client: &Client,
    token: Zeroizing<String>,
    keys: &Pending,
    endpoints: Vec<SocketAddr>,
) -> Result<EnrollGrant, Failure> {
    let internal = |error: nkeys::error::Error| Failure::new(Kind::Internal, error);
    let user = nkeys::KeyPair::from_seed(&keys.nats_seed).map_err(internal)?;
    let mut request = EnrollRequest {
        name: join.name.clone(),
        kind: join.kind,
        token: token.to_string(),
        wireguard_public_key: keys.wireguard_private_key.public(),
        nats_public_key: user.public_key(),
        endpoints,
        preset: join.preset.map(|preset| preset.to_string()),
        proof: String::new(),
    };
    let proof = user.sign(&request.signed_bytes()).map_err(internal)?;
    request.proof = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, proof);
    let granted = session::request::<EnrollGrant>(client, subject::ENROLL.to_owned(), &request).await;
    request.token.zeroize();
    let _ = client.drain().await;
    granted
}

async fn ask_server(join: &Join, ca: Option<&str>) -> Result<(Signaling, Option<String>), Failure> {
    let server = join.server.clone().or_authority(ca);
    tokio::task::spawn_blocking(move || server::signaling(&server))
        .await
        .map_err(|error| Failure::new(Kind::Internal, error))?
}

#[cfg(test)]
mod tests {
    use lattice_wire::message::RefusalCode;

    use super::*;
    use crate::fake::{self, Fake, grant};

    #[tokio::test]
    async fn a_preset_is_there_also_when_it_denies_everything() {
        let join = Join { preset: Some(Preset::Isolated), ..Fake::start().await.join() };
        let with = |name: &str| {
            let mut map = crate::live::tests::map(Some(&[]));
            map.policy.as_mut().unwrap().layers[0].name = name.into();
            narrowed(&join, &map)
        };
        with("preset isolated").unwrap();
        with("preset isolated: of more than 20000 rules").unwrap();
        for other in
            ["policies", "policies: of more than 20000 rules", "preset sandboxed", "preset isolated2"]
        {
            assert!(with(other).unwrap_err().message.contains("without the preset isolated"), "{other}");
        }
    }

    #[tokio::test]
    async fn a_refused_or_interrupted_enrolment_goes_on_with_the_same_keys() {
        let fake = Fake::start().await;
        let join = fake.join();
        let mut tries = 0;
        let asked = fake
            .answer(subject::ENROLL, {
                let tries = std::sync::atomic::AtomicU32::new(0);
                move |_| match tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                    0 => Err(RefusalCode::Internal),
                    _ => Ok(grant("jwt".into())),
                }
            })
            .await;
        let (_never, stop) = Stop::new();
        let credentials = loop {
            tries += 1;
            match enroll(&join, vec![], &stop).await {
                Ok(credentials) => break credentials,
                Err(failure) => assert_eq!(failure.kind, Kind::Internal, "{failure}"),
            }
            assert!(join.credentials.with_extension("pending").exists());
        };
        assert_eq!(tries, 2);
        let asked: Vec<_> = asked.lock().unwrap().iter().map(|request| fake::read(request)).collect();
        assert_eq!(asked[0].wireguard_public_key, asked[1].wireguard_public_key);
        assert_eq!(asked[0].nats_public_key, asked[1].nats_public_key);
        assert_eq!(credentials.wireguard_private_key.public(), asked[0].wireguard_public_key);
        assert!(!join.credentials.with_extension("pending").exists());
        assert!(join.credentials.exists());
    }

    #[tokio::test]
    async fn a_jwt_that_is_over_is_replaced_for_the_same_keys_without_a_token() {
        let fake = Fake::start().await;
        let join = Join { token: None, ..fake.join() };
        let fresh = fake::jwt(&serde_json::json!({"exp": now_unix() + 3600}));
        let granted = fresh.clone();
        let asked = fake.answer(subject::ENROLL, move |_| Ok(grant(granted.clone()))).await;
        let stored = fake.stored(&fake::jwt(&serde_json::json!({"exp": now_unix() - 1})));
        credentials::store(&join.credentials, &stored).unwrap();
        // There is no map to be had here; the new credential is kept before it is asked for.
        let (_never, stop) = Stop::new();
        assert!(establish(&join, vec![], &stop).await.is_err());

        let asked = fake::read(&asked.lock().unwrap()[0]);
        assert_eq!(asked.token, "");
        assert_eq!(asked.wireguard_public_key, stored.wireguard_private_key.public());
        let key = nkeys::KeyPair::from_public_key(&asked.nats_public_key).unwrap();
        let proof = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &asked.proof).unwrap();
        assert!(key.verify(&asked.signed_bytes(), &proof).is_ok());
        assert_eq!(key.public_key(), nkeys::KeyPair::from_seed(&stored.nats_seed).unwrap().public_key());
        let kept = credentials::load(&join.credentials, &join.name).unwrap().unwrap();
        assert_eq!(kept.nats_jwt, fresh);
    }

    #[tokio::test]
    async fn a_server_that_takes_this_peer_for_another_one_changes_nothing() {
        let fake = Fake::start().await;
        let join = Join { token: None, ..fake.join() };
        fake.answer(subject::ENROLL, |_| {
            let other = lattice_wire::PeerId::from_random([9; 10]);
            Ok(EnrollGrant { peer: other, ..grant("jwt".into()) })
        })
        .await;
        let mut stored = fake.stored("over");
        let before = stored.clone();
        assert_eq!(again(&join, &mut stored, vec![]).await.unwrap_err().kind, Kind::Server);
        assert!(stored == before && !join.credentials.exists());
    }
}
