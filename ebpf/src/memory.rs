//! Memory that was needed once.
#![allow(unsafe_code)] // malloc_trim(3)

/// Gives freed memory of this process back to the kernel. glibc keeps what a thread has freed for that thread, for ever.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
