//! The proxy over real sockets, with real clients: curl, Python, and some that do exactly what a test says.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "proxy/curl.rs"]
mod curl;
#[path = "proxy/forward.rs"]
mod forward;
#[path = "proxy/limits.rs"]
mod limits;
#[path = "proxy/plain.rs"]
mod plain;
#[path = "proxy/streams.rs"]
mod streams;
#[path = "proxy/support.rs"]
mod support;
#[path = "proxy/udp.rs"]
mod udp;
