//! glibc's `mallopt(3)`.
#![allow(unsafe_code)] // Neither std nor nix has it.

use std::sync::Once;

/// What each arena keeps of what was freed at its end, in bytes: what waits for a dozen clients.
const KEPT: i32 = 4 << 20;

/// Has the heap keep what was freed, up to [`KEPT`]. QUIC's datagrams come in buffers of up to 64 KiB that are freed when they were passed
/// on; by default (128 KiB) each few of them go back to the kernel, which then clears every page of the next anew: a twelfth of the CPU time.
pub(crate) fn keep_buffers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(target_env = "gnu")]
        // SAFETY: it sets a number under the allocator's own lock.
        let _taken = unsafe { nix::libc::mallopt(nix::libc::M_TRIM_THRESHOLD, KEPT) };
    });
}
