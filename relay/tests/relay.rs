//! The relay over real sockets: who gets in, and what becomes of datagrams.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "relay/forwarding.rs"]
mod forwarding;
#[path = "relay/never_open.rs"]
mod never_open;
#[path = "relay/stun.rs"]
mod stun;
#[path = "relay/support.rs"]
mod support;
