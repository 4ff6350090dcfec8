//! What the state machine cannot make itself: randomness, and the time of day.

use std::time::SystemTime;

use crate::kdf::Key;

/// Random bytes that nobody can foretell. A test may give ones that can be repeated.
///
/// Keys come from here, so a copy of the process, such as a virtual machine restored twice, must not get the same ones:
/// take them from the kernel each time, never from a generator in this process.
pub trait Random: Send {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// The kernel's random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the kernel's random number generator is available");
    }
}

/// What an [`Interface`](crate::Interface) asks of the world.
pub struct Sources {
    /// For keys, indices, nonces and jitter.
    pub random: Box<dyn Random>,
    /// The time of day, read once per initiation: the peer takes none that is not later than the last (paper, section
    /// 5.1), also when this process was started anew meanwhile. Steps backwards do no harm within the process.
    pub wall_clock: Box<dyn FnMut() -> SystemTime + Send>,
}

impl Sources {
    /// The kernel's.
    pub fn os() -> Self {
        Self { random: Box::new(OsRandom), wall_clock: Box::new(SystemTime::now) }
    }
}

impl dyn Random + '_ {
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    pub(crate) fn key(&mut self) -> Key {
        let mut key = Key::default();
        self.fill(key.as_mut_slice());
        key
    }
}
