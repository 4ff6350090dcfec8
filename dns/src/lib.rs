//! The sandbox's resolver: answers the names of the overlay itself, forwards those that the policy permits, refuses the
//! rest.
//!
//! Name resolution is egress: what is asked leaves the host, and what is answered says where an agent may go. So nothing
//! passes through. A query is read, judged by the [`Gate`], and asked anew in our own words; the answer is read, checked,
//! pinned by the gate, and told anew.
//!
//! ```text
//!  agent netns          │ a thread of ours, outside it                              underlay netns
//!  127.0.0.1:53 ───────►│ query ─► decide ─┬─► overlay, localhost, private PTR ─┐
//!  UDP, TCP             │                  ├─► Gate::query refuses ─► REFUSED ──┤
//!                       │                  └─► limits ─► ask ──────────────────┼──► a nameserver of the host
//!            ◄──────────┤ reply ◄─────────── Gate::answer pins ◄─ answer ◄──────┼───
//! ```
//!
//! What decides is pure (`query`, `decide`, `answer`, `core`: no sockets, no clock, no randomness of its own); `server` and
//! `upstream` are the shell around it: one thread, however many queries are outstanding. Every limit is in [`limits`].

#![forbid(unsafe_code)]

mod answer;
mod ask;
mod asker;
mod cache;
mod core;
mod counters;
mod decide;
#[doc(hidden)]
pub mod fuzz;
mod gate;
pub mod limits;
mod local;
mod names;
mod query;
mod question;
mod quiet;
mod record;
mod resolv_conf;
mod server;
mod tcp;
mod throttle;
mod upstream;

pub use asker::{Asker, NotResolved};
pub use counters::Counters;
pub use gate::{Admitted, Gate, Refusal, Transport, Verdict, Why};
pub use names::Names;
pub use server::{Config, Enter, Resolver};
