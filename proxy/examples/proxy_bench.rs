//! What the proxy costs: memory of a process with idle connections, and CPU time per GiB of one stream there and back, beside a process
//! that copies bytes both ways and does nothing else. Both dial this host's own echo server.
//!
//! `cargo run --release -p lattice-proxy --example proxy_bench [MiB per turn]`

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    task::{Context, Poll},
    thread,
    time::Instant,
};

use lattice_proxy::{Client, Config, Datagrams, Host, Outbound, Proxy, Refusal, Target};
use tokio::{io::ReadBuf, task::LocalSet};

const ROUNDS: usize = 3;
const IDLE: [usize; 3] = [0, 100, 500];

fn main() {
    let argument = env::args().nth(1);
    match argument.as_deref() {
        Some("--proxy") => serve(proxy()),
        Some("--copy") => serve(copy(env::args().nth(2).unwrap().parse().unwrap())),
        megabytes => compare(megabytes.map_or(512, |text| text.parse().unwrap())),
    }
}

/// The host's own network, without a policy.
struct Open;

impl Outbound for Open {
    type Stream = tokio::net::TcpStream;
    type Datagrams = None;

    async fn connect(&self, target: &Target, _: Client) -> Result<Self::Stream, Refusal> {
        let Host::Address(address) = target.host else { return Err(Refusal::NotFound) };
        tokio::net::TcpStream::connect((address, target.port)).await.map_err(|_| Refusal::ConnectionRefused)
    }

    async fn udp(&self, _: Client) -> Result<None, Refusal> {
        Err(Refusal::Busy)
    }
}

/// No datagrams.
enum None {}

impl Datagrams for None {
    async fn send(&self, _: &[u8], _: &Target) -> Result<(), Refusal> {
        match *self {}
    }
    fn poll_receive(&self, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<SocketAddr>> {
        match *self {}
    }
}

fn serve(server: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, server);
}

async fn proxy() {
    let mut config = Config::new("127.0.0.1:0".parse().unwrap(), Option::None).unwrap();
    config.limits.connections = 1000;
    let proxy = Proxy::bind(config, Open).await.unwrap();
    println!("{}", proxy.address());
    proxy.run().await;
}

/// What the proxy is compared with: tokio's own loop, with its default buffers.
async fn copy(to: SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (mut inside, _) = listener.accept().await.unwrap();
        tokio::task::spawn_local(async move {
            let mut outside = tokio::net::TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
        });
    }
}

/// Another process, and where it listens.
struct Server(Child, SocketAddr);

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self(child, line.trim().parse().unwrap())
    }

    /// Resident memory in KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// CPU time in seconds.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/schedstat", self.0.id())).unwrap();
        stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
    }

    fn tunnel(&self, to: Option<SocketAddr>) -> TcpStream {
        let mut stream = TcpStream::connect(self.1).unwrap();
        if let Some(SocketAddr::V4(to)) = to {
            let request = [&[5, 1, 0, 5, 1, 0, 1][..], &to.ip().octets(), &to.port().to_be_bytes()].concat();
            stream.write_all(&request).unwrap();
            let mut reply = [0; 12];
            stream.read_exact(&mut reply).unwrap();
            assert_eq!(reply[..4], [5, 0, 5, 0]);
        }
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::Builder::new()
                .stack_size(256 << 10)
                .spawn(|| {
                    let mut stream = stream.unwrap();
                    let _ = io::copy(&mut stream.try_clone().unwrap(), &mut stream);
                    let _ = stream.shutdown(Shutdown::Write);
                })
                .unwrap();
        }
    });
    address
}

/// Seconds of CPU time per GiB, and Gbit/s in each direction.
fn stream(server: &Server, to: Option<SocketAddr>, bytes: usize) -> (f64, f64) {
    let tunnel = server.tunnel(to);
    let mut writer = tunnel.try_clone().unwrap();
    let (before, started) = (server.cpu(), Instant::now());
    let write = thread::spawn(move || {
        let block = vec![7; 1 << 20];
        (0..bytes >> 20).for_each(|_| writer.write_all(&block).unwrap());
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut reader = tunnel;
    assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap(), bytes as u64);
    write.join().unwrap();
    let gib = (2 * bytes) as f64 / (1u64 << 30) as f64;
    ((server.cpu() - before) / gib, bytes as f64 * 8.0 / started.elapsed().as_secs_f64() / 1e9)
}

fn compare(megabytes: usize) {
    let to = echo();
    println!("idle connections: KiB resident");
    for count in IDLE {
        let server = Server::start(&["--proxy"]);
        let mut tunnels: Vec<TcpStream> = (0..count).map(|_| server.tunnel(Some(to))).collect();
        for tunnel in &mut tunnels {
            tunnel.write_all(&[7; 60_000]).unwrap();
            tunnel.read_exact(&mut [0; 60_000]).unwrap();
        }
        println!("  {count:>4}: {:>6}", server.memory());
    }
    println!("one stream there and back: CPU-s per GiB, Gbit/s each way");
    let ours = (Server::start(&["--proxy"]), Some(to));
    let plain = (Server::start(&["--copy", &to.to_string()]), Option::None);
    for _ in 0..ROUNDS {
        for (name, (server, to)) in [("proxy", &ours), ("copy only", &plain)] {
            let (cpu, speed) = stream(server, *to, megabytes << 20);
            println!("  {name:<10} {cpu:>6.2} {speed:>6.2}");
        }
    }
}
