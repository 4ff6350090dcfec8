//! The overlay's names: `<peer>.lattice` and `<peer>.<workspace>.lattice`, and back from their addresses.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use ipnet::IpNet;

/// Under which all names of the overlay are.
pub(crate) const ZONE: &str = "lattice";

/// The overlay's names, shared with whoever knows the network map. Empty at first.
#[derive(Debug, Clone, Default)]
pub struct Names(Arc<RwLock<Arc<Table>>>);

#[derive(Debug, Default)]
pub(crate) struct Table {
    /// By peer name, without the zone.
    addresses: HashMap<String, Vec<IpAddr>>,
    peers: HashMap<IpAddr, String>,
    workspaces: Vec<String>,
    pools: Vec<IpNet>,
}

impl Names {
    /// Replaces all names. `workspaces` are what peers' names may be followed by (one label each); of addresses within `pools`
    /// that no peer has, the reverse name is answered too: there is none. Queries see all of the old, or all of the new.
    pub fn replace<'a>(
        &self,
        peers: impl IntoIterator<Item = (String, Vec<IpAddr>)>,
        workspaces: impl IntoIterator<Item = &'a str>,
        pools: Vec<IpNet>,
    ) {
        let workspaces = workspaces.into_iter().map(str::to_ascii_lowercase).collect();
        let mut table = Table { workspaces, pools, ..Table::default() };
        for (peer, addresses) in peers {
            let peer = peer.to_ascii_lowercase();
            for address in &addresses {
                table.peers.insert(*address, peer.clone());
            }
            table.addresses.insert(peer, addresses);
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Table {
    /// The addresses of a name below the zone, given without it (`peer` or `peer.workspace`).
    pub(crate) fn addresses(&self, name: &str) -> Option<&[IpAddr]> {
        let peer = match name.split_once('.') {
            None => name,
            Some((peer, workspace)) if self.workspaces.iter().any(|own| own == workspace) => peer,
            Some(_) => return None,
        };
        self.addresses.get(peer).map(Vec::as_slice)
    }

    /// Whose `address` is: the name of a peer, without the zone.
    pub(crate) fn peer(&self, address: IpAddr) -> Option<&str> {
        self.peers.get(&address).map(String::as_str)
    }

    /// Whether all of `net` is the overlay's.
    pub(crate) fn holds(&self, net: &IpNet) -> bool {
        self.pools.iter().any(|pool| pool.contains(net))
    }
}
