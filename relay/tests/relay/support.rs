//! A relay, and clients that do exactly what a test says.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use lattice_relay::{
    Config, Fingerprint, Identity, Metrics, Relay,
    client::{self, ConnectError, Credential},
    frames, sized_udp,
};
use lattice_wire::{
    RelayClaims, WgPublicKey, WorkspaceId,
    lrp::{self, Frame},
    relay_token::{TrustedKeys, issue},
};
use nkeys::KeyPair;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

/// Far beyond what anything takes: only a hang reaches it.
pub(crate) const HANGS: Duration = Duration::from_secs(60);

pub(crate) const LOOPBACK: &str = "127.0.0.1:0";

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

pub(crate) struct TestRelay {
    pub(crate) relay: Relay,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) issuer: KeyPair,
}

impl TestRelay {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (issuer, identity, metrics) =
            (KeyPair::new_account(), Identity::generate().unwrap(), Arc::new(Metrics::default()));
        let trusted = TrustedKeys::new([issuer.public_key().as_str()]).unwrap();
        let loopback: SocketAddr = LOOPBACK.parse().unwrap();
        let mut config = Config { quic: Some(loopback), tcp: Some(loopback), ..Config::new(trusted) };
        change(&mut config);
        let fingerprint = identity.fingerprint();
        let relay = Relay::start(config, identity, Arc::clone(&metrics)).unwrap();
        Self { relay, fingerprint, metrics, issuer }
    }

    /// The number behind `name` in the metrics.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let text = self.metrics.text().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |number| number.parse().unwrap())
    }

    /// Waits until `holds`.
    pub(crate) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(HANGS, waiting).await.unwrap_or_else(|_| panic!("{}", self.metrics.text().unwrap()));
    }

    pub(crate) async fn quic(&self, peer: &Peer) -> Result<Link, ConnectError> {
        self.quic_as(&peer.token(&self.issuer), &peer.key).await
    }

    pub(crate) async fn tcp(&self, peer: &Peer) -> Result<Link, ConnectError> {
        self.tcp_as(&peer.token(&self.issuer), &peer.key).await
    }

    pub(crate) async fn quic_as(&self, token: &str, key: &KeyPair) -> Result<Link, ConnectError> {
        let socket = sized_udp(LOOPBACK.parse().unwrap()).unwrap();
        let remote = self.relay.quic_address().unwrap();
        let credential = Credential { token, key };
        client::quic(socket, remote, self.fingerprint, credential, 256 << 10).await.map(Link::Quic)
    }

    pub(crate) async fn tcp_as(&self, token: &str, key: &KeyPair) -> Result<Link, ConnectError> {
        let stream = TcpStream::connect(self.relay.tcp_address().unwrap()).await?;
        client::tcp(stream, self.fingerprint, Credential { token, key })
            .await
            .map(|tcp| Link::Tcp(Box::new(tcp)))
    }
}

pub(crate) struct Peer {
    pub(crate) key: KeyPair,
    pub(crate) claims: RelayClaims,
}

impl Peer {
    pub(crate) fn new(workspace: u8, address: u8) -> Self {
        let key = KeyPair::new_user();
        let claims = RelayClaims {
            workspace: WorkspaceId::from_random([workspace; 10]),
            wireguard: WgPublicKey([address; 32]),
            nats: key.public_key(),
            not_after: now() + 3600,
        };
        Self { key, claims }
    }

    pub(crate) fn token(&self, issuer: &KeyPair) -> String {
        issue(&self.claims, issuer).unwrap()
    }

    pub(crate) fn address(&self) -> WgPublicKey {
        self.claims.wireguard
    }
}

/// What the relay sends, in a form that can be kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Route(u32, WgPublicKey),
    Gone(u32),
    Absent(WgPublicKey),
    TooLarge,
    Ended(String),
}

pub(crate) enum Link {
    Quic(client::Quic),
    Tcp(Box<client::Tcp>),
}

impl Link {
    pub(crate) async fn send_frame(&mut self, frame: Frame<'_>) {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        match self {
            Self::Quic(link) => link.control.write_all(&bytes).await.unwrap(),
            Self::Tcp(link) => {
                link.writer.write_all(&bytes).await.unwrap();
                link.writer.flush().await.unwrap();
            }
        }
    }

    /// The next control frame; data is skipped.
    pub(crate) async fn told(&mut self) -> Told {
        timeout(HANGS, async {
            loop {
                let next = match self {
                    Self::Quic(link) => link.frames.next().await,
                    Self::Tcp(link) => link.frames.next().await,
                };
                let frame = match next {
                    Ok(Some(frame)) => frame,
                    other => return Told::Ended(self.end(other.map(drop)).await),
                };
                return match Frame::parse(&frame).unwrap() {
                    Frame::Route(handle, key) => Told::Route(handle, key),
                    Frame::Gone(handle) => Told::Gone(handle),
                    Frame::Absent(key) => Told::Absent(key),
                    Frame::TooLarge(_) => Told::TooLarge,
                    Frame::Closing(reason) => Told::Ended(reason.to_string()),
                    Frame::Data(_) => continue,
                    other => panic!("{other:?}"),
                };
            }
        })
        .await
        .expect("the relay says nothing")
    }

    async fn end(&self, read: std::io::Result<()>) -> String {
        match self {
            Self::Quic(link) => client::lost(link.connection.closed().await).to_string(),
            Self::Tcp(_) => format!("{read:?}"),
        }
    }

    pub(crate) async fn route_to(&mut self, peer: &Peer) -> u32 {
        self.send_frame(Frame::Ask(peer.address())).await;
        match self.told().await {
            Told::Route(handle, key) if key == peer.address() => handle,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, handle: u32, datagram: &[u8]) {
        let body = [handle.to_be_bytes().as_slice(), datagram].concat();
        match self {
            Self::Quic(link) => link.connection.send_datagram_wait(body.into()).await.unwrap(),
            Self::Tcp(_) => self.send_frame(Frame::Data(&body)).await,
        }
    }

    /// The next datagram, with its handle; control is skipped.
    pub(crate) async fn receive(&mut self) -> (u32, Bytes) {
        let body = timeout(HANGS, async {
            match self {
                Self::Quic(link) => link.connection.read_datagram().await.unwrap(),
                Self::Tcp(link) => loop {
                    if let Some(body) = frames::data(&link.frames.next().await.unwrap().unwrap()) {
                        break body;
                    }
                },
            }
        })
        .await
        .expect("no datagram comes");
        (lrp::split_data(&body).unwrap().0, body.slice(lrp::HANDLE..))
    }

    /// Nothing that was sent to this client before is still on its way: what it sends to itself has come back.
    pub(crate) async fn nothing_comes(&mut self) {
        self.send(lrp::ECHO, b"nothing else").await;
        assert_eq!(self.receive().await, (lrp::ECHO, Bytes::from_static(b"nothing else")));
    }
}
