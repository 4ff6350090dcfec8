//! The programs on both sides: this example starts itself as each of them. The first byte of a connection says what the server is to do with it.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use lattice_overlay::Netns;

/// The first argument of a process that is one of these.
pub(crate) const LOAD: &str = "load";

const SINK: u8 = b'u';
const SOURCE: u8 = b'd';
const ECHO: u8 = b'e';

/// Bytes that are written or read at once.
const CHUNK: usize = 256 << 10;
const REQUEST: usize = 64;
/// No answer takes so long, unless something is broken. What is buffered on the way when a stream ends can be tens of MiB of each flow.
const PATIENCE: Duration = Duration::from_secs(120);
/// New connections of one load at most: their ports wait for a minute before they can be had again.
const CONNECTIONS: usize = 3000;

/// Runs what the arguments name; on the near side, the proxy and the server follow.
pub(crate) fn run(arguments: &[String]) -> io::Result<()> {
    let address = |at: usize| arguments[at].parse::<SocketAddr>().expect("an address");
    let number = |at: usize| arguments[at].parse().expect("a number");
    if arguments[0] == "serve" {
        return serve();
    }
    let way = Way { proxy: address(1), server: address(2) };
    match arguments[0].as_str() {
        "up" => streams(way, up, number(3), Duration::from_secs(number(4))),
        "down" => streams(way, down, number(3), Duration::from_secs(number(4))),
        "ask" => ask(way, Duration::from_secs(number(3))),
        "connect" => connect(way, Duration::from_secs(number(3))),
        "hold" => hold(way, number(3)),
        other => panic!("no load is called {other}"),
    }
}

/// By which proxy to which server.
#[derive(Clone, Copy)]
struct Way {
    proxy: SocketAddr,
    server: SocketAddr,
}

impl Way {
    /// A connection to the server by the proxy (RFC 1928), on which it is to do `what`.
    fn open(self, what: u8) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.proxy)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&[5, 1, 0])?;
        let mut method = [0; 2];
        stream.read_exact(&mut method)?;
        let SocketAddr::V4(server) = self.server else { panic!("the server has an IPv4 address") };
        let mut request = vec![5, 1, 0, 1];
        request.extend(server.ip().octets());
        request.extend(server.port().to_be_bytes());
        stream.write_all(&request)?;
        let mut reply = [0; 10];
        stream.read_exact(&mut reply)?;
        if (method, reply[1], reply[3]) != ([5, 0], 0, 1) {
            return Err(io::Error::other(format!("the proxy refuses: {method:?}, {reply:?}")));
        }
        stream.write_all(&[what])?;
        Ok(stream)
    }
}

/// Says where it listens, and serves every connection.
fn serve() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    println!("{}", listener.local_addr()?.port());
    for stream in listener.incoming() {
        let stream = stream?;
        // How a connection ends is the other side's to say.
        thread::spawn(move || connection(stream));
    }
    Ok(())
}

fn connection(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut what = [0];
    stream.read_exact(&mut what)?;
    match what[0] {
        SINK => sink(stream),
        SOURCE => {
            let content = vec![7; CHUNK];
            loop {
                stream.write_all(&content)?;
            }
        }
        ECHO => {
            let mut request = [0; REQUEST];
            loop {
                stream.read_exact(&mut request)?;
                stream.write_all(&request)?;
            }
        }
        _ => Ok(()),
    }
}

/// Reads to the end and says how much it was.
fn sink(mut stream: TcpStream) -> io::Result<()> {
    let (mut buffer, mut total) = (vec![0; CHUNK], 0_u64);
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&total.to_be_bytes()),
            len => total += len as u64,
        }
    }
}

/// Bytes that arrived, and the seconds that took.
fn streams(
    way: Way,
    stream: fn(Way, Instant) -> io::Result<u64>,
    count: u64,
    time: Duration,
) -> io::Result<()> {
    let began = Instant::now();
    let threads: Vec<_> = (0..count).map(|_| thread::spawn(move || stream(way, began + time))).collect();
    let mut total = 0;
    for thread in threads {
        total += thread.join().expect("a stream")?;
    }
    println!("{total} {}", began.elapsed().as_secs_f64());
    Ok(())
}

fn up(way: Way, until: Instant) -> io::Result<u64> {
    let mut stream = way.open(SINK)?;
    let content = vec![7; CHUNK];
    while Instant::now() < until {
        stream.write_all(&content)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut arrived = [0; 8];
    stream.read_exact(&mut arrived)?;
    Ok(u64::from_be_bytes(arrived))
}

fn down(way: Way, until: Instant) -> io::Result<u64> {
    let mut stream = way.open(SOURCE)?;
    let (mut buffer, mut total) = (vec![0; CHUNK], 0);
    while Instant::now() < until {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => total += len as u64,
        }
    }
    Ok(total)
}

/// One request after the other on one connection.
fn ask(way: Way, time: Duration) -> io::Result<()> {
    let mut stream = way.open(ECHO)?;
    let (mut times, began) = (Vec::new(), Instant::now());
    while began.elapsed() < time {
        times.push(exchange(&mut stream, Instant::now())?);
    }
    quantiles(times);
    Ok(())
}

/// One connection after the other, each with one request: from the TCP connection to the proxy until the answer.
fn connect(way: Way, time: Duration) -> io::Result<()> {
    let (mut times, began) = (Vec::new(), Instant::now());
    while began.elapsed() < time && times.len() < CONNECTIONS {
        let asked = Instant::now();
        times.push(exchange(&mut way.open(ECHO)?, asked)?);
    }
    quantiles(times);
    Ok(())
}

/// So many connections that have carried a request, until stdin ends.
fn hold(way: Way, count: u64) -> io::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = way.open(ECHO)?;
        exchange(&mut stream, Instant::now())?;
        streams.push(stream);
    }
    println!("{count}");
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

fn exchange(stream: &mut TcpStream, asked: Instant) -> io::Result<Duration> {
    stream.write_all(&[7; REQUEST])?;
    stream.read_exact(&mut [0; REQUEST])?;
    Ok(asked.elapsed())
}

/// Prints the median and the 99th percentile in microseconds, and of how many.
fn quantiles(mut times: Vec<Duration>) {
    times.sort_unstable();
    let micros = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e6;
    println!("{} {} {}", micros(50), micros(99), times.len());
}

/// A load that runs; ends with this.
pub(crate) struct Load {
    /// For messages.
    name: String,
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Load {
    /// `program` is this one; it runs in `netns`.
    pub(crate) fn start(mut program: Command, netns: &Netns, arguments: &[&str]) -> Self {
        program.arg(LOAD).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            netns.run(|| program.spawn()).expect("the namespace stands").expect("this program starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { name: arguments.join(" "), child, lines }
    }

    /// The numbers of its next line.
    pub(crate) fn numbers(&mut self) -> Vec<f64> {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the load answers");
        assert!(!line.is_empty(), "the load \"{}\" failed; it said why", self.name);
        line.split_whitespace().map(|number| number.parse().expect("a number")).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
