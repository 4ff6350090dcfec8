//! A containerd of one's own, and what a kubelet asks of it: for tests and benchmarks of containerd runtimes.
//!
//! ```text
//!  the test                          namespaces of the daemon: mount, pid, net
//!  ┌──────────────────┐  CRI, events ┌────────────────────────────────────────────────────────────┐
//!  │ Daemon, Pod      │─────────────►│ sh (pid 1, reaps)   containerd ── start ──► the shim ──► … │
//!  │ Events, Remains  │  /proc/<pid> │ its own /run, /var/lib, /proc, links                       │
//!  └──────────────────┘─────────────►└────────────────────────────────────────────────────────────┘
//! ```
//!
//! Shim sockets and FIFOs always go to `/run/containerd`, whatever containerd's configuration says. The daemon has a `/run` of its
//! own, so that what is in there is its own and can be compared before and after. When pid 1 dies, and it dies with the test, the
//! kernel ends all else: no shim, mount, namespace or link outlives a killed test. Only the cgroups are removed by hand.
//!
//! What is written here knows nothing of the runtime: see [`Runtime`] for those it drives.

pub mod cri;
pub mod daemon;
pub mod events;
pub mod grpc;
pub mod image;
pub mod inside;
pub mod pod;
pub mod remains;
pub mod runtime;

mod cgroups;
mod settings;

pub use daemon::Daemon;
pub use events::{Event, Events};
pub use inside::Inside;
pub use pod::{Container, Options, Pod};
pub use remains::Remains;
pub use runtime::{Release, Runtime};
