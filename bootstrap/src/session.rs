//! A connection to NATS as one user, and typed requests over it.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{Auth, AuthError, Client, ConnectErrorKind, ConnectOptions, Event, RequestErrorKind};
use lattice_wire::message::{MAX_MESSAGE, Refusal, RefusalCode, Reply, TlsTrust};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Failure, Kind, failure::chain};

/// Longer than the TLS timeout of latticed's nats-server: an emulated machine needs more than ten seconds for the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Between attempts of a peer that NATS refuses: it was removed, or waits for a new JWT.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a request that comes too soon for latticed is made, and how far apart.
const ATTEMPTS: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);
/// Messages that wait for their reader, of each subscription. Other peers may send 16 KiB each, so the client's own 65,536 would be a
/// gigabyte of memory for them to fill. What is lost beyond, whoever reads asks for or is told again.
const WAITING: usize = 1024;

/// A NATS JWT that a renewal replaces: the next connection is made with what is in here then.
#[derive(Clone)]
pub(crate) struct Jwt(Arc<RwLock<String>>);

/// Who connects: a JWT, the key that it names, and the inbox that it allows.
pub(crate) struct User<'a> {
    pub(crate) jwt: Jwt,
    pub(crate) seed: &'a str,
    pub(crate) inbox: &'a str,
}

impl Jwt {
    pub(crate) fn new(jwt: &str) -> Self {
        Self(Arc::new(RwLock::new(jwt.to_owned())))
    }

    pub(crate) fn replace(&self, jwt: &str) {
        jwt.clone_into(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn get(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where NATS is, and how it proves that it is ours.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// One server, or several of a cluster separated by commas.
    pub(crate) url: &'a str,
    pub(crate) tls: Option<&'a TlsTrust>,
}

/// Connects; with [`Place::tls`] to nobody else and never in plain. Later losses are repaired by the client itself, with backoff up to 2 s, for ever.
pub(crate) async fn connect(place: Place<'_>, user: User<'_>, name: &str) -> Result<Client, Failure> {
    let nats_url = place.url;
    let key = nkeys::KeyPair::from_seed(user.seed).map_err(|_| {
        Failure::new(
            Kind::Credentials,
            "the stored NATS seed is no nkey: delete the credentials file to enrol anew",
        )
    })?;
    let key = Arc::new(key);
    let jwt = user.jwt;
    let refused = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&refused);
    let options = ConnectOptions::with_auth_callback(move |nonce| {
        let (key, jwt) = (key.clone(), jwt.get());
        async move {
            let mut auth = Auth::new();
            auth.signature = Some(key.sign(&nonce).map_err(AuthError::new)?);
            auth.jwt = Some(jwt);
            Ok(auth)
        }
    })
    .name(name)
    .custom_inbox_prefix(user.inbox)
    .connection_timeout(CONNECT_TIMEOUT)
    .request_timeout(Some(REQUEST_TIMEOUT))
    .subscription_capacity(WAITING)
    // The first attempt waits too.
    .reconnect_delay_callback(move |attempt| match attempt {
        _ if told.load(Ordering::Relaxed) => REFUSED_WAIT,
        0 | 1 => Duration::ZERO,
        later => Duration::from_millis(50 << later.min(6)).min(Duration::from_secs(2)),
    })
    .event_callback(move |event| {
        match &event {
            Event::Connected => {
                refused.store(false, Ordering::Relaxed);
                tracing::debug!("NATS connected");
            }
            Event::Disconnected => tracing::info!("NATS is away; the policy and the tunnel stay as they are"),
            other => {
                let refuses = other.to_string().contains("authorization violation");
                if refuses && !refused.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "NATS refuses this peer: it was removed, or its time is over; to come back, delete its credentials file and enrol with a new token"
                    );
                }
                tracing::debug!(event = %other, "NATS");
            }
        }
        async {}
    });
    let options = match place.tls {
        Some(trust) => {
            let tls = trust.client_config().map_err(|error| Failure::new(Kind::Credentials, error))?;
            options.require_tls(true).tls_client_config(tls)
        }
        None => options,
    };
    // Boxed: it is big, and so would every future that holds it be.
    let servers: Vec<&str> = nats_url.split(',').collect();
    Box::pin(options.connect(servers)).await.map_err(|error| match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => Failure::new(
            Kind::Credentials,
            format!("NATS at {nats_url} refuses these credentials: the peer was removed or the server is another one; delete the credentials file and enrol with a new token"),
        ),
        _ if chain(&error).contains("certificate") => Failure::new(
            Kind::Server,
            format!("NATS at {nats_url} cannot prove that it is the one that this peer enrolled with: {}; if latticed got a new data directory, delete the credentials file and enrol with a new token", chain(&error)),
        ),
        _ => Failure::new(
            Kind::Server,
            format!("cannot reach NATS at {nats_url}: {}; is it running and not firewalled?", chain(&error)),
        ),
    })
}

