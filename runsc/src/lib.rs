//! Phase two: one agent under gVisor, inside the network namespace that phase one made and policed.
//!
//! [`Runsc::find`] picks the runtime, [`validate`] checks what the user asked for, [`Runsc::create`] writes the OCI
//! bundle and has `runsc` make the sandbox while phase one goes on, and [`Created::start`] begins the agent in it. That takes a
//! [`lattice_bootstrap::Ready`], which only phase one can make: no agent runs without a live policy.
//!
//! Who ends when: the agent's processes are `lattice` → `runsc run` → sentry and gofer, and each of them asks the
//! kernel for SIGKILL when its parent ends. So `kill -9` of any of them ends those below it. What files and cgroups
//! are then left is removed by the next [`Runsc::create`] of that name, or by [`sweep`].

mod agent;
mod bundle;
mod cgroup;
pub mod cgroup2;
mod error;
mod remains;
mod runsc;
mod spec;

pub use agent::{Agent, AgentStdio, Created, Signaller, Timings};
pub use error::RunscError;
pub use remains::{end_process, kill_sandbox, sweep};
pub use runsc::{Cgroups, Globals, Network, Platform, Runsc, Target, Verb, answer};
pub use spec::{AgentSpec, Writable, validate};
