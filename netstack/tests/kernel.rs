//! The stack and the kernel's TCP, UDP and ICMP, over a TUN device. Needs root.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions marked #[test] as tests")]

#[path = "kernel/tun.rs"]
mod tun;

use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::mpsc,
    thread,
    time::Instant,
};

use lattice_netstack::{Cause, Error, Event, FlowId, Run, Stack};
use nix::{
    sys::socket::{setsockopt, sockopt},
    unistd::gettid,
};
use tun::{KERNEL, PATIENCE, STACK, drive, in_new_namespace, ip};

const MIB: usize = 1 << 20;
const PORT: u16 = 80;

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}

/// What a stream contains at a place.
fn byte(at: usize) -> u8 {
    ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8
}

fn write_stream(mut to: impl Write, len: usize) {
    let mut buffer = vec![0; 1 << 16];
    let mut written = 0;
    while written < len {
        let room = buffer.len().min(len - written);
        buffer[..room].iter_mut().enumerate().for_each(|(offset, to)| *to = byte(written + offset));
        to.write_all(&buffer[..room]).unwrap();
        written += room;
    }
}

fn read_stream(mut from: impl Read) -> usize {
    let mut buffer = vec![0; 1 << 16];
    let mut read = 0;
    loop {
        let len = from.read(&mut buffer).unwrap();
        if len == 0 {
            return read;
        }
        assert!(buffer[..len].iter().enumerate().all(|(offset, got)| *got == byte(read + offset)));
        read += len;
    }
}

