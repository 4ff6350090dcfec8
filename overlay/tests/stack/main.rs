//! Devices with a stack of their own, joined over loopback. No test needs a privilege, but for those that say so.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions marked #[test] as tests")]

#[allow(dead_code, reason = "the tests of devices with a link use the rest")]
#[path = "../devices/host.rs"]
mod host;

mod datagrams;
mod kernel;
mod pair;
mod policy;
mod streams;
mod unprivileged;