/// One request and its reply.
pub(crate) async fn request<T: DeserializeOwned>(
    client: &Client,
    subject: String,
    body: &(impl Serialize + Sync),
) -> Result<T, Failure> {
    exchange(client, &subject, body).await?.map_err(refused)
}

/// As [`request`], but where latticed says that this peer asks too often, it waits and asks again: starts that follow each other quickly
/// share what one peer may ask.
///
/// # Errors
/// Those of [`request`], and the last refusal after half a minute of them. To be given up by whoever may stop the start.
pub(crate) async fn patient_request<T: DeserializeOwned>(
    client: &Client,
    subject: String,
    body: &(impl Serialize + Sync),
) -> Result<T, Failure> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match exchange(client, &subject, body).await? {
            Err(refusal) if refusal.code == RefusalCode::RateLimited && left > 0 => {
                tracing::warn!(reason = %refusal.message, "latticed has no time for this peer yet: asking again");
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer.map_err(refused),
        }
    }
}

/// One request, and what latticed answers to it.
async fn exchange<T: DeserializeOwned>(
    client: &Client,
    subject: &str,
    body: &(impl Serialize + Sync),
) -> Result<Result<T, Refusal>, Failure> {
    let payload = serde_json::to_vec(body).map_err(|error| Failure::new(Kind::Internal, error))?;
    let message = client.request(subject.to_owned(), payload.into()).await.map_err(|error| {
        let text = match error.kind() {
            RequestErrorKind::NoResponders => {
                format!("latticed does not listen on {subject}: NATS runs, latticed does not")
            }
            RequestErrorKind::TimedOut => {
                format!("latticed did not answer {subject} within {} s", REQUEST_TIMEOUT.as_secs())
            }
            _ => format!("request {subject} failed: {}", chain(&error)),
        };
        Failure::new(Kind::Server, text)
    })?;
    match parse(&message.payload)? {
        Reply::Ok(value) => Ok(Ok(value)),
        Reply::Error(refusal) => Ok(Err(refusal)),
    }
}

/// Reads a message of bounded size.
pub(crate) fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Failure> {
    if payload.len() > MAX_MESSAGE {
        return Err(Failure::new(Kind::Server, format!("a message of {} bytes is too large", payload.len())));
    }
    serde_json::from_slice(payload).map_err(|error| {
        Failure::new(Kind::Server, format!("latticed sent something that cannot be read: {error}"))
    })
}

fn refused(refusal: Refusal) -> Failure {
    use RefusalCode as Code;
    let kind = match refusal.code {
        Code::TokenUnknown | Code::TokenExpired | Code::TokenUsed | Code::TokenRevoked => Kind::Token,
        Code::NameTaken | Code::KeyTaken => Kind::Taken,
        Code::NameRefused | Code::PresetRefused => Kind::Usage,
        Code::PeerUnknown => Kind::Credentials,
        Code::RateLimited | Code::PoolExhausted | Code::Unavailable => Kind::Server,
        Code::ProofInvalid | Code::Malformed | Code::Internal | Code::Unknown => Kind::Internal,
    };
    Failure::new(kind, refusal.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, jwt};

    #[tokio::test]
    async fn of_several_servers_one_suffices() {
        let fake = Fake::start().await;
        let key = nkeys::KeyPair::new_user().seed().unwrap();
        let user = User { jwt: Jwt::new(&jwt(&serde_json::json!({}))), seed: &key, inbox: "_INBOX_x" };
        let url = format!("nats://127.0.0.1:1,{},nats://127.0.0.1:2", fake.url);
        assert!(connect(Place { url: &url, tls: None }, user, "test").await.is_ok());
    }

    #[tokio::test]
    async fn a_server_without_tls_is_not_spoken_to_when_tls_was_pinned() {
        let fake = Fake::start().await;
        let ca = rcgen::generate_simple_self_signed(vec!["x".into()]).unwrap().cert.pem();
        let trust = TlsTrust { ca, name: Some("x".into()) };
        let key = nkeys::KeyPair::new_user().seed().unwrap();
        let attempt = async |tls| {
            let user = User { jwt: Jwt::new(&jwt(&serde_json::json!({}))), seed: &key, inbox: "_INBOX_x" };
            connect(Place { url: &fake.url, tls }, user, "test").await
        };
        assert_eq!(attempt(Some(&trust)).await.err().map(|failure| failure.kind), Some(Kind::Server));
        assert!(attempt(None).await.is_ok(), "it is there, in plain");
    }
}
