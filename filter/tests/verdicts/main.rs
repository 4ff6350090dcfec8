//! Verdicts on single packets: test by test those of the eBPF program (`ebpf/src/enforcer/verdicts.rs`), then what only a
//! filter whose clock is an argument can be asked.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy knows only #[test] as tests"
)]

mod agree;
mod fixture;
mod garbage;
mod packet;
mod pins;
mod refusal;
mod rules;
mod state;
mod told;
