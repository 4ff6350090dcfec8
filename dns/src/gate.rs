//! Who decides: the policy, as the resolver sees it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_proto::rr::RecordType;

/// The policy. Its methods are called from the resolver's one thread, which waits for them: they must not block.
pub trait Gate: Send + Sync {
    /// Whether `name` may be asked of a nameserver. It is lower case, has at least two labels of `a-z 0-9 - _`, and no dot
    /// at its end. Asked before anything leaves the host, and again when the answer is one that is remembered.
    fn query(&self, name: &str) -> Verdict;

    /// Pins what the agent may use of `answers`, before it is told. `ttl` is the nameserver's. Called for every answer, also
    /// a remembered one, so that pins live on; names of the overlay need none. Addresses that are not in `answers` are not told.
    fn answer(&self, name: &str, answers: &[IpAddr], ttl: Duration) -> Admitted;

    /// A query was refused. For the record: the same name and reason at most once in
    /// [`REFUSAL_QUIET`](crate::limits::REFUSAL_QUIET), and no more than [`MAX_REFUSALS`](crate::limits::MAX_REFUSALS) in all.
    fn refused(&self, refusal: &Refusal);

    /// One more query was refused than are told: for the count of what is not on record.
    fn untold(&self) {}
}

/// What the policy says about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be asked.
    Allowed {
        /// The rule that says so.
        rule: u32,
        /// Whether that rule is for every name below a domain: such names can carry data to its owner, and are limited.
        wildcard: bool,
    },
    /// A rule denies it.
    Denied {
        /// The rule.
        rule: u32,
    },
    /// No rule knows it.
    Unknown,
    /// No rule knows it, and it is below a domain of the agent's search list (resolv.conf(5)). The agent is told that there
    /// is no such name: musl ends its search at any other refusal.
    Searched,
}

/// What the agent may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The addresses that are now pinned, or open without.
    pub addresses: Vec<IpAddr>,
    /// For how long, in whole seconds; the rest is cut off.
    pub ttl: Duration,
}

/// A query that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The name: lower case, no dot at its end, what is not printable ASCII escaped (RFC 4343 §2.1). Empty when the
    /// query's operation is none that has a name.
    pub name: String,
    /// The type that was asked for (`TXT`, `TYPE65280`); empty likewise.
    pub qtype: String,
    /// Who asked.
    pub client: SocketAddr,
    /// How.
    pub transport: Transport,
    /// Why it was refused.
    pub why: Why,
    /// The rule that knows the name, when one does.
    pub rule: Option<u32>,
}

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// RFC 1035 §4.2.1.
    Udp,
    /// RFC 7766; or by an [`Asker`](crate::Asker), for a client whose stream a proxy serves.
    Tcp,
}

/// Why a query was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// No rule knows the name.
    Unknown,
    /// No rule knows the name, which is below a domain of the search list: answered with NXDOMAIN.
    Searched,
    /// A rule denies the name.
    Denied,
    /// The type is none of A, AAAA, HTTPS, SVCB and PTR. Most others carry data.
    Type,
    /// The class is not IN.
    Class,
    /// The operation is not QUERY.
    Opcode,
    /// The name has other characters than host names have: `a-z 0-9 - _`.
    Name,
    /// The name has one label only.
    SingleLabel,
    /// The name of an address that is neither private nor of the overlay.
    Reverse,
    /// None of the addresses that the name stands for is admitted.
    Answer,
    /// The name is too long for one under a wildcard.
    WildcardLength,
    /// Too many names under the wildcard.
    WildcardNames,
    /// The name is asked too often.
    NameRate,
    /// Too many names are asked.
    TotalRate,
    /// Newer queries took its place.
    Outstanding,
    /// A TCP connection too many. Counted only.
    Connections,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Unknown,
        Self::Searched,
        Self::Denied,
        Self::Type,
        Self::Class,
        Self::Opcode,
        Self::Name,
        Self::SingleLabel,
        Self::Reverse,
        Self::Answer,
        Self::WildcardLength,
        Self::WildcardNames,
        Self::NameRate,
        Self::TotalRate,
        Self::Outstanding,
        Self::Connections,
    ];

    /// For records and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Searched => "searched",
            Self::Denied => "denied",
            Self::Type => "type",
            Self::Class => "class",
            Self::Opcode => "opcode",
            Self::Name => "name",
            Self::SingleLabel => "single-label",
            Self::Reverse => "reverse",
            Self::Answer => "answer",
            Self::WildcardLength => "wildcard-length",
            Self::WildcardNames => "wildcard-names",
            Self::NameRate => "name-rate",
            Self::TotalRate => "total-rate",
            Self::Outstanding => "outstanding",
            Self::Connections => "connections",
        }
    }
}

/// The type as people write it.
pub(crate) fn type_text(kind: RecordType) -> String {
    match kind {
        RecordType::Unknown(number) => format!("TYPE{number}"),
        known => known.to_string(),
    }
}
