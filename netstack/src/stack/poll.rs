//! What the stack does by itself.

use std::time::Instant;

use super::{Stack, context};
use crate::{
    Output,
    flow::{Fate, Flow},
    tcp::{ACK, Answer},
};

impl Stack {
    /// Sends what is to be sent, does what time asks for, and finds out what is new. Flows take turns of up to 64 KiB.
    /// Calling it too early does nothing.
    pub fn poll(&mut self, now: Instant, out: &mut impl Output) {
        while let Some(slot) = self.deadlines.pop_due(now) {
            if let Some(flow) = self.flows.at(slot) {
                flow.scheduled = None;
                flow.handle_timeout(now);
                self.make_ready(slot);
            }
        }
        while !out.is_full()
            && let Some(slot) = self.ready.pop_front()
        {
            self.take_turn(now, slot, out);
        }
    }

    /// When [`Stack::poll`] is to be called next, if nothing happens before; `None` when nothing is to come. It may be too
    /// early.
    pub fn poll_at(&self) -> Option<Instant> {
        self.deadlines.first()
    }

    /// Whether [`Stack::poll`] has something to do at once, because of what was done to flows or because the output was full.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn take_turn(&mut self, now: Instant, slot: u32, out: &mut impl Output) {
        let Some(flow) = self.flows.at(slot) else { return };
        flow.is_ready = false;
        let has_sent = !flow.is_detached && flow.send_next(&mut context!(self, now), out);
        if !has_sent && !flow.is_detached && std::mem::take(&mut flow.resets) {
            flow.send_reset(&mut context!(self, now), out);
        }
        let fate = flow.tell(&mut self.events);
        if flow.is_half_open && flow.has_completed() {
            flow.is_half_open = false;
            self.half_open.remove(flow.tuple.remote.ip());
        }
        match fate {
            Fate::Lives if has_sent => self.make_ready(slot),
            Fate::Lives => {
                let at = flow.next_timeout(self.clock, now);
                self.deadlines.schedule(slot, &mut flow.scheduled, at);
            }
            Fate::Drains | Fate::Ends => self.detach(now, slot, fate, out),
        }
    }

    /// Ends a flow's part in the network, and the flow itself if nothing is left to read.
    fn detach(&mut self, now: Instant, slot: u32, fate: Fate, out: &mut impl Output) {
        let Some(flow) = self.flows.at(slot) else { return };
        if !flow.is_detached {
            flow.is_detached = true;
            self.deadlines.remove(slot, &mut flow.scheduled);
            let tuple = flow.tuple;
            if let Some((next, expected)) = flow.numbers_to_remember() {
                if flow.owes_acknowledgement() {
                    let answer = Answer { sequence: next, acknowledgement: expected, flags: ACK, window: 0 };
                    answer.send(&tuple, out);
                }
                self.time_wait.insert(tuple, (next, expected), now);
            }
            self.flows.forget_name(&tuple, slot);
        }
        if fate == Fate::Ends {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: u32) {
        let Some(flow) = self.flows.remove(slot) else { return };
        let Flow { buffers, tuple, is_half_open, .. } = *flow;
        self.memory.release(buffers);
        if is_half_open {
            self.half_open.remove(tuple.remote.ip());
        }
    }
}
