//! Verdicts on single packets: those that every enforcer must give (`tests/verdicts`), then what only a filter whose clock is an
//! argument can be asked.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy knows only #[test] as tests"
)]

mod agree;
mod fixture;
mod garbage;
mod pins;
mod refusal;
mod state;
mod told;

mod shared {
    lattice_verdicts::suite!(crate::fixture::Fixture);
}
