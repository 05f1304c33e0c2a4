//! Keeps freed memory in the process.
//!
//! A training step allocates and frees the same hundreds of megabytes of activations. glibc hands blocks of that size back to
//! the system each time, and the kernel zeroes every page again: measured at 40 % of the processor time of a step.

/// Tells glibc's allocator to keep what is freed, for the rest of the process. Does nothing elsewhere.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::sync::Once;
        static ONCE: Once = Once::new();
        // Settings of `mallopt(3)`; the allocator is one for all threads, or each would keep a heap of its own.
        const SETTINGS: [(libc::c_int, libc::c_int); 3] =
            [(libc::M_MMAP_MAX, 0), (libc::M_TRIM_THRESHOLD, libc::c_int::MAX), (libc::M_ARENA_MAX, 1)];
        ONCE.call_once(|| {
            for (setting, value) in SETTINGS {
                // SAFETY: `mallopt` takes two integers, locks the allocator itself, and fails without effect.
                #[allow(unsafe_code)]
                unsafe {
                    libc::mallopt(setting, value);
                }
            }
        });
    }
}
