//! An agent whose links are policed, and its peer.

use std::{
    net::IpAddr,
    ops::Deref,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use lattice_ebpf::{AttachMode, Attached, EbpfError, Enforcer, Events, Flow, Options, bpffs};
pub(crate) use lattice_lab::{
    AGENT4, AGENT6, NOWHERE4, NOWHERE6, Netns, PATIENCE, PEER4, PEER6, entry, line, table,
};
use lattice_lab::{LINK, Pair};
use lattice_policy::Overlay;
use nix::{
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, poll},
    sched::{CloneFlags, unshare},
};

use crate::{packet_socket, tun};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tun,
    Veth,
}

pub(crate) struct Lab {
    // Declared, and so dropped, from the user to the used.
    loaded: Option<(Enforcer, Events)>,
    told: Vec<Flow>,
    _wire: Option<tun::Wire>,
    pair: Pair,
    pins: Pins,
    mode: AttachMode,
    kind: Kind,
    pub(crate) attached: Attached,
}

impl Deref for Lab {
    type Target = Pair;
    fn deref(&self) -> &Pair {
        &self.pair
    }
}

impl Lab {
    /// Everything set up as a sandbox does it: the policy program is attached before the link is up. No policy applied.
    pub(crate) fn new(kind: Kind, mode: AttachMode) -> Self {
        let (pair, pins) = (Pair::new(), Pins::mount());
        let wire = match kind {
            Kind::Tun => {
                Some(tun::Wire::new(pair.agent.run(|| tun::open(LINK)), pair.peer.run(|| tun::open(LINK))))
            }
            Kind::Veth => {
                pair.add_veth();
                None
            }
        };
        let attached = Attached::Tcx;
        let mut lab = Self { loaded: None, told: Vec::new(), _wire: wire, pair, pins, mode, kind, attached };
        lab.load_and_attach();
        lab.configure();
        lab
    }

    pub(crate) fn configure(&self) {
        self.pair.configure(self.kind == Kind::Veth);
    }

    /// Another link under the same name, down and without addresses; for [`Kind::Veth`].
    pub(crate) fn recreate_link(&self) {
        self.agent.ip(&format!("link del {LINK}"));
        self.add_veth();
    }

    pub(crate) fn load_and_attach(&mut self) {
        let own = vec![AGENT4.into(), AGENT6.into()];
        let options = Options { pin_dir: self.pins.dir.clone(), own, attach: self.mode };
        let mut enforcer = Enforcer::load(&options).unwrap();
        let events = enforcer.events().unwrap();
        self.loaded = Some((enforcer, events));
        self.attached = self.attach_in_agent(LINK).unwrap();
    }

    pub(crate) fn attach_in_agent(&mut self, link: &str) -> Result<Attached, EbpfError> {
        self.attach_with(link, &[])
    }

    /// With addresses that are the agent's on this link only.
    pub(crate) fn attach_with(&mut self, link: &str, own: &[IpAddr]) -> Result<Attached, EbpfError> {
        let (enforcer, _) = self.loaded.as_mut().unwrap();
        self.pair.agent.run(|| enforcer.attach(link, own))
    }

    pub(crate) fn confine(&mut self, overlay: &Overlay, link: &str) {
        let (enforcer, _) = self.loaded.as_mut().unwrap();
        self.pair.agent.run(|| enforcer.confine(overlay, link)).unwrap();
    }

    pub(crate) fn enforcer(&mut self) -> &mut Enforcer {
        &mut self.loaded.as_mut().unwrap().0
    }

    pub(crate) fn drop_enforcer(&mut self) {
        self.loaded = None;
    }

    pub(crate) fn pin_dir(&self) -> &Path {
        &self.pins.dir
    }

    pub(crate) fn unmount(&self) {
        bpffs::unmount(&self.pins.dir).unwrap();
        assert!(!self.pins.dir.exists());
    }

    // === what was told ===

    /// Everything told so far.
    pub(crate) fn told(&mut self) -> Vec<Flow> {
        let (_, events) = self.loaded.as_mut().unwrap();
        while events.drain(&mut |flow| self.told.push(flow)) > 0 {}
        self.told.clone()
    }

    /// Everything told so far, off the list.
    pub(crate) fn take_told(&mut self) -> Vec<Flow> {
        self.told();
        std::mem::take(&mut self.told)
    }

    /// Waits for a flow that fits, and takes it and all before it off the list.
    pub(crate) fn wait_for(&mut self, fits: impl Fn(&Flow) -> bool) -> Flow {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.told();
            if let Some(at) = told.iter().position(&fits) {
                self.told.drain(..=at);
                return told[at];
            }
            assert!(Instant::now() < deadline, "not told; only {told:?}");
            let (_, events) = self.loaded.as_ref().unwrap();
            let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], 1000u16);
        }
    }

    pub(crate) fn eventually(&mut self, mut happens: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !happens(self) {
            assert!(Instant::now() < deadline, "it never happened");
            thread::sleep(Duration::from_millis(20));
        }
    }

    // === what the agent does ===

    /// Sends an IP packet past the stack. A refusal of the send itself is as good as silence.
    pub(crate) fn agent_sends_raw(&self, claimed: i32, packet: &[u8]) {
        let link = self.link_index();
        let frame = match self.kind {
            Kind::Tun => packet.to_vec(),
            Kind::Veth => [&mac(&self.peer)[..], &mac(&self.agent), &[8, 0], packet].concat(),
        };
        let _ = self.agent.run(|| packet_socket::send(link, claimed, &frame));
    }

    pub(crate) fn in_agent<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.agent.run(work)
    }

    pub(crate) fn agent_runs(&self, command: &str) {
        self.agent.command(command);
    }
}

fn mac(netns: &Netns) -> [u8; 6] {
    let shown = netns.command(&format!("ip -o link show {LINK}"));
    let mac = shown.split_whitespace().skip_while(|&w| w != "link/ether").nth(1).unwrap();
    let bytes: Vec<u8> = mac.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

pub(crate) struct Pins {
    pub(crate) dir: PathBuf,
    _parent: tempfile::TempDir,
}

impl Pins {
    pub(crate) fn mount() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("pins");
        // In a mount namespace of this thread: the kernel unmounts it even if the test is killed.
        unshare(CloneFlags::CLONE_NEWNS).expect("needs CAP_SYS_ADMIN: run the tests as root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        bpffs::mount(&dir).unwrap();
        Self { dir, _parent: parent }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = bpffs::unmount(&self.dir);
    }
}
