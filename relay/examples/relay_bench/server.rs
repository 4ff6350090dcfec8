//! The servers, each in a process of its own.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use lattice_relay::{Config, Identity, Metrics, Relay, sized_udp};
use lattice_wire::relay_token::TrustedKeys;
use nkeys::{KeyPair, KeyPairType};
use tokio::runtime::Runtime;

pub(crate) fn issuer() -> KeyPair {
    KeyPair::new_from_raw(KeyPairType::Account, [7; 32]).unwrap()
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn serve_relay() {
    runtime().block_on(async {
        let identity = Identity::generate().unwrap();
        let fingerprint = identity.fingerprint();
        let trusted = TrustedKeys::new([issuer().public_key().as_str()]).unwrap();
        let any = Some("127.0.0.1:0".parse().unwrap());
        let config = Config { quic: any, tcp: any, ..Config::new(trusted) };
        let relay = Relay::start(config, identity, Arc::new(Metrics::default())).unwrap();
        println!("{} {} {fingerprint}", relay.quic_address().unwrap(), relay.tcp_address().unwrap());
        std::future::pending::<()>().await;
    });
}

/// Learns the receiver from its first datagram, and sends it everything that comes from others.
pub(crate) fn serve_udp() {
    let socket = sized_udp("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.set_nonblocking(false).unwrap();
    println!("{}", socket.local_addr().unwrap());
    let mut buffer = [0; 2048];
    let (_, receiver) = socket.recv_from(&mut buffer).unwrap();
    loop {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        if from != receiver {
            let _ = socket.send_to(&buffer[..length], receiver);
        }
    }
}

/// What starts `program` so that it ends with us, also when we are killed: with the thread that starts it, which is the main one.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// A server, killed when dropped, and what it said first.
pub(crate) struct Server(pub(crate) Child, pub(crate) String);

impl Server {
    pub(crate) fn start(mode: &str) -> Self {
        let mut child =
            command(env::current_exe().unwrap()).arg(mode).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, line.trim().to_owned())
    }

    /// CPU time so far, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // In ticks, 100 a second on every Linux (proc(5), utime and stime).
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    /// Resident memory, in bytes.
    pub(crate) fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
