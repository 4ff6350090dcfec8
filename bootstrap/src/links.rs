//! Watches for links that appear in the agent's namespace later, and polices them. An agent cannot make any; whoever
//! runs the host can, and what they add must not be a way around the policy.

use std::{
    collections::HashSet,
    io,
    os::fd::AsFd as _,
    sync::Arc,
    thread::{self, JoinHandle},
};

use lattice_overlay::{
    Netns,
    link::{self, Changes, Link},
};
use nix::poll::PollTimeout;

use crate::{
    bell::Bell,
    enforce::{self, Shared},
};

/// The running watch; dropping it ends it.
pub(crate) struct Watch {
    stop: Bell,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to watch `netns`, of whose links `enforcer` polices those named `policed`.
    pub(crate) fn start(netns: Arc<Netns>, enforcer: Shared, policed: &[String]) -> io::Result<Self> {
        let changes = Changes::of_links(&netns)?;
        let links = link::links(&netns).map_err(io::Error::other)?;
        let known = links.iter().filter(|link| policed.contains(&link.name)).map(|link| link.index);
        let mut watcher = Watcher { netns, enforcer, known: known.collect(), unpoliced: HashSet::new() };
        watcher.look();
        let stop = Bell::new()?;
        let stopped = stop.clone();
        let run = move || {
            while matches!(stopped.wait(changes.as_fd(), PollTimeout::NONE), Ok(false)) {
                changes.drain();
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
    /// Those that had to be set down.
    unpoliced: HashSet<u32>,
}

impl Watcher {
    fn look(&mut self) {
        let links = match link::links(&self.netns) {
            Ok(links) => links,
            Err(error) => return tracing::error!(%error, "cannot list the agent's links"),
        };
        let (known, unpoliced) = (&self.known, &self.unpoliced);
        // One that was set down may have been raised again.
        let is_due =
            |link: &&Link| !known.contains(&link.index) || (unpoliced.contains(&link.index) && link.up);
        let due: Vec<&Link> = links.iter().filter(|link| !link.loopback).filter(is_due).collect();
        for link in due {
            if self.police(link) {
                self.unpoliced.remove(&link.index);
            } else {
                self.unpoliced.insert(link.index);
            }
        }
        self.known = links.into_iter().map(|link| link.index).collect();
        self.unpoliced.retain(|index| self.known.contains(index));
    }

    /// Whether it is policed now. Otherwise it is set down.
    fn police(&self, link: &Link) -> bool {
        let name = &link.name;
        let policed = enforce::lock(&self.enforcer).police(name);
        match &policed {
            Ok(()) => tracing::warn!(link = name, "a link appeared in the agent's namespace: it is policed"),
            Err(error) => {
                tracing::error!(link = name, %error, "a link appeared in the agent's namespace that cannot be policed: it is set down");
                if let Err(error) = link::set_down(&self.netns, name) {
                    tracing::error!(link = name, %error, "cannot set it down: END THIS SANDBOX");
                }
            }
        }
        policed.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use lattice_ebpf::AttachMode;
    use lattice_overlay::{BackendChoice, DeviceConfig, FilterConfig};
    use lattice_wire::WgPrivateKey;

    use super::*;
    use crate::enforce::{Enforcer, Place, PolicedLink};

    /// Needs root. The user-space filter polices no link but its own.
    #[test]
    fn a_link_that_cannot_be_policed_is_set_down_each_time_it_is_raised() {
        let (inside, outside) = (Arc::new(Netns::create().unwrap()), Netns::create().unwrap());
        let own = vec!["10.42.0.9".parse().unwrap()];
        let config = DeviceConfig {
            paths: None,
            name: "wg0".into(),
            private_key: WgPrivateKey::from_random([7; 32]),
            listen_port: 0,
            mtu: 1420,
            underlay: Arc::new(Netns::create().unwrap()),
            inside: inside.clone(),
            filter: Some(FilterConfig { own: own.clone() }),
        };
        let device = lattice_overlay::create(config, BackendChoice::UserSpace).unwrap();
        let links = vec![PolicedLink { name: "wg0".into(), own }];
        let place = Place { netns: inside.clone(), links, confined: None, filter: device.filter().cloned() };
        let started = Enforcer::Userspace.prepare("".into(), AttachMode::Auto).unwrap().start(place).unwrap();
        link::set_up(&inside, "wg0").unwrap();
        let _watch = Watch::start(inside.clone(), started.enforcer, &["wg0".into()]).unwrap();

        let is_up = |name| link::links(&inside).unwrap().iter().any(|link| link.name == name && link.up);
        link::add_veth(&inside, "late0", &outside, "far0").unwrap();
        for round in 0..3 {
            link::set_up(&inside, "late0").unwrap();
            let deadline = Instant::now() + Duration::from_secs(30);
            while is_up("late0") {
                assert!(Instant::now() < deadline, "it stays up: {round}");
                thread::sleep(Duration::from_millis(5));
            }
        }
        assert!(is_up("wg0"), "the one that is policed");
    }
}
