//! The policy model: what a rule is, what a policy decides, and the flat form that enforcers load.
//!
//! ```text
//! "tcp:10.0.0.0/8:443" ─ parse_rule ─► RuleSpec ─► Policy ─ compile ─► Table ─► enforcers
//!                                                    └──── evaluate: what every enforcer must agree with
//! ```
//!
//! In order of precedence, in either direction:
//!
//! 1. A packet whose protocol no rule can name is denied.
//! 2. A deny rule that fits wins, however long the prefix of any allow rule is.
//! 3. The [`builtin`] rules deny cloud metadata, link-local, multicast and broadcast addresses, unless an allow
//!    rule that fits names exactly that one address.
//! 4. An allow rule that fits allows.
//! 5. Everything else is denied.
//!
//! Where several rules of the deciding kind fit, the one with the lowest id is reported.
//!
//! Pure: no I/O, no clock. Every enforcer (eBPF, the user-space filter, nftables) is tested against [`evaluate()`].

#![forbid(unsafe_code)]

pub mod builtin;
mod compile;
pub mod evaluate;
pub mod grammar;
pub mod model;
pub mod policy;
pub mod table;

pub use evaluate::{Packet, Verdict, evaluate};
pub use grammar::{RuleError, RuleSpec, Target, parse_rule};
pub use model::{Action, Direction, PortRange, Proto, Reason, Rule, RuleId};
pub use policy::Policy;
pub use table::{Entry, Match, Table};
