//! What may go wrong, or right again.

use std::time::Duration;

use lattice_wireguard::RelayNumber;

use super::topology::{self, Topology};
use crate::{Random, World};

/// One change of the world.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// A router's link goes down, or comes back.
    Link { router: usize },
    /// A network begins to drop UDP, or stops to.
    Udp { router: usize },
    /// A link becomes another one.
    Quality { router: usize },
    /// A NAT forgets its mappings.
    Reboot { router: usize },
    /// What two nodes send each other directly is lost, or no longer.
    Cut { one: usize, other: usize },
    /// A node goes to another network; it has none meanwhile.
    Roam { node: usize, away: Duration },
    /// A node leaves all networks.
    Offline { node: usize },
    /// A relay dies, or is started.
    Relay { relay: RelayNumber },
    /// A relay becomes slow and lossy.
    SlowRelay { relay: RelayNumber },
    /// A node can no longer reach a relay.
    CutRelay { node: usize, relay: RelayNumber, cut: bool },
    /// The signalling service goes away, or comes back.
    Signalling,
    /// It loses some signals.
    LossySignalling,
    /// It says old things again.
    Replay,
    /// The control plane goes away, or comes back.
    Control,
    /// A node is taken out of the workspace, or back in.
    Remove { node: usize },
    /// A policy keeps two nodes apart, or lets them meet.
    Apart { one: usize, other: usize },
    /// A node's host is suspended for some time.
    Suspend { node: usize, time: Duration },
    /// Nothing, for long enough that sessions and mappings end.
    Quiet { time: Duration },
}

impl Fault {
    pub(super) fn choose(world: &World, random: &mut Random) -> Self {
        let node = random.below(world.nodes());
        let other = (node + 1 + random.below(world.nodes() - 1)) % world.nodes();
        let router = random.below(world.network.routers().max(1));
        let relay = random.below(usize::from(world.relays.count())) as RelayNumber;
        let second = Duration::from_secs(1);
        match random.below(if world.network.routers() == 0 { 16 } else { 22 }) {
            0..=2 => Self::Roam { node, away: random.up_to(3 * second) },
            3 => Self::Offline { node },
            4 | 5 => Self::Cut { one: node, other },
            6 | 7 => Self::Relay { relay },
            8 => Self::SlowRelay { relay },
            9 => Self::CutRelay { node, relay, cut: random.chance(500) },
            10 => random.choose(&[Self::Signalling, Self::LossySignalling]),
            11 => Self::Replay,
            12 => Self::Control,
            13 => random.choose(&[Self::Remove { node }, Self::Apart { one: node, other }]),
            14 => Self::Suspend { node, time: random.choose(&[second, 20 * second, 400 * second]) },
            15 => Self::Quiet { time: random.choose(&[30 * second, 130 * second, 200 * second]) },
            16 => Self::Link { router },
            17 => Self::Udp { router },
            18 | 19 => Self::Quality { router },
            _ => Self::Reboot { router },
        }
    }

    pub(super) fn apply(
        self,
        world: &mut World,
        topology: &mut Topology,
        random: &mut Random,
    ) -> Result<(), String> {
        match self {
            Self::Link { router } => world.network.router(router).link.up ^= true,
            Self::Udp { router } => world.network.router(router).link.udp ^= true,
            Self::Quality { router } => {
                let link = &mut world.network.router(router).link;
                let (up, udp) = (link.up, link.udp);
                *link = crate::Link { up, udp, ..topology::link(random) };
            }
            Self::Reboot { router } => {
                let router = world.network.router(router);
                router.nat.iter_mut().chain(&mut router.firewall).for_each(crate::Nat::reboot);
            }
            Self::Cut { one, other } => {
                let (one, other) = (world.host(one), world.host(other));
                let cut = world.network.is_cut(one, other);
                world.network.cut(one, other, !cut);
            }
            Self::Roam { node, away } => {
                world.move_node(node, Vec::new());
                world.run_for(away)?;
                let addresses = topology.place(world, random);
                world.move_node(node, addresses);
            }
            Self::Offline { node } => world.move_node(node, Vec::new()),
            Self::Relay { relay } => world.relays.set_up(relay, !world.relays.is_up(relay)),
            Self::SlowRelay { relay } => world.relays.degrade(relay, Duration::from_millis(150), 50),
            Self::CutRelay { node, relay, cut } => world.relays.cut(world.host(node), relay, cut),
            Self::Signalling => world.signalling.up ^= true,
            Self::LossySignalling => world.signalling.loss = random.choose(&[0, 200, 500]),
            Self::Replay => world.signalling.replay(20, world.now),
            Self::Control => world.control.up ^= true,
            Self::Remove { node } => {
                let removed = world.control.is_removed(node);
                world.control.set_removed(node, !removed, world.now);
            }
            Self::Apart { one, other } => {
                let apart = world.control.is_apart(one, other);
                world.control.set_apart(one, other, !apart, world.now);
            }
            Self::Suspend { node, time } => {
                world.suspend(node, true);
                world.run_for(time)?;
                world.suspend(node, false);
            }
            Self::Quiet { time } => world.run_for(time)?,
        }
        world.update();
        Ok(())
    }
}
