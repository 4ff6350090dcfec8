//! Enforcers: whatever puts a policy in force on the links of an agent's namespace. All take the same table, and tell
//! the same verdicts.
//!
//! | enforcer | where | takes |
//! |---|---|---|
//! | `ebpf` | each link's hook, below everything | `CAP_BPF` and `CAP_PERFMON` in the initial user namespace |
//! | `nftables` | the namespace's IP layer | `CAP_NET_ADMIN`, the program `nft` |
//! | `userspace` | the user-space WireGuard device, for the only link | nothing more |

mod ebpf;
pub(crate) mod nftables;
pub(crate) mod userspace;

use std::{
    fmt,
    net::IpAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lattice_audit::Class;
use lattice_ebpf::AttachMode;
use lattice_overlay::{Netns, UserFilter};
use lattice_policy::{Counter, Flow, Overlay, Pin, Policy, RuleId, RuleSpec, Table};

use crate::{Failure, Kind, destinations, steps::Undo};

/// Which enforcer to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EnforcerChoice {
    /// The first of the others that works here.
    #[default]
    Auto,
    /// A TC program on every link.
    Ebpf,
    /// A table of nftables in the agent's namespace.
    Nftables,
    /// The user-space WireGuard device judges its packets itself.
    Userspace,
}

/// What a choice came to on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enforcer {
    Ebpf,
    Nftables,
    Userspace,
}

/// Puts policies in force.
pub(crate) trait Enforce: Send {
    /// Puts `policy`, of which `table` is the flat form, in force at once and as a whole, with the pins that hold under it.
    /// On failure the old one stays.
    fn apply(&mut self, policy: &Policy, table: &Table, pins: &[Pin]) -> Result<(), Failure>;

    /// Adds pins to the policy in force, or replaces those of the same addresses.
    fn pin(&mut self, pins: &[Pin]) -> Result<(), Failure>;

    /// Polices a link of the agent's namespace, before it is up.
    fn police(&mut self, link: &str) -> Result<(), Failure>;

    /// Judges the calls of a cgroup of version 2, and of all below it, as well. Says what then enforces the policy, in
    /// words.
    fn police_calls(&mut self, _cgroup: &Path) -> Result<String, Failure> {
        Err(Failure::new(Kind::Kernel, "only the eBPF enforcer judges calls"))
    }

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

/// A link to be policed.
#[derive(Debug, Clone)]
pub(crate) struct PolicedLink {
    pub(crate) name: String,
    /// The sandbox's addresses on it.
    pub(crate) own: Vec<IpAddr>,
}

/// Where an enforcer is to be.
pub(crate) struct Place {
    /// The agent's namespace.
    pub(crate) netns: Arc<Netns>,
    /// All of its links but loopback, still down.
    pub(crate) links: Vec<PolicedLink>,
    /// The overlay and its link, where other links lead out of the namespace and nothing but us guards them.
    pub(crate) confined: Option<(Overlay, &'static str)>,
    /// The filter of the device, if it was asked for one.
    pub(crate) filter: Option<UserFilter>,
}

/// An enforcer that is being made ready on a thread of its own. Dropping it waits for that, and undoes it.
pub(crate) enum Preparing {
    Ebpf(ebpf::Preparing),
    Nftables,
    Userspace,
}

/// An enforcer at work. It denies everything until a policy is applied.
pub(crate) struct Started {
    pub(crate) enforcer: Shared,
    pub(crate) verdicts: Box<dyn Verdicts>,
    pub(crate) class: Class,
    /// Its name and class in words, for status and records.
    pub(crate) words: String,
    /// Takes its policy away, after the last verdict is written.
    pub(crate) undo: Undo,
}

impl Enforcer {
    /// Refuses rules that it could not enforce, as far as the overlay need not be known for it.
    pub(crate) fn permits(self, rules: &[RuleSpec]) -> Result<(), Failure> {
        match destinations::in_no_overlay(rules) {
            Some(rule) if self == Self::Userspace => Err(userspace::outside(rule)),
            _ => Ok(()),
        }
    }

    /// Begins with all that takes no link. `pins` is where a bpf file system may be mounted, `attach` how eBPF is attached.
    pub(crate) fn prepare(self, pins: PathBuf, attach: AttachMode) -> Result<Preparing, Failure> {
        Ok(match self {
            Self::Ebpf => Preparing::Ebpf(ebpf::Preparing::begin(pins, attach)?),
            Self::Nftables => Preparing::Nftables,
            Self::Userspace => Preparing::Userspace,
        })
    }
}

impl Preparing {
    /// Starts it, and polices every link.
    pub(crate) fn start(self, place: Place) -> Result<Started, Failure> {
        match self {
            Self::Ebpf(preparing) => preparing.start(place),
            Self::Nftables => nftables::start(place),
            Self::Userspace => userspace::start(place),
        }
    }
}

/// The filter of a device that takes no link at all, for an agent that must choose to use it.
pub(crate) fn cooperative(filter: UserFilter) -> Result<Started, Failure> {
    userspace::on(filter, Class::Cooperative, "userspace (cooperative)")
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
    choose(choice).map(|(_, words)| words)
}

/// Finds the enforcer. Only what the kernel refuses is fallen back from, and it is said why.
pub(crate) fn choose(choice: EnforcerChoice) -> Result<(Enforcer, String), Failure> {
    let ebpf = || ebpf::probe().map(|words| (Enforcer::Ebpf, words));
    let nftables = || nftables::probe().map(|()| (Enforcer::Nftables, "nftables".to_owned()));
    let userspace = || (Enforcer::Userspace, "the user-space WireGuard device".to_owned());
    match choice {
        EnforcerChoice::Ebpf => ebpf(),
        EnforcerChoice::Nftables => nftables(),
        EnforcerChoice::Userspace => Ok(userspace()),
        EnforcerChoice::Auto => ebpf().or_else(|no_ebpf| {
            let because = |(enforcer, words)| (enforcer, format!("{words}, because {no_ebpf}"));
            match nftables() {
                Ok(found) => Ok(because(found)),
                Err(no_nft) => {
                    let (enforcer, words) = userspace();
                    Ok((enforcer, format!("{words}, because {no_ebpf}, and {no_nft}")))
                }
            }
        }),
    }
}

impl FromStr for EnforcerChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Auto, Self::Ebpf, Self::Nftables, Self::Userspace]
            .into_iter()
            .find(|choice| choice.to_string() == text)
            .ok_or_else(|| "use auto, ebpf, nftables or userspace".into())
    }
}

impl fmt::Display for EnforcerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Ebpf => "ebpf",
            Self::Nftables => "nftables",
            Self::Userspace => "userspace",
        })
    }
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::new(Kind::Kernel, crate::failure::chain(error))
}
