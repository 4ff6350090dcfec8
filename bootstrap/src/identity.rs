//! Who this peer is: resumed from its credentials, or enrolled with a token.

use std::{net::SocketAddr, path::PathBuf};

use async_nats::Client;
use lattice_wire::{
    Credentials, NetMap, PeerName, Token, WgPrivateKey,
    credentials::VERSION,
    message::{Ack, EnrollGrant, EnrollRequest, PeerKind},
    subject::{self, PeerVerb},
};
use zeroize::Zeroize as _;

use crate::{Failure, Kind, credentials, server, session};

/// How a peer comes to its identity.
#[derive(Debug, Clone)]
pub struct Join {
    /// Name within the workspace.
    pub name: PeerName,
    /// Sandbox or node.
    pub kind: PeerKind,
    /// The control plane.
    pub server_url: String,
    /// Needed only when there are no credentials yet.
    pub token: Option<Token>,
    /// The credentials file.
    pub credentials: PathBuf,
    /// UDP port of the WireGuard socket, 0 for any; kept with the credentials.
    pub listen_port: u16,
}

/// An established identity.
pub(crate) struct Identity {
    pub(crate) credentials: Credentials,
    pub(crate) client: Client,
    pub(crate) netmap: NetMap,
    pub(crate) resumed: bool,
}

/// Resumes or enrols, then fetches the network map.
pub(crate) async fn establish(join: &Join, endpoints: Vec<SocketAddr>) -> Result<Identity, Failure> {
    tracing::info!(path = %join.credentials.display(), "Loading credentials");
    let (mut credentials, resumed) = match credentials::load(&join.credentials, &join.name)? {
        Some(credentials) => (credentials, true),
        None => (enroll(join, endpoints).await?, false),
    };
    let client = connect(join, &mut credentials, resumed).await?;
    let netmap = fetch_map(&client, &credentials).await?;
    if netmap.peer != credentials.peer {
        return Err(Failure::new(Kind::Server, "latticed sent the network map of another peer"));
    }
    Ok(Identity { credentials, client, netmap, resumed })
}

/// Asks for the current network map.
pub(crate) async fn fetch_map(client: &Client, credentials: &Credentials) -> Result<NetMap, Failure> {
    session::request(client, subject::peer(&credentials.peer, PeerVerb::Netmap), &Ack {}).await
}

async fn connect(join: &Join, credentials: &mut Credentials, resumed: bool) -> Result<Client, Failure> {
    let inbox = subject::inbox(&credentials.peer);
    let name = format!("lattice-{}", join.name);
    let user = |credentials: &Credentials, nats_url: &str| {
        let (jwt, seed) = (credentials.nats_jwt.clone(), credentials.nats_seed.clone());
        let (nats_url, inbox, name) = (nats_url.to_owned(), inbox.clone(), name.clone());
        async move {
            let mut seed = seed;
            let user = session::User { jwt: &jwt, seed: &seed, inbox: &inbox };
            let client = session::connect(&nats_url, user, &name).await;
            seed.zeroize();
            client
        }
    };
    let first = user(credentials, &credentials.nats_url).await;
    match first {
        // NATS may have moved since the credentials were written: the server knows where it is now.
        Err(failure) if resumed && failure.kind == Kind::Server => {
            let now = ask_server(join).await.map_err(|_| failure.clone())?.nats_url;
            if now == credentials.nats_url {
                return Err(failure);
            }
            let client = user(credentials, &now).await?;
            credentials.nats_url = now;
            credentials::store(&join.credentials, credentials)?;
            Ok(client)
        }
        other => other,
    }
}

async fn enroll(join: &Join, endpoints: Vec<SocketAddr>) -> Result<Credentials, Failure> {
    let Some(token) = &join.token else {
        let text = format!(
            "no credentials at {} and no token: give --token-file (or LATTICE_TOKEN) with a token from `lattice token create`",
            join.credentials.display()
        );
        return Err(Failure::new(Kind::Token, text));
    };
    let signaling = ask_server(join).await?;
    tracing::info!(name = %join.name, "Registering sandbox via NATS");
    let private = WgPrivateKey::from_random(random()?);
    let user = nkeys::KeyPair::new_user();
    let mut request = EnrollRequest {
        name: join.name.clone(),
        kind: join.kind,
        token: token.expose(),
        wireguard_public_key: private.public(),
        nats_public_key: user.public_key(),
        endpoints,
        proof: String::new(),
    };
    let proof = user.sign(&request.signed_bytes()).map_err(|error| Failure::new(Kind::Internal, error))?;
    request.proof = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, proof);
    let bootstrap = &signaling.bootstrap;
    let as_bootstrap = session::User { jwt: &bootstrap.jwt, seed: &bootstrap.seed, inbox: &bootstrap.inbox };
    let client =
        session::connect(&signaling.nats_url, as_bootstrap, &format!("lattice-enroll-{}", join.name)).await?;
    let granted = session::request::<EnrollGrant>(&client, subject::ENROLL.to_owned(), &request).await;
    request.token.zeroize();
    let _ = client.drain().await;
    let grant = granted?;
    let seed = user.seed().map_err(|error| Failure::new(Kind::Internal, error))?;
    let credentials = Credentials {
        version: VERSION,
        name: join.name.clone(),
        peer: grant.peer,
        workspace: grant.workspace,
        address: grant.address,
        server_url: join.server_url.clone(),
        nats_url: signaling.nats_url.clone(),
        nats_jwt: grant.nats_jwt,
        nats_seed: seed,
        wireguard_private_key: private,
        listen_port: join.listen_port,
    };
    credentials::store(&join.credentials, &credentials)?;
    tracing::info!(path = %join.credentials.display(), "Sandbox credentials saved");
    Ok(credentials)
}

async fn ask_server(join: &Join) -> Result<lattice_wire::message::Signaling, Failure> {
    let url = join.server_url.clone();
    tokio::task::spawn_blocking(move || server::signaling(&url))
        .await
        .map_err(|error| Failure::new(Kind::Internal, error))?
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(Kind::Kernel, format!("the kernel gave no random bytes: {error}")))?;
    Ok(bytes)
}
