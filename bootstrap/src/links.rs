//! Watches for links that appear in the agent's namespace later, and polices them. An agent cannot make any; whoever
//! runs the host can, and what they add must not be a way around the policy.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::Arc,
    thread::{self, JoinHandle},
};

use lattice_overlay::{
    Netns,
    link::{self, Link},
};
use nix::{
    errno::Errno,
    poll::PollTimeout,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};

use crate::{
    bell::Bell,
    enforce::{self, Shared},
};

/// `RTMGRP_LINK` of `rtnetlink(7)`.
const LINK_CHANGES: u32 = 1;

/// The running watch; dropping it ends it.
pub(crate) struct Watch {
    stop: Bell,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to watch `netns`, of whose links `enforcer` polices those named `policed`.
    pub(crate) fn start(netns: Arc<Netns>, enforcer: Shared, policed: &[&str]) -> io::Result<Self> {
        let changes = netns.run(subscribe)??;
        let links = link::links(&netns).map_err(io::Error::other)?;
        let known = links.iter().filter(|link| policed.contains(&link.name.as_str())).map(|link| link.index);
        let mut watcher = Watcher { netns, enforcer, known: known.collect() };
        watcher.look();
        let stop = Bell::new()?;
        let stopped = stop.clone();
        let run = move || {
            while matches!(stopped.wait(changes.as_fd(), PollTimeout::NONE), Ok(false)) {
                drain(&changes);
                watcher.look();
            }
        };
        let thread = thread::Builder::new().name("links".into()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watcher {
    netns: Arc<Netns>,
    enforcer: Shared,
    known: HashSet<u32>,
}

impl Watcher {
    fn look(&mut self) {
        let links = match link::links(&self.netns) {
            Ok(links) => links,
            Err(error) => return tracing::error!(%error, "cannot list the agent's links"),
        };
        for link in links.iter().filter(|link| !link.loopback && !self.known.contains(&link.index)) {
            self.police(link);
        }
        self.known = links.into_iter().map(|link| link.index).collect();
    }

    fn police(&self, link: &Link) {
        let name = &link.name;
        match enforce::lock(&self.enforcer).police(name) {
            Ok(()) => tracing::warn!(link = name, "a link appeared in the agent's namespace: it is policed"),
            Err(error) => {
                tracing::error!(link = name, %error, "a link appeared in the agent's namespace that cannot be policed: it is set down");
                if let Err(error) = link::set_down(&self.netns, name) {
                    tracing::error!(link = name, %error, "cannot set it down: END THIS SANDBOX");
                }
            }
        }
    }
}

fn subscribe() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINK_CHANGES))?;
    Ok(socket)
}

/// What the messages say does not matter: the links are listed anew. Nor does it matter when some were lost.
fn drain(changes: &OwnedFd) {
    let mut buffer = [0; 8192];
    let more = |got| matches!(got, Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS));
    while more(recv(changes.as_raw_fd(), &mut buffer, MsgFlags::empty())) {}
}
