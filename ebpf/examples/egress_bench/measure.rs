//! The measures, each of one pair of namespaces, short, and the same whatever is enforced there.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, IoSlice, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg},
};

use crate::{
    Result,
    filter::Kind,
    lab::{ALLOWED, DENIED, FLOWS_PORT, Lab},
};

const STREAM: Duration = Duration::from_millis(100);
const DATAGRAMS: Duration = Duration::from_millis(60);
/// The best of so many tries counts: what else the machine does only ever takes away.
const TRIES: usize = 3;
/// New flows in one measure, unless its time is over first: a list of 10,000 rules is slow.
const FLOWS: u64 = 20_032;
const FLOWS_TIME: Duration = Duration::from_millis(250);
const REFUSALS: usize = 40;
/// Says only that nobody answers.
const PATIENCE: Duration = Duration::from_secs(5);

const BUFFER: usize = 256 << 10;
const PAYLOAD: [u8; 22] = [7; 22];
/// Datagrams of one system call.
const BATCH: usize = 64;

/// How long refusals took, and what the caller saw.
#[derive(Default)]
pub(crate) struct Refusals {
    pub(crate) times: Vec<Duration>,
    pub(crate) errors: BTreeSet<&'static str>,
}

/// Bits per second of one TCP stream, as its receiver sees them.
pub(crate) fn tcp_stream(lab: &Lab) -> Result<f64> {
    best(|| tcp_stream_once(lab))
}

fn tcp_stream_once(lab: &Lab) -> Result<f64> {
    let to = lab.listener.local_addr()?;
    let mut sender = lab.agent.run(|| TcpStream::connect(to))?;
    let (mut receiver, _) = lab.listener.accept()?;
    thread::scope(|scope| {
        let receive = scope.spawn(move || -> io::Result<f64> {
            let (mut buffer, mut bytes) = (vec![0; BUFFER], 0);
            let started = Instant::now();
            loop {
                match receiver.read(&mut buffer)? {
                    0 => return Ok(bytes as f64 * 8.0 / started.elapsed().as_secs_f64()),
                    n => bytes += n,
                }
            }
        });
        let (buffer, started) = (vec![0; BUFFER], Instant::now());
        while started.elapsed() < STREAM {
            sender.write_all(&buffer)?;
        }
        drop(sender);
        Ok(receive.join().map_err(|_| "the receiver panicked")??)
    })
}

/// Small datagrams of one flow that arrive, per second. When `answered`, the peer has sent one back before, so that connection tracking
/// calls the flow established.
pub(crate) fn udp_stream(lab: &Lab, answered: bool) -> Result<f64> {
    best(|| udp_stream_for(lab, answered, DATAGRAMS))
}

pub(crate) fn udp_stream_for(lab: &Lab, answered: bool, time: Duration) -> Result<f64> {
    let peer = lab.peer.run(|| UdpSocket::bind((ALLOWED, 0)))?;
    let agent = lab.agent.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    agent.connect(peer.local_addr()?)?;
    agent.send(&PAYLOAD)?;
    if answered {
        for socket in [&peer, &agent] {
            socket.set_read_timeout(Some(PATIENCE))?;
        }
        let (_, from) = peer.recv_from(&mut [0; 64])?;
        peer.send_to(&PAYLOAD, from)?;
        agent.recv(&mut [0; 64])?;
    }
    let mut batch = MultiHeaders::preallocate(BATCH, None);
    rate(lab, time, u64::MAX, |_| send(&agent, &mut batch, &[None; BATCH]))
}

/// Datagrams that arrive per second when each opens a flow: to an address of its own, from a port of this measure's own.
pub(crate) fn new_flows(lab: &Lab) -> Result<f64> {
    let agent = lab.agent.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    let net = ALLOWED.to_bits() & 0xffff_0000;
    let mut batch = MultiHeaders::preallocate(BATCH, None);
    rate(lab, FLOWS_TIME, FLOWS, |sent| {
        let to =
            |i| SocketAddrV4::new(Ipv4Addr::from_bits(net + (sent + i as u64) as u32 % 65_536), FLOWS_PORT);
        let to: [Option<SockaddrIn>; BATCH] = std::array::from_fn(|i| Some(to(i).into()));
        send(&agent, &mut batch, &to)
    })
}

/// Nanoseconds that the policy programs of this process take for a datagram of an allowed flow, by the kernel's own count.
pub(crate) fn program_time(lab: &Lab) -> Result<f64> {
    let before = programs()?;
    udp_stream(lab, true)?;
    let after = programs()?;
    Ok((after.0 - before.0) as f64 / (after.1 - before.1) as f64)
}

/// Run time in nanoseconds and runs of all programs that this process holds.
fn programs() -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // That of the directory itself is gone by now.
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        let field = |name| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(time), Some(runs)) = (field("run_time_ns:"), field("run_cnt:")) {
            sum = (sum.0 + time, sum.1 + runs);
        }
    }
    Ok(sum)
}

fn best(mut measure: impl FnMut() -> Result<f64>) -> Result<f64> {
    (0..TRIES).try_fold(0.0, |best: f64, _| Ok(best.max(measure()?)))
}

fn rate(lab: &Lab, time: Duration, most: u64, mut send: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    let before = lab.arrived()?;
    let (mut sent, started) = (0, Instant::now());
    while sent < most && started.elapsed() < time {
        send(sent)?;
        sent += BATCH as u64;
    }
    let elapsed = started.elapsed();
    Ok((lab.arrived()? - before) as f64 / elapsed.as_secs_f64())
}

fn send(
    from: &UdpSocket,
    batch: &mut MultiHeaders<SockaddrIn>,
    to: &[Option<SockaddrIn>; BATCH],
) -> Result<()> {
    let slices = [[IoSlice::new(&PAYLOAD)]; BATCH];
    sendmmsg(from.as_raw_fd(), batch, &slices, to, [], MsgFlags::empty())?;
    Ok(())
}

/// `connect()` until it says no. Without a policy: to a closed port of the peer, whose own kernel answers.
pub(crate) fn refused_tcp(lab: &Lab, refusals: &mut Refusals) -> Result<()> {
    let to = refusing(lab);
    lab.agent.run(|| {
        for _ in 0..REFUSALS {
            let started = Instant::now();
            let Err(error) = TcpStream::connect(to) else {
                return Err("a denied connection was let in".into());
            };
            refusals.add(started, &error);
        }
        Ok(())
    })
}

/// From a datagram's send until the connected socket says no, in the send itself or after it.
pub(crate) fn refused_udp(lab: &Lab, refusals: &mut Refusals) -> Result<()> {
    let to = refusing(lab);
    for _ in 0..REFUSALS {
        let socket = lab.agent.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        let started = Instant::now();
        match socket.send(&PAYLOAD).and_then(|_| socket.recv(&mut [0; 64])) {
            Ok(_) => return Err("a denied datagram was answered".into()),
            Err(error) => refusals.add(started, &error),
        }
    }
    Ok(())
}

fn refusing(lab: &Lab) -> SocketAddrV4 {
    SocketAddrV4::new(if lab.kind == Kind::None { ALLOWED } else { DENIED }, 1)
}

impl Refusals {
    fn add(&mut self, started: Instant, error: &io::Error) {
        self.times.push(started.elapsed());
        self.errors.insert(match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ECONNREFUSED) => "ECONNREFUSED",
            Some(Errno::EHOSTUNREACH) => "EHOSTUNREACH",
            Some(Errno::EACCES) => "EACCES",
            Some(Errno::EPERM) => "EPERM",
            Some(Errno::EAGAIN) => "silence",
            _ => "another error",
        });
    }
}
