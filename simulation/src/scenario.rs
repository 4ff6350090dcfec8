//! Random scenarios: a network, nodes in it, and a sequence of faults, all from a seed.
//!
//! At every moment what the [`World`] watches must hold. After the faults everything is healed, and once it has been quiet for a
//! while, every pair that the [`model`](crate::model) gives a way must have one, and a direct one where that is certain.

use std::time::{Duration, Instant};

use lattice_wireguard::{Path, RelayNumber};

use crate::{
    Device, Identity, Random, World,
    model::{self, Direct},
};

mod faults;
mod topology;

use faults::Fault;
use topology::Topology;

/// Makes a node's device.
pub type Make = fn(Identity, Instant) -> Box<dyn Device>;

/// What is asked of a kind of device.
#[derive(Debug, Clone, Copy)]
pub struct Expectations {
    /// It finds every way that the model knows of, not only those that the control plane names.
    pub finds_paths: bool,
    /// Quiet time after which every pair that can must deliver.
    pub delivers_after: Duration,
    /// Quiet time, after that one, after which every pair that can must be on a direct path.
    pub direct_after: Duration,
}

/// Why a scenario failed.
#[derive(Debug)]
pub struct Failure {
    /// To see it again.
    pub seed: u64,
    /// What was wrong.
    pub what: String,
    /// What happened before.
    pub story: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nseed {}: {}", self.story, self.seed, self.what)
    }
}

/// What came of a scenario.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Pairs that ended on a direct path.
    pub direct: usize,
    /// Pairs that ended on a relay.
    pub relayed: usize,
    /// Pairs that had no way.
    pub unreachable: usize,
    /// Datagrams and frames that all nodes sent.
    pub datagrams: u64,
}

/// Runs the scenario of a seed, and, if it fails, once more with a trace.
///
/// # Errors
/// What went wrong, and how it came to that.
pub fn run(seed: u64, make: Make, expect: &Expectations) -> Result<Outcome, Box<Failure>> {
    Scenario::new(seed, make, false).run(expect).map_err(|what| {
        let mut again = Scenario::new(seed, make, true);
        let what = match again.run(expect) {
            Err(again) if again == what => what,
            other => format!("{what}; run again, it ended otherwise: {other:?}"),
        };
        Box::new(Failure { seed, what, story: again.world.story() })
    })
}

impl std::ops::AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.direct += other.direct;
        self.relayed += other.relayed;
        self.unreachable += other.unreachable;
        self.datagrams += other.datagrams;
    }
}

/// What happens in a scenario, however it ends.
pub fn story(seed: u64, make: Make, expect: &Expectations) -> String {
    let mut scenario = Scenario::new(seed, make, true);
    let end = scenario.run(expect);
    format!("{}{end:?}", scenario.world.story())
}

struct Scenario {
    world: World,
    topology: Topology,
    random: Random,
    make: Make,
}

// === impl Scenario ===

impl Scenario {
    fn new(seed: u64, make: Make, traced: bool) -> Self {
        let mut world = World::new(seed, traced);
        let mut random = world.random.split();
        let topology = Topology::build(&mut world, &mut random);
        Self { world, topology, random, make }
    }

    fn run(&mut self, expect: &Expectations) -> Result<Outcome, String> {
        // Few are many enough: most of what can go wrong goes wrong between two, or with a third.
        let nodes = self.random.choose(&[2, 2, 2, 3, 3, 4, 6]);
        for _ in 0..nodes {
            let addresses = self.topology.place(&mut self.world, &mut self.random);
            self.world.add_node(addresses, self.make);
        }
        if self.random.chance(150) {
            let liar = self.random.below(nodes);
            self.world.let_lie(liar);
        }
        self.live(Duration::from_secs(3))?;
        for _ in 0..20 + self.random.below(21) {
            let fault = Fault::choose(&self.world, &mut self.random);
            self.world.note(|| format!("---- {fault:?}"));
            fault.apply(&mut self.world, &mut self.topology, &mut self.random)?;
            let time = self.random.up_to(Duration::from_secs(5));
            self.live(time)?;
        }
        self.world.note(|| "==== everything is healed");
        self.topology.heal(&mut self.world, &mut self.random);
        self.settle(expect)
    }

