//! The programs on both sides: this example starts itself as each of them, in the namespace of a host.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::host::Host;

/// The first argument of a process that is one of these.
pub(crate) const LOAD: &str = "load";

/// What fits in an IPv4 packet of 1420 bytes.
const DATAGRAM: usize = 1392;

/// Bytes, well below what the queue of a link holds.
const BURST: u64 = 100 * DATAGRAM as u64;

/// How long the last datagrams are waited for.
const SILENCE: Duration = Duration::from_millis(500);

const REQUEST: usize = 64;

/// Runs what the arguments name.
pub(crate) fn run(arguments: &[String]) -> io::Result<()> {
    let number = |at: usize| arguments[at].parse().expect("a number");
    let address = || arguments[1].parse::<SocketAddr>().expect("an address");
    match arguments[0].as_str() {
        "sink" => serve(sink),
        "echo" => serve(echo),
        "inbox" => inbox(),
        "streams" => streams(address(), number(2), Duration::from_secs(number(3))),
        "ask" => ask(address(), Duration::from_secs(number(2))),
        "datagrams" => datagrams(address(), number(2), Duration::from_secs(number(3))),
        other => panic!("no load is called {other}"),
    }
}

/// Says where it listens, and serves every connection.
fn serve(connection: fn(TcpStream) -> io::Result<()>) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    println!("{}", listener.local_addr()?.port());
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || connection(stream));
    }
    Ok(())
}

/// Reads to the end and says how much it was.
fn sink(mut stream: TcpStream) -> io::Result<()> {
    let (mut buffer, mut total) = (vec![0; 256 << 10], 0_u64);
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&total.to_be_bytes()),
            len => total += len as u64,
        }
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; REQUEST];
    loop {
        stream.read_exact(&mut request)?;
        stream.write_all(&request)?;
    }
}

/// Bytes that arrived, and the seconds that took.
fn streams(to: SocketAddr, count: u64, time: Duration) -> io::Result<()> {
    let began = Instant::now();
    let stream = move || -> io::Result<u64> {
        let mut stream = TcpStream::connect(to)?;
        let content = vec![7; 256 << 10];
        while began.elapsed() < time {
            stream.write_all(&content)?;
        }
        stream.shutdown(Shutdown::Write)?;
        let mut arrived = [0; 8];
        stream.read_exact(&mut arrived)?;
        Ok(u64::from_be_bytes(arrived))
    };
    let threads: Vec<_> = (0..count).map(|_| thread::spawn(stream)).collect();
    let mut total = 0;
    for thread in threads {
        total += thread.join().expect("a stream")?;
    }
    println!("{total} {}", began.elapsed().as_secs_f64());
    Ok(())
}

/// The median and the 99th percentile of the time of a request, in microseconds.
fn ask(to: SocketAddr, time: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let (mut answer, mut times) = ([0; REQUEST], Vec::new());
    let began = Instant::now();
    while began.elapsed() < time {
        let asked = Instant::now();
        stream.write_all(&[7; REQUEST])?;
        stream.read_exact(&mut answer)?;
        times.push(asked.elapsed().as_micros());
    }
    times.sort_unstable();
    println!("{} {}", times[times.len() / 2], times[times.len() * 99 / 100]);
    Ok(())
}

/// One by one, so many Mbit of them a second. Says how many bytes were sent.
fn datagrams(to: SocketAddr, mbits: u64, time: Duration) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let (began, mut sent, mut skipped) = (Instant::now(), 0_u64, 0);
    while began.elapsed() < time {
        let due = (began.elapsed().as_micros() as u64) * mbits / 8;
        // What was missed while others had the processor is not made up for in one burst.
        skipped = skipped.max(due.saturating_sub(sent + BURST));
        while sent + skipped < due {
            sent += socket.send_to(&[7; DATAGRAM], to)? as u64;
        }
        thread::sleep(Duration::from_millis(1));
    }
    println!("{sent}");
    Ok(())
}

/// Takes datagrams until no more come, and says how many bytes that was.
fn inbox() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    println!("{}", socket.local_addr()?.port());
    let (mut buffer, mut total) = ([0; 2048], 0);
    loop {
        match socket.recv(&mut buffer) {
            Ok(len) => total += len as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
        if total == DATAGRAM as u64 {
            socket.set_read_timeout(Some(SILENCE))?;
        }
    }
    println!("{total}");
    Ok(())
}

/// A load that runs on a host; ends with this.
pub(crate) struct Load {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Load {
    pub(crate) fn start(host: &Host, arguments: &[&str]) -> Self {
        let child = host.inside.run(|| {
            let program = std::env::current_exe().expect("this program");
            Command::new(program).arg(LOAD).args(arguments).stdout(Stdio::piped()).spawn()
        });
        let mut child = child.expect("the namespace stands").expect("this program starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    /// The numbers of its next line.
    pub(crate) fn numbers(&mut self) -> Vec<f64> {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the load answers");
        line.split_whitespace().map(|number| number.parse().expect("a number")).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
