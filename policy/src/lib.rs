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
//! What the control plane says about a peer comes in [`layer`]s, made of [`named`] policies and a [`preset`]. [`narrow`] puts
//! them and the sandbox's own flags together into the one policy that its enforcer loads.
//!
//! Pure: no I/O, no clock. Every enforcer (eBPF, the user-space filter, nftables) is tested against [`evaluate()`].

#![forbid(unsafe_code)]

pub mod builtin;
mod compile;
pub mod evaluate;
pub mod explain;
mod flow;
pub mod grammar;
pub mod label;
pub mod layer;
pub mod model;
pub mod named;
pub mod narrow;
mod pin;
pub mod policy;
pub mod preset;
pub mod selector;
pub mod table;

pub use evaluate::{Packet, Verdict, evaluate};
pub use explain::{Opinion, explain};
pub use flow::{Counter, Flow};
pub use grammar::{RuleError, RuleSpec, Target, parse_rule};
pub use label::{LabelError, Labels};
pub use layer::{Compiler, Layer, LayerRule, Member, MemberKind};
pub use model::{Action, Direction, PortRange, Proto, Reason, Rule, RuleId};
pub use named::{NamedPolicy, NamedRule, PolicyError, PolicyRule};
pub use narrow::{NarrowError, effective};
pub use pin::Pin;
pub use policy::Policy;
pub use preset::{Preset, UnknownPreset};
pub use selector::{Selector, SelectorError};
pub use table::{Entry, Match, Table};
