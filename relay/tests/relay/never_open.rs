//! It carries for nobody whom latticed has not sent.

use std::time::Duration;

use lattice_relay::client::ConnectError;
use lattice_wire::lrp::{self, Frame, Reason};
use nkeys::KeyPair;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use super::support::{HANGS, Link, Peer, TestRelay, Told, now};

/// Both transports refuse it for the same reason.
async fn refused(relay: &TestRelay, token: &str, key: &KeyPair, expected: Reason) {
    for result in [relay.quic_as(token, key).await, relay.tcp_as(token, key).await] {
        match result {
            Err(ConnectError::Refused(reason)) => assert_eq!(reason, expected),
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("admitted"),
        }
    }
    assert_eq!(relay.relay.clients(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_good_token_nobody_gets_in() {
    let relay = TestRelay::start();
    let peer = Peer::new(1, 1);
    refused(&relay, "", &peer.key, Reason::Token).await;
    refused(&relay, "lr-e30.e30", &peer.key, Reason::Token).await;
    refused(&relay, &peer.token(&KeyPair::new_account()), &peer.key, Reason::Token).await;
    let mut late = Peer::new(1, 1);
    late.claims.not_after = now() - 1;
    refused(&relay, &late.token(&relay.issuer), &late.key, Reason::Expired).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_token_is_of_no_use_without_the_nkey() {
    let relay = TestRelay::start();
    let (victim, thief) = (Peer::new(1, 1), KeyPair::new_user());
    refused(&relay, &victim.token(&relay.issuer), &thief, Reason::Proof).await;
}

/// A relay that is hostile asks its client to prove itself, and passes the question and the answer on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_is_worth_nothing_on_another_connection() {
    let relay = TestRelay::start();
    let victim = Peer::new(1, 1);
    let token = victim.token(&relay.issuer);
    let mut mallory = RawTls::connect(&relay).await;
    mallory.send(Frame::Hello(&token)).await;
    let frame = mallory.next().await;
    let Frame::Challenge(challenge) = Frame::parse(&frame).unwrap() else { panic!() };
    // What the victim signs to Mallory's own relay: this challenge, and that connection.
    let signature = victim.key.sign(&lrp::proof_bytes(&challenge, &[7; 32])).unwrap();
    mallory.send(Frame::Proof(signature.try_into().unwrap())).await;
    let frame = mallory.next().await;
    assert_eq!(Frame::parse(&frame).unwrap(), Frame::Closing(Reason::Proof));

    // The same with the right value, so that the test would see a relay that checks nothing but the form.
    let mut honest = RawTls::connect(&relay).await;
    honest.send(Frame::Hello(&token)).await;
    let frame = honest.next().await;
    let Frame::Challenge(challenge) = Frame::parse(&frame).unwrap() else { panic!() };
    let signature = victim.key.sign(&lrp::proof_bytes(&challenge, &honest.exported)).unwrap();
    honest.send(Frame::Proof(signature.try_into().unwrap())).await;
    let frame = honest.next().await;
    assert_eq!(Frame::parse(&frame).unwrap(), Frame::Welcome);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_carried_before_the_welcome() {
    let relay = TestRelay::start();
    let mut early = RawTls::connect(&relay).await;
    early.send(Frame::Data(&[0; 40])).await;
    let frame = early.next().await;
    assert_eq!(Frame::parse(&frame).unwrap(), Frame::Closing(Reason::Protocol));
    assert_eq!(relay.count("lattice_relay_datagrams_total"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workspaces_never_meet() {
    let relay = TestRelay::start();
    let (a, b, stranger) = (Peer::new(1, 1), Peer::new(1, 2), Peer::new(2, 3));
    let mut of_a = relay.quic(&a).await.unwrap();
    let mut of_b = relay.tcp(&b).await.unwrap();
    let mut of_stranger = relay.tcp(&stranger).await.unwrap();
    let handle = of_a.route_to(&b).await;
    of_stranger.send_frame(Frame::Ask(b.address())).await;
    assert_eq!(of_stranger.told().await, Told::Absent(b.address()));
    // Neither by a handle of others, nor by any other.
    for guess in [handle, handle + 1, u32::MAX] {
        of_stranger.send(guess, b"from a stranger").await;
    }
    of_stranger.nothing_comes().await;
    of_a.nothing_comes().await;
    of_b.nothing_comes().await;
    assert_eq!(relay.count(r#"lattice_relay_dropped_total{why="no_route"}"#), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_ends_ends_the_connection_unless_it_is_renewed() {
    let relay = TestRelay::start();
    let (mut a, mut b) = (Peer::new(1, 1), Peer::new(1, 2));
    (a.claims.not_after, b.claims.not_after) = (now() + 2, now() + 2);
    let (mut of_a, mut of_b) = (relay.quic(&a).await.unwrap(), relay.tcp(&b).await.unwrap());
    b.claims.not_after = now() + 3600;
    of_b.send_frame(Frame::Renew(&b.token(&relay.issuer))).await;
    assert_eq!(of_a.told().await, Told::Ended(Reason::Expired.to_string()));
    of_b.nothing_comes().await;
    // Somebody else's token renews nothing.
    of_b.send_frame(Frame::Renew(&Peer::new(1, 2).token(&relay.issuer))).await;
    assert_eq!(of_b.told().await, Told::Ended(Reason::Token.to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_knows_its_relay_by_the_fingerprint() {
    let mut relay = TestRelay::start();
    let peer = Peer::new(1, 1);
    relay.fingerprint = TestRelay::start().fingerprint;
    assert!(matches!(relay.quic(&peer).await, Err(ConnectError::Fingerprint)));
    assert!(matches!(relay.tcp(&peer).await, Err(ConnectError::Fingerprint)));
}

/// Those who begin and do not go on hold neither their place for ever nor anybody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_handshakes_are_bounded_and_end() {
    let relay = TestRelay::start();
    let address = relay.relay.tcp_address().unwrap();
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    // Beyond 64 of one source they are closed at once, the others after five seconds.
    let mut closed = 0;
    for stream in &mut idle {
        let read = tokio::time::timeout(Duration::from_millis(20), stream.read_u8()).await;
        closed += usize::from(matches!(read, Ok(Err(_))));
    }
    assert!(closed >= 30, "{closed} of 100 closed");
    for stream in &mut idle {
        let read = tokio::time::timeout(HANGS, stream.read_u8()).await;
        assert!(read.expect("a silent client keeps its place").is_err());
    }
    let peer = Peer::new(1, 1);
    assert!(relay.tcp(&peer).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_so_many_clients_and_no_more() {
    let relay = TestRelay::with(|config| config.max_clients = 2);
    let _held = [relay.quic(&Peer::new(1, 1)).await.unwrap(), relay.tcp(&Peer::new(1, 2)).await.unwrap()];
    for result in [relay.quic(&Peer::new(1, 3)).await, relay.tcp(&Peer::new(1, 3)).await] {
        assert!(matches!(result, Err(ConnectError::Refused(Reason::Full))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_breaks_the_protocol_is_sent_away() {
    let relay = TestRelay::start();
    for frame in [Frame::Welcome, Frame::Hello("again"), Frame::Route(1, Peer::new(1, 9).address())] {
        let mut quic = relay.quic(&Peer::new(1, 1)).await.unwrap();
        let mut tcp = relay.tcp(&Peer::new(1, 2)).await.unwrap();
        quic.send_frame(frame.clone()).await;
        tcp.send_frame(frame).await;
        for link in [&mut quic, &mut tcp] {
            assert_eq!(Link::told(link).await, Told::Ended(Reason::Protocol.to_string()));
        }
    }
}

/// A client that speaks frame by frame.
struct RawTls {
    stream: tokio_rustls::client::TlsStream<TcpStream>,
    exported: lrp::Exported,
}

impl RawTls {
    async fn connect(relay: &TestRelay) -> Self {
        let stream = TcpStream::connect(relay.relay.tcp_address().unwrap()).await.unwrap();
        let config = trusting_anybody();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = connector.connect("relay".try_into().unwrap(), stream).await.unwrap();
        let exported = stream.get_ref().1.export_keying_material([0; 32], lrp::EXPORTER_LABEL, None).unwrap();
        Self { stream, exported }
    }

    async fn send(&mut self, frame: Frame<'_>) {
        use tokio::io::AsyncWriteExt as _;
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn next(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 2];
        self.stream.read_exact(&mut bytes).await.unwrap();
        let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        bytes.resize(2 + length, 0);
        self.stream.read_exact(&mut bytes[2..]).await.unwrap();
        bytes
    }
}

fn trusting_anybody() -> rustls::ClientConfig {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    #[derive(Debug)]
    struct Anybody;
    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![lrp::ALPN.to_vec()];
    config
}
