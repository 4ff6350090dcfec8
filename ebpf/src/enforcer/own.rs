//! The map `OWN`: the sandbox's addresses, and which link each is tied to.

use std::net::IpAddr;

use aya::maps::{HashMap, MapData, MapError};
use nix::{errno::Errno, net::if_::if_indextoname};

use crate::{
    EbpfError,
    abi::{self, OwnKey},
};

pub(super) struct Own(HashMap<MapData, OwnKey, u32>);

impl Own {
    pub(super) fn new(map: HashMap<MapData, OwnKey, u32>) -> Self {
        Self(map)
    }

    /// Makes `own` the addresses of the link with this index in the caller's network namespace, where those of links that
    /// are gone go, or of every link ([`abi::ANY_LINK`]). An address that stays is never without an entry.
    pub(super) fn set(&mut self, link: u32, own: &[IpAddr]) -> Result<(), EbpfError> {
        let wanted: Vec<OwnKey> = own.iter().map(|&ip| ip.into()).collect();
        let listed: Result<Vec<(OwnKey, u32)>, MapError> = self.0.iter().collect();
        let (mut stay, mut go) = (Vec::new(), Vec::new());
        for (key, tied) in listed.map_err(EbpfError::map("list", "OWN"))? {
            let over =
                if tied == link { !wanted.contains(&key) } else { link != abi::ANY_LINK && is_gone(tied) };
            if over { go.push(key) } else { stay.push(key) }
        }
        let mut all: Vec<&OwnKey> = stay.iter().chain(&wanted).collect();
        all.sort_unstable();
        all.dedup();
        if all.len() > abi::MAX_OWN {
            return Err(EbpfError::TooManyAddresses(all.len()));
        }
        for key in go {
            // One that is about to be tied to another link may stay until it is.
            if !wanted.contains(&key) {
                self.0.remove(&key).map_err(EbpfError::map("remove an address", "OWN"))?;
            }
        }
        for key in wanted {
            self.0.insert(key, link, 0).map_err(EbpfError::map("add an address", "OWN"))?;
        }
        Ok(())
    }
}

/// Not for certain when the kernel does not answer: then it stays.
fn is_gone(link: u32) -> bool {
    link != abi::ANY_LINK && if_indextoname(link).err() == Some(Errno::ENXIO)
}
