//! What the peers of one interface have in common.

use crate::{Drops, Sources, handshake::Identity, index::Indices, queue::Budget};

/// Handed to each peer with whatever it is to do.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) sources: Sources,
    pub(crate) indices: Indices,
    pub(crate) budget: Budget,
    pub(crate) mtu: usize,
    pub(crate) drops: Drops,
}
