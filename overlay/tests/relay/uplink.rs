//! A full uplink to a relay that is reached by TCP.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use nix::sys::socket::{setsockopt, sockopt};

use super::*;

/// Bytes that are passed on at once, and how often at the beginning: 48 KB a second.
const CHUNK: usize = 4 << 10;
const EVERY: usize = 85;

/// Stands before a relay and takes what is sent to it only slowly; back it is as fast as it can be. Its thread ends with its
/// connections.
struct Uplink {
    address: SocketAddr,
    /// Milliseconds for each chunk; at the highest none is taken any more.
    every: AtomicUsize,
    connections: AtomicUsize,
}

impl Uplink {
    fn start(relay: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // Whoever connects inherits it: little may be on its way.
        setsockopt(&listener.as_fd(), sockopt::RcvBuf, &(16 << 10)).unwrap();
        let address = listener.local_addr().unwrap();
        let uplink =
            Arc::new(Self { address, every: AtomicUsize::new(EVERY), connections: AtomicUsize::new(0) });
        let weak = Arc::downgrade(&uplink);
        thread::spawn(move || {
            for client in listener.incoming().map(Result::unwrap) {
                let Some(uplink) = weak.upgrade() else { return };
                uplink.connections.fetch_add(1, Ordering::Relaxed);
                let Ok(relay) = TcpStream::connect(relay) else { return };
                let (mut from, mut to) = (relay.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
                thread::spawn(move || uplink.carry(client, relay));
            }
        });
        uplink
    }

    fn carry(&self, mut client: TcpStream, mut relay: TcpStream) {
        let mut chunk = [0; CHUNK];
        loop {
            let every = self.every.load(Ordering::Relaxed);
            if every == usize::MAX {
                thread::sleep(HANGS);
                break;
            }
            thread::sleep(Duration::from_millis(every as u64));
            match client.read(&mut chunk) {
                Ok(length @ 1..) if relay.write_all(&chunk[..length]).is_ok() => {}
                _ => break,
            }
        }
        let _ = (client.shutdown(Shutdown::Both), relay.shutdown(Shutdown::Both));
    }
}

#[test]
fn a_relay_is_alive_while_it_takes_what_a_full_uplink_carries_and_gone_when_it_takes_no_more() {
    let relay = TestRelay::start();
    let uplink = Uplink::start(relay.server.tcp.as_ref().unwrap().parse().unwrap());
    let underlay = Arc::new(Netns::current().unwrap());
    let a = Peer::with(&relay, 1, &underlay, |config| {
        (config.server.quic, config.server.tcp) = (None, Some(uplink.address.to_string()));
    });
    let (a, b) = (a.up(), Peer::start(&relay, 2).up());
    a.reaches(&b, b"before");
    a.until(|state| matches!(state, RelayState::Up { rtt, .. } if !rtt.is_zero()));

    let flood = |until: &dyn Fn(Duration) -> bool| {
        let begun = Instant::now();
        while !until(begun.elapsed()) {
            assert!(begun.elapsed() < SOON, "it is never given up");
            for _ in 0..100 {
                a.client.send(&b.address, FULL.len(), |body| body.copy_from_slice(&FULL));
            }
            thread::sleep(Duration::from_millis(2));
        }
    };
    flood(&|elapsed| elapsed > Duration::from_secs(5));
    while b.receive(Duration::from_millis(500)).is_some() {}
    a.reaches(&b, b"after");
    assert_eq!(uplink.connections.load(Ordering::Relaxed), 1, "it was given up while it was alive");

    uplink.every.store(usize::MAX, Ordering::Relaxed);
    flood(&|_| a.transport().is_none());
}
