//! Port forwards, from an inbound flow to a service of this host.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
};

use lattice_proxy::{Datagrams, Forwarder, Host, Refusal, Target, limits::FORWARD_FLOWS};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream, UdpSocket},
    task::spawn_local,
    time::timeout,
};

use super::support::{HANGS, QUIET, echo, nobody, own_address, read_all, run};

/// A peer's end of a connection, and ours.
async fn inbound() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (peer, ours) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (peer.unwrap(), ours.unwrap().0)
}

fn forwarder(flag: &str) -> Forwarder {
    Forwarder::new(flag.parse().unwrap())
}

#[test]
fn connections_reach_the_service_and_end_each_way() {
    run(async {
        let forwarder = forwarder(&format!("8080:{}", echo().await));
        let (mut peer, ours) = inbound().await;
        let relay = spawn_local(async move { forwarder.connection(ours).await });
        peer.write_all(b"hello").await.unwrap();
        peer.shutdown().await.unwrap();
        assert_eq!(read_all(&mut peer).await, b"hello");
        relay.await.unwrap().unwrap();
    });
}

#[test]
fn without_a_service_the_peer_is_reset() {
    run(async {
        let forwarder = forwarder(&format!("8080:{}", nobody().await));
        let (mut peer, ours) = inbound().await;
        let error = forwarder.connection(ours).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let read = timeout(HANGS, peer.read_u8()).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_service_is_dialled_before_its_peer_is_accepted() {
    run(async {
        let refused = forwarder(&format!("8080:{}", nobody().await)).dial().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let service = forwarder(&format!("8080:{}", echo().await)).dial().await.unwrap();
        let (mut peer, ours) = inbound().await;
        let relay = spawn_local(service.relay(ours));
        peer.write_all(b"hello").await.unwrap();
        peer.shutdown().await.unwrap();
        assert_eq!(read_all(&mut peer).await, b"hello");
        relay.await.unwrap().unwrap();
    });
}

#[test]
fn connections_are_capped_and_places_come_back() {
    run(async {
        // The service never accepts more than the kernel does by itself, which is enough here.
        let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forwarder = forwarder(&format!("8080:{}", service.local_addr().unwrap()));
        let mut open = Vec::new();
        for _ in 0..FORWARD_FLOWS {
            let (peer, ours) = inbound().await;
            let forwarder = forwarder.clone();
            let relay = spawn_local(async move { forwarder.connection(ours).await });
            let (held, _) = service.accept().await.unwrap();
            open.push((peer, relay, held));
        }
        let (mut peer, ours) = inbound().await;
        let error = forwarder.connection(ours).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(timeout(HANGS, peer.read_u8()).await.unwrap().is_err());

        let (peer, relay, held) = open.pop().unwrap();
        drop((peer, held));
        let _ = relay.await.unwrap();
        let (_peer, ours) = inbound().await;
        let again = spawn_local(async move { forwarder.connection(ours).await });
        timeout(HANGS, service.accept()).await.unwrap().unwrap();
        again.abort();
        open.iter().for_each(|(_, relay, _)| relay.abort());
    });
}

/// The forwarded port: a socket of this host.
struct Port(UdpSocket);

impl Datagrams for Port {
    async fn send(&self, payload: &[u8], target: &Target) -> Result<(), Refusal> {
        let Host::Address(address) = target.host else { panic!("{target}") };
        let sent = self.0.send_to(payload, (address, target.port)).await;
        sent.map(drop).map_err(|error| Refusal::Failed(error.to_string()))
    }

    fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        self.0.poll_recv_from(context, buffer)
    }
}

#[test]
fn each_peer_gets_its_own_replies() {
    run(async {
        let service = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let forwarder = forwarder(&format!("udp:53:{}", service.local_addr().unwrap()));
        let port = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let inside = port.local_addr().unwrap();
        let relay = spawn_local(async move { forwarder.datagrams(Port(port)).await });
        let peers =
            [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
        let mut sources = Vec::new();
        let mut buffer = [0; 64];
        for round in 0..2 {
            for (n, peer) in peers.iter().enumerate() {
                peer.send_to(&[n as u8], inside).await.unwrap();
                let (length, source) = timeout(HANGS, service.recv_from(&mut buffer)).await.unwrap().unwrap();
                assert_eq!(buffer[..length], [n as u8]);
                if round == 0 { sources.push(source) } else { assert_eq!(sources[n], source) }
            }
        }
        assert_ne!(sources[0], sources[1]);
        // Crosswise, so that a reply that went to the last sender would be seen.
        for (n, source) in sources.iter().enumerate() {
            service.send_to(&[n as u8 + 100], source).await.unwrap();
        }
        for (n, peer) in peers.iter().enumerate() {
            let (length, from) = timeout(HANGS, peer.recv_from(&mut buffer)).await.unwrap().unwrap();
            assert_eq!((&buffer[..length], from), (&[n as u8 + 100][..], inside));
        }
        // Whom the service did not answer cannot write to a peer.
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        stranger.send_to(b"x", sources[0]).await.unwrap();
        assert!(timeout(QUIET, peers[0].recv_from(&mut buffer)).await.is_err());
        assert!(!relay.is_finished());
        relay.abort();
    });
}

#[test]
fn a_service_that_comes_later_is_found() {
    run(async {
        let reserved = UdpSocket::bind((own_address(), 0)).await.unwrap();
        let address = reserved.local_addr().unwrap();
        drop(reserved);
        let forwarder = forwarder(&format!("udp:53:{address}"));
        let port = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let inside = port.local_addr().unwrap();
        let relay = spawn_local(async move { forwarder.datagrams(Port(port)).await });
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..3 {
            peer.send_to(b"early", inside).await.unwrap();
            tokio::time::sleep(QUIET / 10).await;
        }
        let service = UdpSocket::bind(address).await.unwrap();
        let mut buffer = [0; 64];
        let found = async {
            loop {
                peer.send_to(b"now", inside).await.unwrap();
                if let Ok(Ok((length, _))) = timeout(QUIET, service.recv_from(&mut buffer)).await {
                    return buffer[..length].to_vec();
                }
            }
        };
        assert_eq!(timeout(HANGS / 2, found).await.unwrap(), b"now");
        assert!(!relay.is_finished());
        relay.abort();
    });
}
