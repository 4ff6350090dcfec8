//! Enforcers: whatever puts a policy in force on the links of an agent's namespace. All take the same table, and tell
//! the same verdicts.

mod ebpf;

use std::{
    fmt,
    os::fd::AsFd,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lattice_audit::Class;
use lattice_policy::{Counter, Flow, Pin, Policy, RuleId};

use crate::{Failure, Kind, steps::Undo};
pub(crate) use ebpf::Ebpf;

/// Which enforcer to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EnforcerChoice {
    /// The first of the others that works here.
    #[default]
    Auto,
    /// A TC program on every link.
    Ebpf,
}

/// Puts policies in force.
pub(crate) trait Enforce: Send {
    /// Puts `policy` in force at once and as a whole, with the pins that hold under it. On failure the old one stays.
    fn apply(&mut self, policy: &Policy, pins: &[Pin]) -> Result<(), Failure>;

    /// Adds pins to the policy in force, or replaces those of the same addresses.
    fn pin(&mut self, pins: &[Pin]) -> Result<(), Failure>;

    /// Polices a link of the agent's namespace, before it is up.
    fn police(&mut self, link: &str) -> Result<(), Failure>;

    /// How many verdicts were enforced but could not be told.
    fn lost(&self) -> Result<u64, Failure>;

    /// What each rule of the policy in force decided about; [`RuleId::NONE`] is the default.
    fn counters(&self) -> Result<Vec<(RuleId, Counter)>, Failure>;
}

/// An enforcer that several threads use.
pub(crate) type Shared = Arc<Mutex<dyn Enforce>>;

/// The verdicts of an enforcer. Its descriptor becomes readable when one arrives.
pub(crate) trait Verdicts: AsFd + Send {
    /// Hands waiting verdicts to `f`, oldest first. True when more may wait: then drain again before waiting.
    fn drain(&mut self, f: &mut dyn FnMut(Flow)) -> bool;
}

/// An enforcer at work.
pub(crate) struct Started {
    pub(crate) enforcer: Shared,
    pub(crate) verdicts: Box<dyn Verdicts>,
    pub(crate) class: Class,
    /// Its name and class in words, for status and records.
    pub(crate) words: String,
    /// Takes its policy away, after the last verdict is written.
    pub(crate) undo: Undo,
}

/// Locks a shared enforcer.
pub(crate) fn lock(enforcer: &Mutex<dyn Enforce>) -> MutexGuard<'_, dyn Enforce + 'static> {
    enforcer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `choice` comes to on this host, in words.
///
/// # Errors
/// What is missing, and the remedy.
pub fn enforcement(choice: EnforcerChoice) -> Result<String, Failure> {
    match choice {
        EnforcerChoice::Auto | EnforcerChoice::Ebpf => ebpf::probe(),
    }
}

impl FromStr for EnforcerChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "ebpf" => Ok(Self::Ebpf),
            _ => Err("use auto or ebpf".into()),
        }
    }
}

impl fmt::Display for EnforcerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Ebpf => "ebpf",
        })
    }
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::new(Kind::Kernel, crate::failure::chain(error))
}
