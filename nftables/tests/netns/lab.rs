//! An agent behind our table, and its peer, joined by a veth pair.

use std::{
    ops::Deref,
    os::fd::AsFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use lattice_lab::Pair;
pub(crate) use lattice_lab::{
    AGENT4, AGENT6, NOWHERE4, NOWHERE6, Netns, PATIENCE, PEER4, PEER6, entry, line, table,
};
use lattice_nftables::{Enter, Events, Nftables, Options};
use lattice_policy::Flow;
use nix::poll::{PollFd, PollFlags, poll};

pub(crate) struct Lab {
    pub(crate) nftables: Nftables,
    pub(crate) events: Events,
    told: Vec<Flow>,
    pub(crate) pair: Pair,
}

impl Deref for Lab {
    type Target = Pair;
    fn deref(&self) -> &Pair {
        &self.pair
    }
}

impl Lab {
    /// Everything set up as a sandbox does it: the table is there before the link is up. No policy applied.
    pub(crate) fn new() -> Self {
        let pair = Pair::new();
        pair.add_veth();
        let mut nftables = Nftables::load(&options(&pair.agent)).unwrap();
        let events = nftables.events().unwrap();
        pair.configure(true);
        Self { nftables, events, told: Vec::new(), pair }
    }

    /// Everything told so far.
    pub(crate) fn told(&mut self) -> Vec<Flow> {
        while self.events.drain(&mut |flow| self.told.push(flow)) > 0 {}
        self.told.clone()
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
            let _ = poll(&mut [PollFd::new(self.events.as_fd(), PollFlags::POLLIN)], 1000u16);
        }
    }

    pub(crate) fn eventually(&mut self, mut happens: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !happens(self) {
            assert!(Instant::now() < deadline, "it never happened");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) fn options(agent: &Arc<Netns>) -> Options {
    let netns = agent.clone();
    let enter: Enter = Arc::new(move |work| {
        netns.run(work);
        Ok(())
    });
    Options {
        enter,
        own: vec![AGENT4.into(), AGENT6.into()],
        tied: Vec::new(),
        confined: None,
        table: Options::TABLE.into(),
        log_group: Options::LOG_GROUP,
    }
}
