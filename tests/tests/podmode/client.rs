//! A client of the proxy that can be told to do what no library does.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use lattice_overlay::Netns;

/// Longer than the proxy takes to give up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
pub(crate) struct Client<'a> {
    pub(crate) netns: &'a Netns,
    pub(crate) proxy: SocketAddr,
    pub(crate) credentials: Option<(&'a str, &'a str)>,
    /// Bounds every read and write.
    pub(crate) limit: Duration,
}

impl Client<'_> {
    /// A connection to the proxy on which nothing was said yet.
    pub(crate) fn open(&self) -> TcpStream {
        let stream = self.netns.run(|| TcpStream::connect_timeout(&self.proxy, PATIENCE));
        let stream = stream.expect("the namespace").expect("the proxy listens");
        stream.set_read_timeout(Some(self.limit)).expect("a timeout");
        stream.set_write_timeout(Some(self.limit)).expect("a timeout");
        stream
    }

    /// Connects by SOCKS.
    ///
    /// # Errors
    /// REP of the reply; 255 where the proxy refused the method or the credentials.
    pub(crate) fn connect(&self, host: &str, port: u16) -> Result<TcpStream, u8> {
        let mut stream = self.open();
        self.ask(&mut stream, 1, &target(host, port)).map(|_| stream)
    }

    /// Like [`Self::connect`], for what must succeed.
    pub(crate) fn reach(&self, host: impl ToString, port: u16) -> TcpStream {
        let host = host.to_string();
        self.connect(&host, port).unwrap_or_else(|reply| panic!("{host}:{port}: reply {reply}"))
    }

    /// Like [`Self::connect`], for what must fail.
    pub(crate) fn reply(&self, host: impl ToString, port: u16) -> u8 {
        self.connect(&host.to_string(), port).err().unwrap_or(0)
    }

    /// Connects by SOCKS to a target in its encoded form, and returns REP, or `None` when the proxy just closed.
    pub(crate) fn raw(&self, target: &[u8]) -> Option<u8> {
        let mut stream = self.open();
        self.ask(&mut stream, 1, target).map_or_else(Some, |_| Some(0)).filter(|reply| *reply != CLOSED)
    }

    /// An association for datagrams: the connection that keeps it, and its socket.
    pub(crate) fn associate(&self) -> Association {
        let mut stream = self.open();
        let relay = self.ask(&mut stream, 3, &target("0.0.0.0", 0)).expect("an association");
        let socket = self.netns.run(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
        let socket = socket.expect("the namespace").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        Association { _stream: stream, socket, relay }
    }

    /// What the proxy answers a HTTP request: all of it, until it closes or 20 bytes of an established tunnel.
    pub(crate) fn http(&self, head: &str) -> String {
        let mut stream = self.open();
        stream.write_all(head.as_bytes()).expect("the request");
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.starts_with(b"HTTP/1.1 200") || !answer.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => answer.push(byte[0]),
                _ => break,
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// CONNECT to `host:port`.
    pub(crate) fn http_connect(&self, authority: &str) -> String {
        self.http(&format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"))
    }

    fn ask(&self, stream: &mut TcpStream, command: u8, target: &[u8]) -> Result<SocketAddr, u8> {
        let closed = |_: io::Error| CLOSED;
        let method = if self.credentials.is_some() { 2 } else { 0 };
        stream.write_all(&[5, 1, method]).map_err(closed)?;
        let mut chosen = [0; 2];
        stream.read_exact(&mut chosen).map_err(closed)?;
        if chosen[1] == 255 {
            return Err(255);
        }
        if let Some((user, password)) = self.credentials {
            let mut message = vec![1];
            for part in [user, password] {
                message.push(u8::try_from(part.len()).expect("short"));
                message.extend(part.as_bytes());
            }
            stream.write_all(&message).map_err(closed)?;
            stream.read_exact(&mut chosen).map_err(closed)?;
            if chosen[1] != 0 {
                return Err(255);
            }
        }
        stream.write_all(&[&[5, command, 0], target].concat()).map_err(closed)?;
        let mut reply = [0; 10];
        stream.read_exact(&mut reply[..4]).map_err(closed)?;
        let rest = if reply[3] == 4 { 18 } else { 6 };
        let mut address = vec![0; rest];
        stream.read_exact(&mut address).map_err(closed)?;
        if reply[1] != 0 {
            return Err(reply[1]);
        }
        Ok(if rest == 6 { address_4(&address) } else { ([0; 16], 0).into() })
    }
}

/// Not a reply of SOCKS: the proxy closed the connection.
pub(crate) const CLOSED: u8 = 254;

/// A SOCKS association.
pub(crate) struct Association {
    _stream: TcpStream,
    socket: UdpSocket,
    relay: SocketAddr,
}

impl Association {
    /// Sends one datagram.
    pub(crate) fn send(&self, host: &str, port: u16, payload: &[u8]) {
        let datagram = [&[0, 0, 0], &target(host, port)[..], payload].concat();
        self.socket.send_to(&datagram, self.relay).expect("the relay's socket");
    }

    /// Sends a datagram until there is an answer, and returns who sent it and what; UDP may lose either.
    pub(crate) fn call(&self, host: impl ToString, port: u16, payload: &[u8]) -> (SocketAddr, Vec<u8>) {
        let host = host.to_string();
        for _ in 0..20 {
            self.send(&host, port, payload);
            if let Some(answer) = self.receive() {
                return answer;
            }
        }
        panic!("{host}:{port} does not answer");
    }

    /// What comes within a second.
    pub(crate) fn receive(&self) -> Option<(SocketAddr, Vec<u8>)> {
        let mut buffer = [0; 2048];
        let (length, _) = self.socket.recv_from(&mut buffer).ok()?;
        assert_eq!(buffer[..3], [0, 0, 0], "a whole datagram");
        let (from, head) = match buffer[3] {
            1 => (address_4(&buffer[4..10]), 10),
            _ => (address_6(&buffer[4..22]), 22),
        };
        Some((from, buffer[head..length].to_vec()))
    }
}

/// A target as SOCKS writes it: an address, else a name.
pub(crate) fn target(host: &str, port: u16) -> Vec<u8> {
    let mut target = match host.parse() {
        Ok(std::net::IpAddr::V4(ip)) => [&[1], &ip.octets()[..]].concat(),
        Ok(std::net::IpAddr::V6(ip)) => [&[4], &ip.octets()[..]].concat(),
        Err(_) => [&[3, u8::try_from(host.len()).expect("a short name")], host.as_bytes()].concat(),
    };
    target.extend(port.to_be_bytes());
    target
}

fn address_4(bytes: &[u8]) -> SocketAddr {
    let ip = Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
    (ip, u16::from_be_bytes([bytes[4], bytes[5]])).into()
}

fn address_6(bytes: &[u8]) -> SocketAddr {
    let ip: [u8; 16] = bytes[..16].try_into().expect("sixteen bytes");
    (ip, u16::from_be_bytes([bytes[16], bytes[17]])).into()
}

/// A request for `path` of the host at the other end, and the body of the answer.
pub(crate) fn get(mut stream: TcpStream, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("the request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer");
    answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.into())
}
