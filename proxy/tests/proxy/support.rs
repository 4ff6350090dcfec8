//! A proxy in front of this host's own network, with a policy of a few names, and servers to reach by it.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::{Future, pending},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    process::Output,
    rc::Rc,
    sync::atomic::{AtomicU8, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use lattice_proxy::{
    Because, Client, Config, Counters, Datagrams, Host, Limits, Outbound, Proxy, Refusal, Stream, Target,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream, UdpSocket},
    process::Command,
    task::{LocalSet, spawn_local},
    time::timeout,
};

/// Far beyond what anything takes: only a hang reaches it.
pub(crate) const HANGS: Duration = Duration::from_secs(300);
/// How long nothing must happen where nothing may.
pub(crate) const QUIET: Duration = Duration::from_millis(300);
pub(crate) const CREDENTIALS: &str = "merlin:0123456789abcdef";

/// Runs a test on one thread, bounded.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { timeout(HANGS, test).await.expect("hangs") });
}

/// An address of this host that no other test has, so that a port that is given back is nobody else's at once.
pub(crate) fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 0x40, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What the test sees of the network behind the proxy.
#[derive(Default)]
pub(crate) struct Behind {
    /// All that was asked, with the protocol.
    pub(crate) asked: RefCell<Vec<String>>,
    /// Polls of the connections' reading side.
    pub(crate) polls: Cell<usize>,
    names: RefCell<HashMap<String, IpAddr>>,
}

#[derive(Clone)]
pub(crate) struct Real(Rc<Behind>);

impl Real {
    async fn resolve(&self, host: &Host) -> Result<IpAddr, Refusal> {
        let because = |rule: Option<&str>, reason: &str| Because {
            rule: rule.map(str::to_owned),
            reason: reason.to_owned(),
        };
        match host {
            Host::Address(address) if address.to_string() == "192.0.2.1" => {
                Err(Refusal::DeniedAddress(because(Some("deny tcp 192.0.2.0/24"), "rule-deny")))
            }
            Host::Address(address) => Ok(*address),
            Host::Name(name) => match name.as_str() {
                "denied.test" => Err(Refusal::DeniedName(because(None, "default-deny"))),
                "unroutable.test" => Err(Refusal::NoRoute),
                "unreachable.test" => Err(Refusal::Unreachable),
                "busy.test" => Err(Refusal::Busy),
                "slow.test" => pending().await,
                name => self.0.names.borrow().get(name).copied().ok_or(Refusal::NotFound),
            },
        }
    }
}

impl Outbound for Real {
    type Stream = Counted;
    type Datagrams = Socket;

    async fn connect(&self, target: &Target, client: Client) -> Result<Counted, Refusal> {
        self.0.asked.borrow_mut().push(format!("{:?} {target}", client.protocol));
        let address = self.resolve(&target.host).await?;
        match TcpStream::connect((address, target.port)).await {
            Ok(stream) => Ok(Counted(stream, Rc::clone(&self.0))),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(Refusal::ConnectionRefused),
            Err(error) => Err(Refusal::Failed(error.to_string())),
        }
    }

    async fn udp(&self, _: Client) -> Result<Socket, Refusal> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
        Ok(Socket(socket.map_err(|error| Refusal::Failed(error.to_string()))?, self.clone()))
    }
}

pub(crate) struct Socket(UdpSocket, Real);

impl Datagrams for Socket {
    async fn send(&self, payload: &[u8], target: &Target) -> Result<(), Refusal> {
        self.1.0.asked.borrow_mut().push(format!("udp {target}"));
        let address = self.1.resolve(&target.host).await?;
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

/// A connection that counts how often it is looked at.
pub(crate) struct Counted(TcpStream, Rc<Behind>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.1.polls.set(self.1.polls.get() + 1);
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Stream for Counted {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// A running proxy. It ends with the test.
pub(crate) struct Lab {
    pub(crate) address: SocketAddr,
    pub(crate) behind: Rc<Behind>,
    proxy: Rc<Proxy<Real>>,
    running: tokio::task::JoinHandle<()>,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::with(None, |_| {}).await
    }

    pub(crate) async fn with(credentials: Option<&str>, change: impl FnOnce(&mut Limits)) -> Self {
        Self::on((own_address(), 0).into(), credentials, change).await
    }

    pub(crate) async fn on(
        listen: SocketAddr,
        credentials: Option<&str>,
        change: impl FnOnce(&mut Limits),
    ) -> Self {
        let credentials = credentials.map(|text| text.parse().unwrap());
        let mut config = Config::new(listen, credentials).unwrap();
        change(&mut config.limits);
        let behind = Rc::<Behind>::default();
        let proxy = Rc::new(Proxy::bind(config, Real(Rc::clone(&behind))).await.unwrap());
        behind.names.borrow_mut().insert("web.test".into(), Ipv4Addr::LOCALHOST.into());
        let running = spawn_local({
            let proxy = Rc::clone(&proxy);
            async move { proxy.run().await }
        });
        Self { address: proxy.address(), behind, proxy, running }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.proxy.counters()
    }

    /// Ends the proxy as a process that is killed would.
    pub(crate) fn stop(&self) {
        self.running.abort();
    }

    /// Waits until the counters are as `right` says.
    pub(crate) async fn until(&self, right: impl Fn(&Counters) -> bool) {
        let seen = timeout(HANGS / 2, async {
            while !right(&self.counters()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(seen.await.is_ok(), "{:?}", self.counters());
    }

    pub(crate) async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection to `to`, by SOCKS with an address.
    pub(crate) async fn tunnel(&self, to: SocketAddr) -> TcpStream {
        let mut client = self.client().await;
        let reply = ask(&mut client, &connect(to)).await;
        assert_eq!(reply, 0, "REP");
        client
    }
}

/// A SOCKS request with an IPv4 address.
pub(crate) fn request(command: u8, to: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(ip) = to.ip() else { panic!("IPv6") };
    [&[5, command, 0, 1][..], &ip.octets(), &to.port().to_be_bytes()].concat()
}

pub(crate) fn connect(to: SocketAddr) -> Vec<u8> {
    request(1, to)
}

/// Greets and asks without credentials; REP of the reply.
pub(crate) async fn ask(client: &mut TcpStream, request: &[u8]) -> u8 {
    client.write_all(&[5, 1, 0]).await.unwrap();
    let mut method = [0; 2];
    client.read_exact(&mut method).await.unwrap();
    assert_eq!(method, [5, 0]);
    client.write_all(request).await.unwrap();
    let mut reply = [0; 10];
    client.read_exact(&mut reply).await.unwrap();
    assert_eq!((reply[0], reply[2], reply[3]), (5, 0, 1));
    reply[1]
}

/// Everything until the end.
pub(crate) async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

/// A server that serves every connection by `serve`.
pub(crate) async fn server<F: Future<Output = ()> + 'static>(
    serve: impl Fn(TcpStream) -> F + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(serve(stream));
        }
    });
    address
}

/// A web server: whatever is asked for, `hello`.
pub(crate) async fn web() -> SocketAddr {
    server(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let _ =
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").await;
    })
    .await
}

/// A server that sends back what it is sent, and ends when the client does.
pub(crate) async fn echo() -> SocketAddr {
    server(|mut stream| async move {
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    })
    .await
}

/// An address on which nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Runs a program of the host; none, and says so, where there is no such program.
pub(crate) async fn program(name: &str, arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new(name);
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    match command.kill_on_drop(true).output().await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("SKIPPED: {name} as a client: not installed: apt-get install {name}");
            None
        }
        output => Some(output.unwrap()),
    }
}