fn connect(to: &str) -> TcpStream {
    let stream = TcpStream::connect_timeout(&at(to, PORT), PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One flow of the stack's, to which it writes a stream, and from which it reads one.
struct Owner {
    flow: Option<FlowId>,
    to_write: usize,
    written: usize,
    read: usize,
    has_read_end: bool,
    is_closed: bool,
}

impl Owner {
    fn new(flow: Option<FlowId>, to_write: usize) -> Self {
        Self { flow, to_write, written: 0, read: 0, has_read_end: false, is_closed: false }
    }

    /// Does what can be done; says whether the flow has come to its end.
    fn work(&mut self, stack: &mut Stack, now: Instant, tun: &File) -> bool {
        while let Some(event) = stack.poll_event() {
            match event {
                Event::Incoming { id, .. } => {
                    let flow = stack.accept(now, id, &mut |run: &mut Run<'_>| tun::send(tun, run));
                    self.flow = Some(flow.unwrap());
                }
                Event::Closed(flow) => self.is_closed = Some(flow) == self.flow,
                Event::Broken { cause, .. } => {
                    panic!("{cause:?} after {} and {} bytes", self.written, self.read)
                }
                _ => {}
            }
        }
        if let Some(flow) = self.flow
            && !self.is_closed
        {
            self.write(stack, now, flow);
            self.read(stack, flow);
        }
        self.is_closed
    }

    fn write(&mut self, stack: &mut Stack, now: Instant, flow: FlowId) {
        while self.written < self.to_write {
            let (start, most) = (self.written, self.to_write - self.written);
            let fill = |room: &mut [u8]| {
                let len = room.len().min(most);
                room[..len].iter_mut().enumerate().for_each(|(offset, to)| *to = byte(start + offset));
                (len, len)
            };
            match stack.send_with(now, flow, fill) {
                Ok(len) => self.written += len,
                Err(Error::WouldBlock) => return,
                Err(error) => panic!("{error}"),
            }
        }
        if self.to_write != usize::MAX {
            let _ = stack.shutdown_write(now, flow);
        }
    }

    fn read(&mut self, stack: &mut Stack, flow: FlowId) {
        while !self.has_read_end {
            let start = self.read;
            let take = |data: &[u8]| {
                assert!(data.iter().enumerate().all(|(offset, got)| *got == byte(start + offset)));
                (data.len(), data.len())
            };
            match stack.recv_with(flow, take) {
                Ok(0) => self.has_read_end = true,
                Ok(len) => self.read += len,
                Err(Error::WouldBlock) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn the_kernel_connects_and_64_mib_go_up_and_down() {
    in_new_namespace(|| {
        let tun = tun::open();
        for address in STACK {
            let mut stack = tun::stack(Instant::now());
            stack.listen(PORT);
            thread::scope(|scope| {
                let kernel = scope.spawn(|| {
                    let stream = connect(address);
                    let writer = stream.try_clone().unwrap();
                    scope.spawn(move || {
                        write_stream(&writer, 64 * MIB);
                        writer.shutdown(Shutdown::Write).unwrap();
                    });
                    read_stream(stream)
                });
                let mut owner = Owner::new(None, 64 * MIB);
                drive(&tun, &mut stack, |stack, now| owner.work(stack, now, &tun));
                assert_eq!((owner.read, kernel.join().unwrap()), (64 * MIB, 64 * MIB));
            });
            assert_eq!(stack.drops().checksum + stack.drops().malformed + stack.drops().forged, 0);
        }
    });
}

#[test]
fn the_stack_connects_and_64_mib_go_down_while_the_other_half_is_closed() {
    in_new_namespace(|| {
        let tun = tun::open();
        for address in KERNEL {
            let listener = TcpListener::bind(at(address, PORT)).unwrap();
            let mut stack = tun::stack(Instant::now());
            let flow = stack.connect(Instant::now(), at(address, PORT)).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    let (stream, _) = listener.accept().unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    assert_eq!(read_stream(&stream), 0, "the stack's half ends at once");
                    write_stream(&stream, 64 * MIB);
                });
                let mut owner = Owner::new(Some(flow), 0);
                drive(&tun, &mut stack, |stack, now| owner.work(stack, now, &tun));
                assert_eq!(owner.read, 64 * MIB);
            });
        }
    });
}

#[test]
fn a_router_that_takes_less_is_heard() {
    in_new_namespace(|| {
        let tun = tun::open();
        for (file, on) in [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")] {
            std::fs::write(format!("/proc/sys/net/{file}"), on).unwrap();
        }
        let (tell, told) = mpsc::channel();
        let (end, has_ended) = mpsc::channel::<()>();
        thread::scope(|scope| {
            // A host behind a link that says 1,500 there, and 1,300 here.
            scope.spawn(move || {
                in_new_namespace(move || {
                    tell.send(gettid()).unwrap();
                    let _ = has_ended.recv_timeout(PATIENCE);
                    ip(&["addr", "add", "10.43.0.2/24", "dev", "eth0"]);
                    ip(&["addr", "add", "fd43::2/64", "dev", "eth0", "nodad"]);
                    ip(&["link", "set", "eth0", "up"]);
                    ip(&["route", "add", "10.42.0.0/24", "via", "10.43.0.1"]);
                    ip(&["route", "add", "fd42::/64", "via", "fd43::1"]);
                    for address in ["10.43.0.2", "fd43::2"] {
                        let listener = TcpListener::bind(at(address, PORT)).unwrap();
                        tell.send(gettid()).unwrap();
                        let (stream, _) = listener.accept().unwrap();
                        stream.set_read_timeout(Some(PATIENCE)).unwrap();
                        assert_eq!(read_stream(&stream), 2 * MIB);
                    }
                })
            });
            let there = told.recv_timeout(PATIENCE).unwrap().to_string();
            ip(&["link", "add", "eth1", "mtu", "1500", "type", "veth", "peer", "eth0", "netns", &there]);
            ip(&["addr", "add", "10.43.0.1/24", "dev", "eth1"]);
            ip(&["addr", "add", "fd43::1/64", "dev", "eth1", "nodad"]);
            ip(&["link", "set", "eth1", "mtu", "1300", "up"]);
            end.send(()).unwrap();
            for address in ["10.43.0.2", "fd43::2"] {
                told.recv_timeout(PATIENCE).unwrap();
                let mut stack = tun::stack(Instant::now());
                let flow = stack.connect(Instant::now(), at(address, PORT)).unwrap();
                let mut owner = Owner::new(Some(flow), 2 * MIB);
                drive(&tun, &mut stack, |stack, now| owner.work(stack, now, &tun));
            }
        });
    });
}

#[test]
fn resets_and_refusals_pass_both_ways() {
    in_new_namespace(|| {
        let tun = tun::open();
        let mut stack = tun::stack(Instant::now());
        let flow = stack.connect(Instant::now(), at(KERNEL[0], 9)).unwrap();
        let refused = Event::Broken { flow, cause: Cause::Refused };
        drive(&tun, &mut stack, |stack, _| stack.poll_event() == Some(refused));

        // The kernel's side ends it at once.
        let listener = TcpListener::bind(at(KERNEL[1], PORT)).unwrap();
        let flow = stack.connect(Instant::now(), at(KERNEL[1], PORT)).unwrap();
        drive(&tun, &mut stack, |stack, _| stack.poll_event() == Some(Event::Established(flow)));
        let (stream, _) = listener.accept().unwrap();
        setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
        drop(stream);
        let reset = Event::Broken { flow, cause: Cause::Reset };
        drive(&tun, &mut stack, |stack, _| stack.poll_event() == Some(reset));

        // The stack's side does.
        let flow = stack.connect(Instant::now(), at(KERNEL[1], PORT)).unwrap();
        drive(&tun, &mut stack, |stack, _| stack.poll_event() == Some(Event::Established(flow)));
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stack.abort(flow);
        drive(&tun, &mut stack, |_, _| true);
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

        // It does not listen there.
        thread::scope(|scope| {
            let kernel = scope.spawn(|| TcpStream::connect_timeout(&at(STACK[0], 9), PATIENCE));
            drive(&tun, &mut stack, |_, _| kernel.is_finished());
            let error = kernel.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        });
    });
}

#[test]
fn datagrams_and_echoes_come_back() {
    in_new_namespace(|| {
        let tun = tun::open();
        let mut stack = tun::stack(Instant::now());
        stack.bind_udp(53).unwrap();
        thread::scope(|scope| {
            let kernel = scope.spawn(|| {
                for (version, stack) in STACK.into_iter().enumerate() {
                    let socket = UdpSocket::bind(at(KERNEL[version], 0)).unwrap();
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                    for len in [0, 1, 999, 1372] {
                        let payload: Vec<u8> = (0..len).map(byte).collect();
                        socket.send_to(&payload, at(stack, 53)).unwrap();
                        let mut buffer = [0; 2000];
                        let (got, from) = socket.recv_from(&mut buffer).unwrap();
                        assert_eq!((&buffer[..got], from), (&payload[..], at(stack, 53)));
                    }
                    // Nobody listens there, and the kernel tells its sender.
                    socket.connect(at(stack, 54)).unwrap();
                    socket.send(b"anybody?").unwrap();
                    let error = socket.recv(&mut [0]).unwrap_err();
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
                    let ping = Command::new("ping").args(["-c2", "-i0.2", "-W20", "-s1300", stack]).output();
                    assert!(ping.expect("needs ping (iputils-ping)").status.success(), "ping {stack}");
                }
            });
            drive(&tun, &mut stack, |stack, now| {
                let mut buffer = [0; 2000];
                while let Some(got) = stack.recv_from(53, &mut buffer) {
                    let mut out = |run: &mut Run<'_>| tun::send(&tun, run);
                    stack.send_to(now, 53, got.remote, &buffer[..got.len], &mut out).unwrap();
                }
                kernel.is_finished()
            });
            kernel.join().unwrap();
        });
    });
}

#[test]
fn many_connections_at_once() {
    in_new_namespace(|| {
        let tun = tun::open();
        let mut stack = tun::stack(Instant::now());
        stack.listen(PORT);
        thread::scope(|scope| {
            let kernels: Vec<_> = (0..40)
                .map(|number| {
                    scope.spawn(move || {
                        let stream = connect(STACK[number % 2]);
                        write_stream(&stream, 100_000 + number);
                        stream.shutdown(Shutdown::Write).unwrap();
                        assert_eq!(read_stream(stream), 200_000);
                    })
                })
                .collect();
            let mut owners = Vec::new();
            drive(&tun, &mut stack, |stack, now| {
                while let Some(event) = stack.poll_event() {
                    match event {
                        Event::Incoming { id, .. } => {
                            let mut out = |run: &mut Run<'_>| tun::send(&tun, run);
                            owners.push(Owner::new(Some(stack.accept(now, id, &mut out).unwrap()), 200_000));
                        }
                        Event::Closed(flow) => {
                            owners.iter_mut().for_each(|owner: &mut Owner| {
                                owner.is_closed |= owner.flow == Some(flow);
                            });
                        }
                        _ => {}
                    }
                }
                for owner in owners.iter_mut().filter(|owner| !owner.is_closed) {
                    let flow = owner.flow.unwrap();
                    owner.write(stack, now, flow);
                    owner.read(stack, flow);
                }
                owners.len() == 40 && owners.iter().all(|owner| owner.is_closed)
            });
            kernels.into_iter().for_each(|kernel| kernel.join().unwrap());
        });
    });
}
