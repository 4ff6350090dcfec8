//! Two TUN links with a wire between them.
#![allow(unsafe_code)] // ioctl(2) on /dev/net/tun

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd},
    thread::{self, JoinHandle},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};

/// A new TUN link in the caller's network namespace. It goes when the file is closed.
pub(crate) fn open(name: &str) -> File {
    let tun = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI) as i16 },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: TUNSETIFF reads and writes one `ifreq`.
    let done = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    tun
}

/// Carries packets between two TUN links until it is dropped.
pub(crate) struct Wire {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    pub(crate) fn new(mut a: File, mut b: File) -> Self {
        let stop = EventFd::new().unwrap();
        let stopped = stop.as_fd().try_clone_to_owned().unwrap();
        let thread = thread::spawn(move || {
            let mut packet = [0; 1 << 16];
            loop {
                let mut fds =
                    [a.as_fd(), b.as_fd(), stopped.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
                if poll(&mut fds, PollTimeout::NONE).is_err() {
                    continue;
                }
                let ready = fds.map(|fd| fd.any().unwrap_or(true));
                if ready[2] {
                    return;
                }
                carry(ready[0], &mut a, &mut b, &mut packet);
                carry(ready[1], &mut b, &mut a, &mut packet);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

fn carry(ready: bool, from: &mut File, to: &mut File, packet: &mut [u8]) {
    if ready && let Ok(n) = from.read(packet) {
        // A link that is still down takes nothing.
        let _ = to.write(&packet[..n]);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
