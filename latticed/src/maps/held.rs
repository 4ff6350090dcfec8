//! The workspaces that are held in memory: those that were asked for lately, of so many peers together.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use lattice_wire::{MapVersion, WorkspaceId};

use super::view::View;
use crate::store::{Store, StoreError};

/// Peers of all workspaces that are held. Each takes about a kilobyte.
const MAX_PEERS: usize = 100_000;
/// Workspaces that are held.
const MAX_WORKSPACES: usize = 10_000;

/// What is held.
#[derive(Debug, Default)]
pub struct Held(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    slots: BTreeMap<WorkspaceId, Slot>,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Slot {
    view: Arc<tokio::sync::Mutex<View>>,
    used: u64,
}

impl Held {
    /// The place of one workspace. Those that were not asked for longest may lose theirs.
    pub fn slot(&self, workspace: &WorkspaceId) -> Arc<tokio::sync::Mutex<View>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.clock += 1;
        let used = slots.clock;
        if let Some(slot) = slots.slots.get_mut(workspace) {
            slot.used = used;
            return Arc::clone(&slot.view);
        }
        slots.make_room();
        let view = Arc::new(tokio::sync::Mutex::new(View::empty(workspace.clone())));
        slots.slots.insert(workspace.clone(), Slot { view: Arc::clone(&view), used });
        view
    }
}

impl Slots {
    fn make_room(&mut self) {
        loop {
            // One that is in use right now counts when it is asked for the next time.
            let peers: usize =
                self.slots.values().filter_map(|slot| Some(slot.view.try_lock().ok()?.len())).sum();
            if self.slots.len() < MAX_WORKSPACES && peers < MAX_PEERS {
                return;
            }
            let oldest = self.slots.iter().min_by_key(|(_, slot)| slot.used).map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { return };
            self.slots.remove(&oldest);
        }
    }
}

/// Makes `view` as new as the store, or at least as `wanted`.
///
/// # Errors
/// When the database fails.
pub async fn refresh(
    view: &mut View,
    store: &Store,
    wanted: Option<MapVersion>,
    now: i64,
) -> Result<(), StoreError> {
    if wanted != Some(view.version()) {
        view.update(store.changes(view.workspace(), Some(view.version()), now).await?);
    }
    Ok(())
}
