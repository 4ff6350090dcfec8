//! A load for the bare forwarder, and the receiver that coturn's load shares with it.

use std::{
    net::{SocketAddr, UdpSocket},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lattice_relay::sized_udp;

use crate::{Outcome, server::Server};

pub(crate) fn socket() -> UdpSocket {
    let socket = sized_udp("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.set_nonblocking(false).unwrap();
    socket
}

/// Counts what comes, until nothing does for half a second.
pub(crate) fn count(receiver: UdpSocket) -> JoinHandle<u64> {
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    thread::spawn(move || {
        let (mut buffer, mut count) = ([0; 2048], 0);
        while receiver.recv(&mut buffer).is_ok() {
            count += 1;
        }
        count
    })
}

pub(crate) fn run(turn: Duration, size: usize) -> Outcome {
    let server = Server::start("--udp");
    let address: SocketAddr = server.1.parse().unwrap();
    let [sender, receiver] = [socket(), socket()];
    sender.connect(address).unwrap();
    receiver.connect(address).unwrap();
    receiver.send(b"here").unwrap();
    let receiving = count(receiver);
    thread::sleep(Duration::from_millis(50));
    let datagram = vec![0; size];
    let (begun, before, mut sent) = (Instant::now(), server.cpu(), 0);
    while begun.elapsed() < turn {
        sent += u64::from(sender.send(&datagram).is_ok());
    }
    let took = begun.elapsed().as_secs_f64();
    Outcome { sent, received: receiving.join().unwrap(), cpu: server.cpu() - before, took }
}
