//! `delete`: cleans up after a shim that is gone, however it went. Never fails for want of something to clean.
