//! `containerd-shim-lattice-v1`: a containerd shim that runs pods under gVisor, in a network that phase one made and
//! policed.
//!
//! ```text
//! containerd ── start ──► launch ──► serve: one process per pod
//!            ── ttrpc ──► task ──► runsc (create, start, exec, …)        exits ──► reaper ──► task ──► events ──► containerd
//!                          ├─► spec: what of the OCI spec is changed before runsc sees it
//!                          ├─► io: FIFOs, files, loggers, terminals
//!                          ├─► cgroup: statistics, limits, out-of-memory
//!                          └─► network: phase one in the pod's namespace
//!            ── delete ──► delete: cleans up after a shim that was killed
//! ```
//!
//! The contract is containerd's `core/runtime/v2/README.md`. One binary serves containerd 1.6 to 2.x.

pub mod annotations;
pub mod bundle;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod delete;
pub mod error;
pub mod events;
pub mod info;
pub mod io;
pub mod launch;
pub mod logging;
pub mod mounts;
pub mod network;
pub mod place;
pub mod procfs;
pub mod reaper;
pub mod reply;
pub mod runsc;
pub mod serve;
pub mod socket;
pub mod spec;
pub mod task;
