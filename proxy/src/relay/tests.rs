use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};

use super::*;

/// Far beyond what anything takes: only a hang reaches it.
const HANGS: Duration = Duration::from_secs(60);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (one.unwrap(), other.unwrap().0)
}

/// Two ends, and a relay between them.
async fn relayed(early: &[u8]) -> (TcpStream, Relay<TcpStream, TcpStream>, TcpStream) {
    let ((client, a), (b, server)) = (pair().await, pair().await);
    (client, Relay::new(a, b, early.to_vec()), server)
}

#[tokio::test]
async fn an_end_in_one_direction_leaves_the_other_open() {
    let (mut client, relay, mut server) = relayed(b"early ").await;
    let ends = async {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "early question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answered = String::new();
        client.read_to_string(&mut answered).await.unwrap();
        assert_eq!(answered, "answer");
    };
    let (relayed, ()) = timeout(HANGS, async { tokio::join!(relay, ends) }).await.unwrap();
    relayed.unwrap();
}

#[tokio::test]
async fn a_reset_is_passed_on_both_ways() {
    for from_client in [true, false] {
        let (client, relay, server) = relayed(b"").await;
        let (broken, mut other) = if from_client { (client, server) } else { (server, client) };
        broken.set_zero_linger().unwrap();
        drop(broken);
        assert!(timeout(HANGS, relay).await.unwrap().is_err());
        let read = timeout(HANGS, other.read(&mut [0])).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

/// The server refuses an upload: it answers and closes, with a part of the request unread, which is a reset. Whether that shows at a
/// read or at a write, the answer arrives, and then the reset.
#[tokio::test]
async fn an_answer_that_comes_before_a_reset_is_handed_on() {
    for uploads in [true, false] {
        for from_client in [true, false] {
            let (client, relay, server) = relayed(b"").await;
            let (mut sender, mut refuser) = if from_client { (client, server) } else { (server, client) };
            let (mut relay, mut request) = (Box::pin(relay), [0; 7]);
            sender.write_all(b"request").await.unwrap();
            tokio::select! {
                _ = &mut relay => panic!("it has ended"),
                // `readable` may say so too early, and without anything unread there is no reset.
                unread = timeout(HANGS, refuser.peek(&mut request)) => assert_eq!(unread.unwrap().unwrap(), 7),
            }
            refuser.write_all(b"413").await.unwrap();
            drop(refuser);
            if uploads {
                sender.write_all(&[0; 4096]).await.unwrap();
            }
            assert!(timeout(HANGS, relay).await.unwrap().is_err());
            let mut answer = [0; 3];
            timeout(HANGS, sender.read_exact(&mut answer)).await.unwrap().expect("the answer");
            assert_eq!(&answer, b"413", "uploads {uploads}, from the client {from_client}");
            let end = timeout(HANGS, sender.read(&mut [0])).await.unwrap();
            assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    }
}

/// A connection that somebody can revoke.
struct Revocable(TcpStream, oneshot::Receiver<()>);

impl AsyncRead for Revocable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Revocable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Stream for Revocable {
    fn reset(&mut self) {
        self.0.reset();
    }
    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        Pin::new(&mut self.1).poll(cx).map(|_| ErrorKind::PermissionDenied.into())
    }
}

/// The client reads nothing, so the relay waits for it alone, and looks at the other end no more.
#[tokio::test]
async fn what_is_revoked_ends_though_the_client_takes_nothing() {
    let ((mut client, a), (b, mut server)) = (pair().await, pair().await);
    let (revoke, revoked) = oneshot::channel();
    let relay = tokio::spawn(Relay::new(a, Revocable(b, revoked), Vec::new()));
    let chunk = [0; 64 << 10];
    while timeout(Duration::from_millis(200), server.write_all(&chunk)).await.is_ok() {}
    revoke.send(()).unwrap();
    let ended = timeout(HANGS, relay).await.expect("it goes on").unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::PermissionDenied);
    let mut buffer = vec![0; 1 << 20];
    let end = async {
        while client.read(&mut buffer).await? > 0 {}
        io::Result::Ok(())
    };
    assert_eq!(timeout(HANGS, end).await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_relay_that_is_dropped_resets_both_ends() {
    let (mut client, relay, mut server) = relayed(b"").await;
    drop(relay);
    for end in [&mut client, &mut server] {
        let read = timeout(HANGS, end.read(&mut [0])).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_receiver_that_does_not_read_stops_the_sender_and_costs_one_chunk() {
    let (mut client, mut relay, mut server) = relayed(b"").await;
    let block = vec![7; 1 << 20];
    let mut sent = 0;
    // Until the kernel's buffers on both sides, and ours, are full: then neither the client nor the relay gets on.
    loop {
        tokio::select! {
            biased;
            ended = &mut relay => panic!("{ended:?}"),
            written = timeout(Duration::from_millis(500), client.write(&block)) => match written {
                Ok(written) => sent += written.unwrap(),
                Err(_) => break,
            },
        }
        assert!(sent < 1 << 30, "nothing stops the sender");
    }
    assert!(!relay.forth.kept.is_empty() && relay.forth.kept.len() <= CHUNK, "{}", relay.forth.kept.len());
    assert_eq!(relay.back.kept.capacity(), 0);
    client.shutdown().await.unwrap();
    let drain = async {
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        all.len()
    };
    let received = tokio::select! {
        ended = &mut relay => panic!("{ended:?}"),
        received = timeout(HANGS, drain) => received.unwrap(),
    };
    assert_eq!(received, sent);
    // Nothing is in flight: nothing is held.
    assert_eq!(relay.forth.kept.capacity(), 0);
}
