//! The program by hand, as containerd runs it: in a bundle, with flags, standard input and environment of every release.
//!
//! Sockets, state and bundles are in a directory of each test's own, and whatever was started is killed with it.

#![allow(clippy::unwrap_used)] // its helpers are no tests

mod codes;
mod delete;
mod place;
mod replies;
mod server;
