//! A stack and a TUN link, with the kernel's TCP behind it. Needs root.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use lattice_netstack::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    host::{Host, join},
    pair::{Node, PATIENCE},
};

const BYTES: usize = 8 << 20;

fn content() -> Vec<u8> {
    (0..BYTES).map(|at| (at % 251) as u8).collect()
}

#[test]
fn the_kernels_tcp_and_ours_carry_both_ways_whoever_begins() {
    let (ours, theirs) = join(Host::without_device(1), Host::new(2));
    let node = Node::with(1, Limits::default(), ours.underlay.clone());
    node.device.set_peers(&[theirs.config()]).unwrap();
    theirs.set_peers(&[node.config(ours.outer())]);
    theirs.bring_up();
    node.apply(&["10.42.0.0/16", "fd42::/64"], &["10.42.0.0/16", "fd42::/64"], 1);

    for (own, peer) in [(ours.inner_v4(), theirs.inner_v4()), (ours.inner_v6(), theirs.inner_v6())] {
        let listener = theirs.inside.run(|| TcpListener::bind((peer, 0)).unwrap()).unwrap();
        let to = listener.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).unwrap();
            stream.write_all(&heard).unwrap();
        });
        let heard = node.run(move |network| async move {
            let mut stream = network.connect(to).await.unwrap();
            stream.write_all(&content()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            heard
        });
        echo.join().unwrap();
        assert!(heard == content());

        let serving = node.spawn(|network| async move {
            let mut stream = network.listen(80).request().await.accept().await.unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            stream.write_all(&heard).await.unwrap();
        });
        node.run(|_| async {});
        let to = SocketAddr::new(own, 80);
        let mut stream = theirs.inside.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&content()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert!(heard == content());
        serving.wait();
    }
}
