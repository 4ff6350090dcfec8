//! Tells a device that finds paths what it cannot know by itself, and carries its signals.
//!
//! ```text
//!  links and addresses of the underlay ─► set_local ──┐
//!  latticed: STUN servers, relays, token ─► set_servers ─► device
//!  NATS: signals of peers ◄─► handle_signal, signals ─┘
//! ```

use std::{net::SocketAddr, sync::Arc};

use async_nats::Client;
use lattice_overlay::{Device, Netns, PathFinder, Servers};
use lattice_policy::Overlay;
use lattice_wire::{Credentials, NetMap, RelayServer};
use tokio::{runtime::Handle, sync::watch, task::JoinSet};

use crate::{
    addresses::Addresses,
    reach::{Finder, Reachable, RelayPlace},
    signals::{Roster, SignalReceiver, Signals},
};

/// The running tasks; they end with it.
pub(crate) struct Guide {
    roster: watch::Sender<Arc<Roster>>,
    _tasks: JoinSet<()>,
    _addresses: Option<Addresses>,
}

impl Guide {
    /// Starts, if `device` finds paths.
    pub(crate) fn start(
        device: &Arc<dyn Device>,
        client: &Client,
        credentials: &Credentials,
        overlay: Overlay,
        underlay: &Arc<Netns>,
        runtime: &Handle,
    ) -> Option<Self> {
        let finder = device.paths()?.clone();
        let outgoing = finder.signals()?;
        let roster = watch::Sender::new(Arc::default());
        let (me, key) = (credentials.peer.clone(), credentials.wireguard_private_key.clone());
        let (sender, receiver) = Signals::start(client.clone(), me.clone(), key, roster.subscribe(), runtime);
        let reachable = Finder::start(client.clone(), me, underlay.clone(), overlay, runtime);
        let mut tasks = JoinSet::new();
        tasks.spawn_on(servers(finder.clone(), reachable), runtime);
        tasks.spawn_on(incoming(finder.clone(), receiver), runtime);
        tasks.spawn_on(
            async move {
                let mut outgoing = outgoing;
                while let Some((to, signal)) = outgoing.recv().await {
                    sender.send(to, signal);
                }
            },
            runtime,
        );
        let addresses = Addresses::start(finder, underlay.clone(), device.listen_port()).inspect_err(
            |error| tracing::warn!(%error, "no direct paths: this host's addresses cannot be watched"),
        );
        Some(Self { roster, _tasks: tasks, _addresses: addresses.ok() })
    }

    /// From now on, signals go to and come from those who are in `map` at `now`, in Unix seconds.
    pub(crate) fn follow(&self, map: &NetMap, now: i64) {
        let roster = Arc::new(Roster::of(map, now));
        self.roster.send_if_modified(|present| {
            let changed = *present != roster;
            *present = roster;
            changed
        });
    }
}

async fn incoming(finder: PathFinder, mut receiver: SignalReceiver) {
    loop {
        let (from, signal) = receiver.receive().await;
        if finder.handle_signal(from, signal).is_err() {
            return;
        }
    }
}

async fn servers(finder: PathFinder, mut reachable: watch::Receiver<Arc<Reachable>>) {
    loop {
        let found = reachable.borrow_and_update().clone();
        let servers = Servers {
            stun: found.stun.clone(),
            relays: found.relays.iter().filter_map(placed).collect(),
            token: found.token.clone(),
        };
        if finder.set_servers(servers).is_err() || reachable.changed().await.is_err() {
            return;
        }
    }
}

/// A relay by its address in place of its name, which the device would have to look up.
fn placed(place: &RelayPlace) -> Option<RelayServer> {
    let at = |addresses: &[SocketAddr]| addresses.first().map(SocketAddr::to_string);
    let server = RelayServer { quic: at(&place.quic), tcp: at(&place.tcp), ..place.server.clone() };
    (server.quic.is_some() || server.tcp.is_some()).then_some(server)
}
