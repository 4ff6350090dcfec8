//! Datagrams of the packet thread that wait for the relay.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use lattice_wire::{WgPublicKey, lrp};
use tokio::sync::Notify;

/// Bytes that wait, at most; as many again may be on their way to the connection.
const LIMIT: usize = 512 << 10;
/// What a datagram costs beyond its bytes.
const OVERHEAD: usize = 96;

/// A datagram for a peer, with room for the handle before it.
pub(super) type Parcel = (WgPublicKey, Vec<u8>);

/// A bounded queue.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    /// Told when something comes into an empty queue.
    pub(super) bell: Notify,
    /// Datagrams that found no room, no connection, or no peer.
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    parcels: VecDeque<Parcel>,
    bytes: usize,
    open: bool,
}

impl Outbox {
    /// Queues a datagram of `len` bytes that `write` fills in; says whether there was room. Without a connection there is none.
    pub(super) fn push(&self, peer: WgPublicKey, len: usize, write: impl FnOnce(&mut [u8])) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = waiting.bytes + len + OVERHEAD;
        if !waiting.open || bytes > LIMIT || len > lrp::MAX_DATAGRAM {
            drop(waiting);
            self.drop_one();
            return false;
        }
        let mut body = vec![0; lrp::HANDLE + len];
        write(&mut body[lrp::HANDLE..]);
        waiting.bytes = bytes;
        waiting.parcels.push_back((peer, body));
        let was_empty = waiting.parcels.len() == 1;
        drop(waiting);
        if was_empty {
            self.bell.notify_one();
        }
        true
    }

    /// Takes all that waits in exchange for `empty`.
    pub(super) fn take(&self, empty: &mut VecDeque<Parcel>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes = 0;
        std::mem::swap(&mut waiting.parcels, empty);
    }

    /// Whether there is a connection. What waits when it ends is of no use to anybody later.
    pub(super) fn set_open(&self, open: bool) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.open = open;
        if !open {
            self.dropped.fetch_add(waiting.parcels.len() as u64, Ordering::Relaxed);
            waiting.parcels.clear();
            waiting.bytes = 0;
        }
    }

    /// Counts a datagram that is not sent.
    pub(super) fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_what_a_connection_can_still_use() {
        let (outbox, peer) = (Outbox::default(), WgPublicKey([1; 32]));
        assert!(!outbox.push(peer, 100, |_| unreachable!()));
        outbox.set_open(true);
        let sent = (0..1000).filter(|n| outbox.push(peer, 1312, |body| body.fill(*n as u8))).count();
        assert_eq!(sent, LIMIT / (1312 + OVERHEAD));
        assert!(!outbox.push(peer, lrp::MAX_DATAGRAM + 1, |_| unreachable!()));
        let mut taken = VecDeque::new();
        outbox.take(&mut taken);
        assert_eq!((taken.len(), taken[7].1.len(), taken[7].1[lrp::HANDLE]), (sent, 1316, 7));
        assert!(outbox.push(peer, 100, |_| {}));
        outbox.set_open(false);
        assert_eq!(outbox.dropped() as usize, 1 + (1000 - sent) + 1 + 1);
    }
}
