//! When the control plane was last heard from.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::clock::since_boot;

/// Shared by who hears it and who is asked. By the clock that goes on while the host sleeps.
#[derive(Debug, Clone)]
pub(crate) struct Heard(Arc<AtomicU64>);

impl Heard {
    /// Heard from just now.
    pub(crate) fn just_now() -> Self {
        Self(Arc::new(AtomicU64::new(since_boot().as_secs())))
    }

    /// It was heard from again.
    pub(crate) fn again(&self) {
        self.0.store(since_boot().as_secs(), Ordering::Relaxed);
    }

    /// For how long it was not, in whole seconds.
    pub(crate) fn ago(&self) -> Duration {
        since_boot().saturating_sub(Duration::from_secs(self.0.load(Ordering::Relaxed)))
    }
}
