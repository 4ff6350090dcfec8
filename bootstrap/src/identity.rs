//! Who this peer is: resumed from its credentials, or enrolled with a token.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use async_nats::Client;
use ipnet::Ipv4Net;
use lattice_wire::{
    Credentials, NetMap, PeerName, Token, WgPrivateKey,
    credentials::VERSION,
    message::{Ack, EnrollGrant, EnrollRequest, PeerKind},
    subject::{self, PeerVerb},
};
use zeroize::Zeroize as _;

use crate::{Failure, Kind, Stop, credentials, server, session};

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
pub(crate) async fn establish(
    join: &Join,
    endpoints: Vec<SocketAddr>,
    stop: &Stop,
) -> Result<Identity, Failure> {
    tracing::info!(path = %join.credentials.display(), "Loading credentials");
    let (credentials, resumed) = match credentials::load(&join.credentials, &join.name)? {
        Some(credentials) => (credentials, true),
        None => (enroll(join, endpoints, stop).await?, false),
    };
    stop.or(meet(join, credentials, resumed)).await
}

async fn meet(join: &Join, mut credentials: Credentials, resumed: bool) -> Result<Identity, Failure> {
    let client = connect(join, &mut credentials, resumed).await?;
    let netmap = fetch_map(&client, &credentials).await?;
    if netmap.peer != credentials.peer {
        return Err(Failure::new(Kind::Server, "latticed sent the network map of another peer"));
    }
    if !acceptable(netmap.pool, netmap.address) {
        let text = format!(
            "latticed gives out {} from {}, which is no overlay pool: expected an address in a private network (RFC 1918, RFC 6598) of /8 or smaller",
            netmap.address, netmap.pool
        );
        return Err(Failure::new(Kind::Server, text));
    }
    Ok(Identity { credentials, client, netmap, resumed })
}

/// Whether a host may route `pool` into the overlay. A hostile server could else take over its way to the Internet.
fn acceptable(pool: Ipv4Net, address: Ipv4Net) -> bool {
    const PRIVATE: [(Ipv4Addr, u8); 5] = [
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
    ];
    let private = PRIVATE.into_iter().any(|(at, len)| Ipv4Net::new_assert(at, len).contains(&pool));
    private && pool.contains(&address)
}

/// Asks for the current network map.
pub(crate) async fn fetch_map(client: &Client, credentials: &Credentials) -> Result<NetMap, Failure> {
    session::request(client, subject::peer(&credentials.peer, PeerVerb::Netmap), &Ack {}).await
}

async fn connect(join: &Join, credentials: &mut Credentials, resumed: bool) -> Result<Client, Failure> {
    match connect_to(&credentials.nats_url, credentials).await {
        // NATS may have moved since the credentials were written: the server knows where it is now.
        Err(failure) if resumed && failure.kind == Kind::Server => {
            let now = ask_server(join).await.map_err(|_| failure.clone())?.nats_url;
            if now == credentials.nats_url {
                return Err(failure);
            }
            let client = connect_to(&now, credentials).await?;
            credentials.nats_url = now;
            credentials::store(&join.credentials, credentials)?;
            Ok(client)
        }
        other => other,
    }
}

async fn connect_to(nats_url: &str, credentials: &Credentials) -> Result<Client, Failure> {
    let inbox = subject::inbox(&credentials.peer);
    let user = session::User { jwt: &credentials.nats_jwt, seed: &credentials.nats_seed, inbox: &inbox };
    session::connect(nats_url, user, &format!("lattice-{}", credentials.name)).await
}

async fn enroll(join: &Join, endpoints: Vec<SocketAddr>, stop: &Stop) -> Result<Credentials, Failure> {
    let Some(token) = &join.token else {
        let text = format!(
            "no credentials at {} and no token: give --token-file (or LATTICE_TOKEN) with a token from `lattice token create`",
            join.credentials.display()
        );
        return Err(Failure::new(Kind::Token, text));
    };
    let slot = credentials::Slot::reserve(&join.credentials)?;
    let signaling = stop.or(ask_server(join)).await?;
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
    let name = format!("lattice-enroll-{}", join.name);
    let client = stop.or(session::connect(&signaling.nats_url, as_bootstrap, &name)).await?;
    // From here on a signal waits, some seconds at most: a grant that is not stored would cost the token and the name.
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
        nats_tls: signaling.nats_tls.clone(),
        server_ca: None,
        nats_jwt: grant.nats_jwt,
        nats_seed: seed,
        wireguard_private_key: private,
        listen_port: join.listen_port,
    };
    slot.fill(&credentials)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_a_private_network_that_holds_the_address() {
        let fits = |pool: &str, address: &str| acceptable(pool.parse().unwrap(), address.parse().unwrap());
        assert!(fits("10.42.0.0/16", "10.42.0.2/32"));
        assert!(fits("100.64.0.0/10", "100.100.0.1/32"));
        for (pool, address) in [
            ("0.0.0.0/0", "10.42.0.2/32"),
            ("8.8.8.0/24", "8.8.8.8/32"),
            ("10.0.0.0/7", "10.42.0.2/32"),
            ("10.42.0.0/16", "10.43.0.2/32"),
            ("10.42.0.0/16", "10.42.0.2/8"),
        ] {
            assert!(!fits(pool, address), "{pool} {address}");
        }
    }
}
