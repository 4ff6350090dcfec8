//! containerd's task service, for the containers of one pod.
//!
//! | file | is |
//! |---|---|
//! | `service` | containerd's messages, in and out |
//! | `pod` | the containers, and what they share: runsc, the network, the record for clean-up |
//! | `create`, `start`, `delete` | what changes a container |
//! | `process` | one process of containerd's: a container's first, or an exec |
//! | `fence` | the group whose calls the policy judges |
//! | `exits` | who ended when, told in the order that containerd relies on |
//!
//! Whatever changes something runs to its end in a task of its own: a client that hangs up leaves nothing half done. Questions
//! (`State`, `Pids`, `Connect`, `Wait`) take no lock that is held while runsc works, because containerd's own start waits for their
//! answers.

mod create;
mod delete;
mod exits;
mod fence;
mod network;
mod pod;
mod process;
mod query;
mod service;
mod start;
#[cfg(test)]
mod tests;

pub use pod::Settings;
pub use service::Service;