    /// Lets time pass with some traffic.
    fn live(&mut self, time: Duration) -> Result<(), String> {
        let end = self.world.now + time;
        let pairs = self.world.pairs();
        while self.world.now < end {
            let pause = self.random.up_to(Duration::from_millis(1000));
            self.world.run_for(pause.min(end - self.world.now))?;
            if !pairs.is_empty() {
                let (from, to) = self.random.choose(&pairs);
                for _ in 0..self.random.below(4) {
                    let len = 28 + self.random.below(1253);
                    self.world.send(from, to, len);
                }
            }
        }
        Ok(())
    }

    /// Has every pair talk, one packet each in `every`, for some time.
    fn talk(&mut self, every: Duration, time: Duration) -> Result<(), String> {
        let end = self.world.now + time;
        while self.world.now < end {
            for (from, to) in self.world.pairs() {
                self.world.send(from, to, 100);
            }
            self.world.run_for(every)?;
        }
        Ok(())
    }

    fn settle(&mut self, expect: &Expectations) -> Result<Outcome, String> {
        self.talk(Duration::from_secs(1), expect.delivers_after)?;
        self.world.note(|| "==== every packet from now on must arrive");
        let since = self.world.now;
        self.talk(Duration::from_millis(200), Duration::from_secs(2))?;
        self.world.run_for(Duration::from_secs(1))?;
        for pair in self.world.pairs() {
            let ((sent, got), hope) = (self.world.ledger.count(pair, since), self.hope(pair, expect));
            if sent != got && hope.is_some() {
                return Err(format!(
                    "of {sent} packets from {} to {}, {got} arrived: {hope:?}",
                    pair.0, pair.1
                ));
            }
        }
        let deadline = self.world.now + expect.direct_after;
        while self.world.now < deadline && self.outcome(expect).is_err() {
            self.talk(Duration::from_secs(3), Duration::from_secs(15))?;
        }
        self.outcome(expect)
    }

    fn outcome(&self, expect: &Expectations) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        for (from, to) in self.world.pairs() {
            let path = self.world.device(from).path(&self.world.key(to));
            let is_direct = matches!(path, Some(Path::Direct { .. }));
            match (self.hope((from, to), expect), path) {
                (Some(Hope::Direct), _) if !is_direct && expect.finds_paths => {
                    return Err(format!("{from} reaches {to} by {path:?}, not directly"));
                }
                (None, _) => outcome.unreachable += 1,
                (_, Some(Path::Relay { .. })) => outcome.relayed += 1,
                _ => outcome.direct += 1,
            }
        }
        outcome.datagrams = (0..self.world.nodes()).map(|node| self.world.sent(node)).sum();
        Ok(outcome)
    }

    /// The best that a pair can be sure of now.
    fn hope(&self, (from, to): (usize, usize), expect: &Expectations) -> Option<Hope> {
        let hosts = (self.world.host(from), self.world.host(to));
        let works = |relay: &RelayNumber| {
            self.world.relays.works(hosts.0, *relay) && self.world.relays.works(hosts.1, *relay)
        };
        match model::direct(&self.world.network, hosts.0, hosts.1) {
            _ if !expect.finds_paths => None,
            Direct::Certain => Some(Hope::Direct),
            _ => (0..self.world.relays.count()).find(works).map(Hope::Relay),
        }
    }
}

/// A way that a pair has.
#[derive(Debug, Clone, Copy)]
enum Hope {
    Direct,
    Relay(#[expect(dead_code, reason = "shown when it was in vain")] RelayNumber),
}
