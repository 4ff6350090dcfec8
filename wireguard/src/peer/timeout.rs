//! What time asks of a peer (section 6).

use std::time::Instant;

use super::Peer;
use crate::{Output, retransmit::Repeat, shared::Shared, timers::Due};

impl Peer {
    /// When [`Peer::handle_timeout`] has something to do next.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let retransmit = self.retransmit.as_ref().and_then(|retransmit| retransmit.due_at());
        retransmit.into_iter().chain(self.timers.next()).min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, shared: &mut Shared, out: &mut impl Output) {
        while let Some(due) = self.timers.take_due(now) {
            match due {
                Due::Initiate => self.want_session(now, shared, out),
                Due::GiveUp => {
                    shared.indices.release(self.pending.clear());
                    shared.drops.queue += self.queue.clear(&mut shared.budget);
                }
                Due::Keepalive => self.send_keepalive(now, shared, out),
                Due::Forget => self.wipe(shared),
            }
        }
        match self.retransmit.as_mut().and_then(|retransmit| retransmit.take_due(now)) {
            Some(Repeat::Same(initiation)) => self.tx_bytes += self.paths.send(initiation, true, out),
            Some(Repeat::Anew) => self.initiate_again(now, shared, out),
            None => {}
        }
    }
}
