//! glibc's `mallopt(3)`.
#![allow(unsafe_code)] // Neither std nor nix has it.

/// Buffers from 64 KiB on come from the kernel and go back to it, however many were there before. Otherwise glibc keeps what
/// was freed, and clears it for the next connection, which makes memory of all of it.
pub(crate) fn give_large_buffers_back() {
    // SAFETY: it sets a number, before there is another thread.
    let done = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10) };
    assert_eq!(done, 1, "glibc takes the threshold");
}
