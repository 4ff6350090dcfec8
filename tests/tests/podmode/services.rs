//! Services of a host, in this process: each does one thing that a case needs a peer for.

use std::{
    io::{self, Read, Write},
    net::{Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use lattice_overlay::Netns;
use nix::sys::socket::{self, SockType, SockaddrIn6, sockopt};

/// Sends back what comes.
pub(crate) const ECHO: u16 = 7007;
/// Reads to the end, then says how many bytes came.
pub(crate) const SINK: u16 = 7009;
/// Reads eight bytes: how many bytes to send, most significant first. `u64::MAX` never ends.
pub(crate) const SOURCE: u16 = 7019;
/// Reads one byte, then breaks the connection.
pub(crate) const BREAKER: u16 = 7013;
/// Says `bye` and ends its direction, then reads to the end.
pub(crate) const GREETER: u16 = 7011;
/// Sends datagrams back.
pub(crate) const UDP_ECHO: u16 = 7053;
/// Answers questions for an address.
pub(crate) const NAMESERVER: u16 = 7054;
/// What it answers.
pub(crate) const ANSWER: [u8; 4] = [192, 0, 2, 99];
/// What is on every page.
pub(crate) const HELLO: &str = "hello from the far side\n";

type Serve = fn(TcpStream, &Seen) -> io::Result<()>;

/// What the services have seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Connections to any of them.
    pub(crate) connections: AtomicUsize,
    /// How reading ended at [`GREETER`] and [`SINK`]: bytes, or the error.
    pub(crate) ends: Mutex<Vec<Result<usize, io::ErrorKind>>>,
}

/// Running services. Dropping them closes their ports.
pub(crate) struct Services {
    pub(crate) seen: Arc<Seen>,
    listeners: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
}

impl Services {
    /// All of them, and a page on each of `pages`, on every address of IPv4 and IPv6.
    pub(crate) fn start(netns: &Netns, pages: &[u16]) -> Self {
        let mut all = Self { seen: Arc::default(), listeners: Vec::new(), datagrams: Vec::new() };
        let fixed: [(u16, Serve); 5] =
            [(ECHO, echo), (SINK, sink), (SOURCE, source), (BREAKER, breaker), (GREETER, greeter)];
        for (port, serve) in fixed.into_iter().chain(pages.iter().map(|&port| (port, page as Serve))) {
            all.listen(netns, port, serve);
        }
        for (port, answer) in [(UDP_ECHO, same as fn(&[u8]) -> Vec<u8>), (NAMESERVER, address)] {
            all.bind(netns, port, answer);
        }
        all
    }

    /// A page on one port only.
    pub(crate) fn page(netns: &Netns, port: u16) -> Self {
        let mut all = Self { seen: Arc::default(), listeners: Vec::new(), datagrams: Vec::new() };
        all.listen(netns, port, page);
        all
    }

    fn listen(&mut self, netns: &Netns, port: u16, serve: Serve) {
        let listener = netns.run(|| listener(port)).expect("the namespace").expect("a free port");
        let (accepting, seen) = (listener.try_clone().expect("a descriptor"), Arc::clone(&self.seen));
        thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                seen.connections.fetch_add(1, Ordering::Relaxed);
                let seen = Arc::clone(&seen);
                thread::spawn(move || serve(stream, &seen));
            }
        });
        self.listeners.push(listener);
    }

    fn bind(&mut self, netns: &Netns, port: u16, answer: fn(&[u8]) -> Vec<u8>) {
        let bound = netns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)));
        let socket = bound.expect("the namespace").expect("a free port");
        let serving = socket.try_clone().expect("a descriptor");
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            // A socket that was shut down reads nothing, at once.
            while let Ok((length @ 1.., from)) = serving.recv_from(&mut buffer) {
                let _lost = serving.send_to(&answer(&buffer[..length]), from);
            }
        });
        self.datagrams.push(socket);
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let listeners = self.listeners.iter().map(|listener| listener.as_raw_fd());
        for fd in listeners.chain(self.datagrams.iter().map(|socket| socket.as_raw_fd())) {
            let _ = socket::shutdown(fd, socket::Shutdown::Both);
        }
    }
}

/// With a queue for as many as come at once; the standard library's has room for 128.
fn listener(port: u16) -> io::Result<TcpListener> {
    use socket::{AddressFamily, Backlog, SockFlag};
    let fd = socket::socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    socket::bind(
        fd.as_raw_fd(),
        &SockaddrIn6::from(std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)),
    )?;
    socket::listen(&fd, Backlog::new(1024)?)?;
    Ok(fd.into())
}

fn echo(mut stream: TcpStream, _: &Seen) -> io::Result<()> {
    let mut reading = stream.try_clone()?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = reading.read(&mut buffer)?;
        if length == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(&buffer[..length])?;
    }
}

/// Reads to the end, and puts down how that was.
fn drain(stream: &mut TcpStream, seen: &Seen) -> Option<usize> {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break Ok(total),
            Ok(length) => total += length,
            Err(error) => break Err(error.kind()),
        }
    };
    seen.ends.lock().expect("no panic").push(end);
    end.ok()
}

fn sink(mut stream: TcpStream, seen: &Seen) -> io::Result<()> {
    drain(&mut stream, seen).map_or(Ok(()), |total| stream.write_all(total.to_string().as_bytes()))
}

fn source(mut stream: TcpStream, _: &Seen) -> io::Result<()> {
    let mut wanted = [0; 8];
    stream.read_exact(&mut wanted)?;
    io::copy(&mut io::repeat(b's').take(u64::from_be_bytes(wanted)), &mut stream).map(|_| ())
}

fn breaker(mut stream: TcpStream, _: &Seen) -> io::Result<()> {
    stream.read_exact(&mut [0])?;
    socket::setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok(())
}

fn greeter(mut stream: TcpStream, seen: &Seen) -> io::Result<()> {
    stream.write_all(b"bye")?;
    stream.shutdown(Shutdown::Write)?;
    drain(&mut stream, seen);
    Ok(())
}

/// One page, or as many bytes as the path `/bytes/N` asks for.
fn page(mut stream: TcpStream, _: &Seen) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let size = path.strip_prefix("/bytes/").and_then(|n| n.split('?').next()?.parse().ok());
    let body = size.map_or(HELLO.into(), |n| "b".repeat(n));
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn same(datagram: &[u8]) -> Vec<u8> {
    datagram.to_vec()
}

/// Any question, answered with one address.
fn address(question: &[u8]) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[6..8].copy_from_slice(&[0, 1]);
    // The name as in the question, type A, class IN, 60 s, four bytes.
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    answer.extend(ANSWER);
    answer
}
