//! A TUN device in a network namespace of its own, and a stack at the other end of it.
#![allow(unsafe_code)] // ioctl(2): neither std nor nix has TUNSETIFF.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
    os::unix::fs::OpenOptionsExt,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use lattice_netstack::{Config, Limits, Run, Stack};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
};

nix::ioctl_readwrite_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);

pub(crate) const MTU: u16 = 1420;

/// Longer than anything here takes on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The kernel's addresses, and the stack's.
pub(crate) const KERNEL: [&str; 2] = ["10.42.0.1", "fd42::1"];
pub(crate) const STACK: [&str; 2] = ["10.42.0.2", "fd42::2"];

/// Runs `work` in a thread in a new namespace, which goes away with the last thread in it.
pub(crate) fn in_new_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                println!("SKIPPED: the kernel's TCP at the other end: needs root for a network namespace");
                return None;
            }
            ip(&["link", "set", "lo", "up"]);
            Some(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(crate) fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("needs ip (iproute2)");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The device, up and with the kernel's addresses.
pub(crate) fn open() -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .expect("needs /dev/net/tun");
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI) as i16 },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
        *to = *from as libc::c_char;
    }
    // SAFETY: TUNSETIFF reads and writes an ifreq, which outlives the call; the name in it ends in NUL.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw mut request) }.unwrap();
    ip(&["addr", "add", "10.42.0.1/24", "dev", "tun0"]);
    ip(&["addr", "add", "fd42::1/64", "dev", "tun0", "nodad"]);
    ip(&["link", "set", "tun0", "mtu", &MTU.to_string(), "up"]);
    file
}

pub(crate) fn stack(now: Instant) -> Stack {
    let addresses = STACK.map(|address| address.parse::<IpAddr>().unwrap()).to_vec();
    let random = Box::new(|bytes: &mut [u8]| {
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(bytes))
            .expect("the kernel's randomness");
    });
    Stack::new(Config { addresses, mtu: MTU, limits: Limits::default(), random }, now).unwrap()
}

/// Writes packets to the device.
pub(crate) fn send(tun: &File, run: &mut Run<'_>) {
    let mut packet = [0; 65_536];
    while let Some(len) = run.next_len() {
        run.write(&mut packet[..len]);
        // A packet that the kernel has no room for is lost, as on any link.
        let _ = { tun }.write(&packet[..len]);
    }
}

/// Lets the stack work until its owner, who is asked each time, is done.
#[track_caller]
pub(crate) fn drive(tun: &File, stack: &mut Stack, mut owner: impl FnMut(&mut Stack, Instant) -> bool) {
    let end = Instant::now() + PATIENCE;
    let mut packet = vec![0; 65_536];
    loop {
        let now = Instant::now();
        assert!(now < end, "the stack's owner waits in vain: {:?}", stack.drops());
        let is_done = owner(stack, now);
        stack.poll(now, &mut |run: &mut Run<'_>| send(tun, run));
        if is_done {
            return;
        }
        let until = stack.poll_at().unwrap_or(end).min(now + Duration::from_millis(100));
        let wait = if stack.is_ready() { Duration::ZERO } else { until.saturating_duration_since(now) };
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut [PollFd::new(tun.as_fd(), PollFlags::POLLIN)], timeout);
        let now = Instant::now();
        for _ in 0..64 {
            match { tun }.read(&mut packet) {
                Ok(len) => stack.receive(now, &mut packet[..len], &mut |run: &mut Run<'_>| send(tun, run)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("reading the TUN device: {error}"),
            }
        }
    }
}
