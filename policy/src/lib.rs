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
//! 5. In egress, an allow rule by name allows when its remote address is pinned for it and the rest of it fits.
//! 6. Everything else is denied.
//!
//! Where several rules of the deciding kind fit, the one with the lowest id is reported.
//!
//! Rules by name (`api.example.com`, `*.example.com`) are enforced in two places. The sandbox's resolver asks [`Names`] and
//! forwards only names that an allow rule and no deny rule means: a deny rule by name is for it alone and fits no packet. Each
//! address that it tells the agent is first pinned: a [`Pin`] holds for a while, for this address, what the rules by that
//! name allow. A table knows no names; an enforcer asks its pins where the table says [`Reason::DefaultDeny`]. So no name
//! opens what an address rule or a built-in one denies, and no answer opens private, loopback or peers' addresses: what those
//! may be reached for is said by address.
//!
//! What the control plane says about a peer comes in [`layer`]s, made of [`named`] policies and a [`preset`]. [`narrow`] puts
//! them and the sandbox's own flags together into the one policy that its enforcer loads.
//!
//! What is said of a peer's IPv4 address holds for its IPv6 address too: see [`overlay`].
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
pub mod names;
pub mod narrow;
pub mod overlay;
pub mod pattern;
mod pin;
pub mod policy;
pub mod preset;
pub mod selector;
pub mod table;

pub use evaluate::{Packet, Verdict, evaluate, evaluate_pinned};
pub use explain::{NamedFlow, Opinion, explain, explain_name};
pub use flow::{Counter, Flow};
pub use grammar::{RuleError, RuleSpec, Target, parse_rule};
pub use label::{LabelError, Labels};
pub use layer::{Compiler, Layer, LayerRule, Member, MemberKind};
pub use model::{Action, Direction, PortRange, Proto, Reason, Rule, RuleId};
pub use named::{NamedPolicy, NamedRule, PolicyError, PolicyRule};
pub use names::{Learned, NameVerdict, Names, PinBook, PrivateNames, PrivateNamesError, Refused};
pub use narrow::{Local, NarrowError, effective, effective_on};
pub use overlay::{NoPrefix, Overlay};
pub use pattern::{NameError, NamePattern};
pub use pin::Pin;
pub use policy::Policy;
pub use preset::{Preset, UnknownPreset};
pub use selector::{Selector, SelectorError};
pub use table::{Entry, Match, Table};
