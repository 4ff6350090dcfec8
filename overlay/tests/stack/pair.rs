//! Two devices with stacks, joined over loopback.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use lattice_netstack::Limits;
use lattice_overlay::{
    Device, FilterEvents, Netns, PeerConfig, UserFilter,
    stack::{Network, StackConfig, create_stack},
};
use lattice_policy::{Action, Direction, Flow, Policy, Table, parse_rule};
use lattice_wire::WgPrivateKey;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::oneshot;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A device, and work on its thread.
pub(crate) struct Node {
    pub(crate) device: Box<dyn Device>,
    jobs: tokio::sync::mpsc::UnboundedSender<Job>,
    events: FilterEvents,
    waiting: Vec<Flow>,
    key: WgPrivateKey,
    pub(crate) number: u8,
}

type Job = Box<dyn FnOnce(Network) -> std::pin::Pin<Box<dyn Future<Output = ()>>> + Send>;

pub(crate) fn v4(number: u8) -> IpAddr {
    [10, 42, 0, number].into()
}

pub(crate) fn v6(number: u8) -> IpAddr {
    [0xfd42, 0, 0, 0, 0, 0, 0, u16::from(number)].into()
}

impl Node {
    pub(crate) fn new(number: u8) -> Self {
        Self::with(number, Limits::default(), Arc::new(Netns::current().unwrap()))
    }

    pub(crate) fn with(number: u8, limits: Limits, underlay: Arc<Netns>) -> Self {
        let key = WgPrivateKey::from_random([number; 32]);
        let (jobs, mut inbox) = tokio::sync::mpsc::unbounded_channel::<Job>();
        let config = StackConfig {
            name: format!("stack{number}"),
            private_key: key.clone(),
            listen_port: 0,
            mtu: 1420,
            underlay,
            addresses: vec![v4(number), v6(number)],
            paths: None,
            limits,
        };
        let serve = |network: Network| async move {
            while let Some(job) = inbox.recv().await {
                tokio::task::spawn_local(job(network.clone()));
            }
        };
        let device = create_stack(config, serve).unwrap();
        let events = device.filter().unwrap().events().unwrap();
        Self { device, jobs, events, waiting: Vec::new(), key, number }
    }

    /// This node as others configure it; it is at `host`.
    pub(crate) fn config(&self, host: IpAddr) -> PeerConfig {
        PeerConfig {
            public_key: self.key.public(),
            allowed_ips: vec![v4(self.number).into(), v6(self.number).into()],
            endpoints: vec![SocketAddr::new(host, self.device.listen_port())],
            keepalive: None,
        }
    }

    /// Begins `work` on the device's thread.
    pub(crate) fn spawn<T, F>(&self, work: impl FnOnce(Network) -> F + Send + 'static) -> Doing<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(|network| {
            let work = work(network);
            Box::pin(async move {
                let _nobody_waits = done.send(work.await);
            })
        });
        self.jobs.send(job).ok().unwrap();
        Doing(result)
    }

    /// Does `work` on the device's thread, and waits for it.
    pub(crate) fn run<T, F>(&self, work: impl FnOnce(Network) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        self.spawn(work).wait()
    }

    pub(crate) fn filter(&self) -> &UserFilter {
        self.device.filter().unwrap()
    }

    pub(crate) fn apply(&self, egress: &[&str], ingress: &[&str], generation: u32) {
        self.filter().apply(&table(egress, ingress), &[], generation).unwrap();
    }

    /// Waits for a verdict like this. The others wait on.
    pub(crate) fn told(&mut self, wanted: impl Fn(&Flow) -> bool) -> Flow {
        loop {
            self.events.drain(&mut |flow| self.waiting.push(flow));
            if let Some(at) = self.waiting.iter().position(&wanted) {
                return self.waiting.remove(at);
            }
            let mut fds = [PollFd::new(self.events.as_fd(), PollFlags::POLLIN)];
            let patience = PollTimeout::try_from(PATIENCE).unwrap();
            assert_eq!(poll(&mut fds, patience), Ok(1), "no such verdict came");
        }
    }
}

/// Work that is under way.
pub(crate) struct Doing<T>(oneshot::Receiver<T>);

impl<T> Doing<T> {
    pub(crate) fn wait(self) -> T {
        self.outcome().expect("it was given up")
    }

    /// `None` when it was given up with its device.
    pub(crate) fn outcome(self) -> Option<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, self.0).await })
            .expect("it takes too long")
            .ok()
    }
}

/// Two nodes that know each other and let everything pass.
pub(crate) fn pair() -> (Node, Node) {
    pair_with(Limits::default())
}

pub(crate) fn pair_with(limits: Limits) -> (Node, Node) {
    let here = || Arc::new(Netns::current().unwrap());
    let (a, b) = (Node::with(1, limits, here()), Node::with(2, limits, here()));
    let host = [127, 0, 0, 1].into();
    a.device.set_peers(&[b.config(host)]).unwrap();
    b.device.set_peers(&[a.config(host)]).unwrap();
    for node in [&a, &b] {
        node.apply(&["10.42.0.0/16", "fd42::/64"], &["10.42.0.0/16", "fd42::/64"], 1);
    }
    (a, b)
}

pub(crate) fn table(egress: &[&str], ingress: &[&str]) -> Table {
    let add = |policy: Policy, (rule, direction): (&str, Direction)| match direction {
        Direction::Egress => policy.egress(Action::Allow, parse_rule(rule).unwrap()),
        Direction::Ingress => policy.ingress(Action::Allow, parse_rule(rule).unwrap()),
    };
    let out = egress.iter().map(|rule| (*rule, Direction::Egress));
    let inward = ingress.iter().map(|rule| (*rule, Direction::Ingress));
    out.chain(inward).fold(Policy::new(1), add).compile()
}
