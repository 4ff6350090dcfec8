//! Devices with a stack of their own, joined over loopback. No test needs a privilege, but for those that say so.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions marked #[test] as tests")]

mod pair;
mod streams;
