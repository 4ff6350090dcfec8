//! A registered client: what the sessions of others need of it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use lattice_wire::{
    RelayClaims,
    lrp::{self, Frame, Reason},
};
use tokio::sync::{mpsc, watch};

use crate::{
    metrics::Metrics,
    outbox::{Outbox, Outcome},
};

/// Control frames that wait for a client; one that does not even read these is sent away.
const CONTROL: usize = 1024;

/// A client. It holds the clients that it has routes to, and they it: [`crate::registry`] takes the routes away when either leaves.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) claims: RelayClaims,
    pub(crate) outbox: Outbox,
    not_after: AtomicI64,
    routes: Mutex<HashMap<u32, Arc<Member>>>,
    control: mpsc::Sender<Frame<'static>>,
    dismissed: watch::Sender<Option<Reason>>,
}

impl Member {
    /// A client and the control frames for it.
    pub(crate) fn new(claims: RelayClaims, outbox: Outbox) -> (Arc<Self>, mpsc::Receiver<Frame<'static>>) {
        let (control, frames) = mpsc::channel(CONTROL);
        let member = Self {
            not_after: AtomicI64::new(claims.not_after),
            claims,
            outbox,
            routes: Mutex::default(),
            control,
            dismissed: watch::Sender::new(None),
        };
        (Arc::new(member), frames)
    }

    /// Its routes. Never held while a lock of another member is taken.
    pub(crate) fn routes(&self) -> MutexGuard<'_, HashMap<u32, Arc<Member>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a control frame, some time.
    pub(crate) fn tell(&self, frame: Frame<'static>) {
        if self.control.try_send(frame).is_err() {
            self.dismiss(Reason::Protocol);
        }
    }

    /// Tells it that a datagram for it did not fit. Not of each one where they come faster than it reads: it would be sent away.
    fn tell_too_large(&self, fits: u16) {
        if self.control.capacity() > CONTROL / 2 {
            self.tell(Frame::TooLarge(fits));
        }
    }

    /// Ends its session; the first reason counts.
    pub(crate) fn dismiss(&self, reason: Reason) {
        self.dismissed.send_if_modified(|dismissed| {
            let first = dismissed.is_none();
            dismissed.get_or_insert(reason);
            first
        });
    }

    /// Whether its session is to end.
    pub(crate) fn is_dismissed(&self) -> bool {
        self.dismissed.borrow().is_some()
    }

    /// Waits until the session is to end.
    pub(crate) async fn dismissed(&self) -> Reason {
        let mut dismissed = self.dismissed.subscribe();
        match dismissed.wait_for(Option::is_some).await.map(|reason| *reason) {
            Ok(Some(reason)) => reason,
            _ => Reason::Draining,
        }
    }

    /// Unix seconds at which its token ends.
    pub(crate) fn not_after(&self) -> i64 {
        self.not_after.load(Ordering::Relaxed)
    }

    /// Takes a newer token of the same peer.
    pub(crate) fn renew(&self, claims: &RelayClaims) -> Result<(), Reason> {
        if !self.claims.is_same_peer(claims) {
            return Err(Reason::Token);
        }
        self.not_after.fetch_max(claims.not_after, Ordering::Relaxed);
        Ok(())
    }

    /// Passes on what it has sent: a handle and a datagram.
    pub(crate) fn forward(&self, body: Bytes, metrics: &Metrics) {
        let Some((handle, _)) = lrp::split_data(&body) else {
            metrics.dropped.malformed.inc();
            return;
        };
        let length = body.len() as u64;
        let outcome = if handle == lrp::ECHO {
            self.outbox.send(body)
        } else {
            let routes = self.routes();
            let Some(to) = routes.get(&handle) else {
                metrics.dropped.no_route.inc();
                return;
            };
            let outcome = to.outbox.send(body);
            if let Outcome::TooLarge(fits) = outcome {
                to.tell_too_large(fits);
            }
            outcome
        };
        let dropped = match outcome {
            Outcome::Queued => {
                metrics.datagrams.inc();
                metrics.bytes.inc_by(length);
                return;
            }
            Outcome::Full => &metrics.dropped.queue_full,
            Outcome::TooLarge(_) => &metrics.dropped.too_large,
            Outcome::Closed => &metrics.dropped.no_route,
        };
        dropped.inc();
    }
}

#[cfg(test)]
mod tests {
    use lattice_wire::{WgPublicKey, WorkspaceId};

    use super::*;
    use crate::outbox::Queue;

    #[test]
    fn one_that_many_large_datagrams_come_for_is_told_and_not_sent_away() {
        let claims = RelayClaims {
            workspace: WorkspaceId::from_random([1; 10]),
            wireguard: WgPublicKey([1; 32]),
            nats: String::new(),
            not_after: 0,
        };
        let (member, mut control) = Member::new(claims, Outbox::Tcp(Queue::new(0)));
        (0..10 * CONTROL).for_each(|_| member.tell_too_large(1162));
        member.tell(Frame::Welcome);
        assert!(!member.is_dismissed());
        assert_eq!(control.try_recv(), Ok(Frame::TooLarge(1162)));
    }
}
