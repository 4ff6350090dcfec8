//! What each class of a [`View`] may do, and which classes it sees.

use lattice_policy::{Compiler, Layer, Member};
use tracing::warn;

use super::View;
use crate::maps::{
    compose,
    sight::{End, may_meet},
};

/// With more classes than this every peer sees every other: whether each two may meet would take too long to find out. The
/// layers hold all the same.
const MAX_CLASSES: usize = 512;
impl View {
    /// Works out what each class may do, and which it sees.
    pub(super) fn compile(&mut self, at: u64) {
        let members: Vec<Member> = self.peers.values().filter_map(|entry| entry.member.clone()).collect();
        let Some(overlay) = self.overlay else { return };
        let mut compiler = Compiler::new(overlay.pool(), &members, &self.policies.read);
        let mut layers = Vec::with_capacity(self.classes.len());
        for class in &mut self.classes {
            let first = class.members.first().and_then(|id| self.peers.get(id)?.member.as_ref());
            let Some(first) = first else {
                layers.push(None);
                continue;
            };
            let mut own = compiler.layers(first);
            if let Some(name) = self.policies.unread.first() {
                own.push(Layer::closed(format!("unreadable policy {name}")).into());
            }
            let policy = compose::to_wire(&own);
            if class.policy != policy || class.policy_at == 0 {
                class.policy = policy;
                class.policy_at = at;
            }
            layers.push(Some((first.address, class.key.is_bound().then_some(own))));
        }
        let all = self.classes.len() > MAX_CLASSES;
        if all {
            warn!(workspace = %self.workspace, classes = self.classes.len(), "policies tell too many peers apart: all see all");
        }
        let ends: Vec<Option<End<'_>>> = layers
            .iter()
            .map(|end| {
                end.as_ref().map(|(address, layers)| End { address: *address, layers: layers.as_deref() })
            })
            .collect();
        let mut sees = vec![vec![all; ends.len()]; ends.len()];
        for (a, one) in ends.iter().enumerate().filter(|_| !all) {
            for (b, other) in ends.iter().enumerate().take(a + 1) {
                let meet = one.zip(*other).is_some_and(|(one, other)| may_meet(&overlay, one, other));
                sees[a][b] = meet;
                sees[b][a] = meet;
            }
        }
        self.sees = sees;
    }

    pub(super) fn is_seen(&self, seer: usize, class: usize) -> bool {
        self.sees.get(seer).and_then(|row| row.get(class)).copied().unwrap_or(false)
    }

    /// The classes that see `class`.
    pub(super) fn seers(&self, class: usize) -> Vec<usize> {
        (0..self.classes.len()).filter(|seer| self.is_seen(*seer, class)).collect()
    }

    /// The sum of all whom a class sees.
    pub(super) fn total(&self, class: usize) -> u64 {
        let seen = self.classes.iter().enumerate().filter(|(other, _)| self.is_seen(class, *other));
        seen.fold(0, |total, (_, class)| total.wrapping_add(class.sum))
    }
}
