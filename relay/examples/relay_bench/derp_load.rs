//! A load for derper, Tailscale's relay, which carries WireGuard datagrams by TLS on TCP, as LRP does where QUIC does not pass. Its clients
//! are a program of their own (`derp/main.go`), with Tailscale's own library.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    server::{Server, command},
};

/// `None` where `LATTICE_DERPER` and `LATTICE_DERP_LOAD` do not name the two programs.
pub(crate) fn run(turn: Duration, size: usize, pairs: usize) -> Option<Outcome> {
    let [derper, load] =
        ["LATTICE_DERPER", "LATTICE_DERP_LOAD"].map(|name| env::var_os(name).filter(|path| !path.is_empty()));
    let (derper, load) = (derper?, load?);
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut relay = command(derper);
    // By a name that is an address it makes its certificate itself.
    relay.args(["-a", &address.to_string(), "-hostname", "127.0.0.1", "-certmode", "manual", "-certdir"]);
    relay.arg(dir.path()).arg("-c").arg(dir.path().join("key")).args(["-http-port=-1", "-stun=false"]);
    let child = relay.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server(child, String::new());
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "derper does not listen");
        thread::sleep(Duration::from_millis(20));
    }

    let mut clients = command(load);
    clients.args([address.to_string(), size.to_string(), pairs.to_string(), turn.as_secs_f64().to_string()]);
    let mut child = clients.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut begin, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let _clients = Server(child, String::new());
    let mut lines = BufReader::new(said).lines();
    // It ends by itself when derper answers it no more.
    let mut said = || lines.next().expect("derp-load says why above").unwrap();
    assert_eq!(said(), "ready");
    let before = server.cpu();
    begin.write_all(b"begin\n").unwrap();
    let result = said();
    let cpu = server.cpu() - before;
    let [sent, received, took] = result.split(' ').collect::<Vec<_>>()[..] else { panic!("{result}") };
    let (sent, received) = (sent.parse().unwrap(), received.parse().unwrap());
    Some(Outcome { sent, received, cpu, took: took.parse().unwrap() })
}
