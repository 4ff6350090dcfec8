//! Agents under every runsc that can be had here: Debian's own and the newer one of bookworm-backports. Needs root.

#![allow(clippy::unwrap_used)] // clippy knows tests, not the functions they share

mod confinement;
mod death;
mod filesystem;
mod lifecycle;
mod limits;
mod overlap;
mod support;
