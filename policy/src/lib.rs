//! The policy model: what a rule is, what a policy decides, and the flat form that enforcers load.
//!
//! Pure: no I/O, no clock. Every enforcer (eBPF, the user-space filter, nftables) is tested against [`evaluate`].

#![forbid(unsafe_code)]

pub mod model;

pub use model::{Action, Direction, PortRange, Proto, Reason, Rule, RuleId};
