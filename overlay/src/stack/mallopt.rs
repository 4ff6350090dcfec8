//! glibc's `mallopt(3)`.
#![allow(unsafe_code)] // Neither std nor nix has it.

use std::sync::Once;

/// Has buffers from 64 KiB on come from the kernel and go back to it, however many there were before. Otherwise glibc keeps what was freed, and
/// clears it for the next connection, which makes memory of all of it.
pub(super) fn give_large_buffers_back() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(target_env = "gnu")]
        // SAFETY: it sets a number under the allocator's own lock.
        let _taken = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10) };
    });
}
