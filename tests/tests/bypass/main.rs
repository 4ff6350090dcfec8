//! Attempts to get past the policy, each with its native twin: the same program, run beside the sandbox, gets through. A
//! canary on the other side says what arrived. Every enforcer is held to the same attempts.

mod cases;
mod exhaustion;
mod flows;
mod host;
mod packets;
mod surface;
mod world;

/// What enforces the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Enforcer {
    Ebpf,
    Nftables,
    Userspace,
}

impl Enforcer {
    const ALL: [Self; 3] = [Self::Ebpf, Self::Nftables, Self::Userspace];

    fn flag(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Nftables => "nftables",
            Self::Userspace => "userspace",
        }
    }

    /// `rules`, where there is a way out of the overlay. The user-space filter has none, and refuses rules that take one.
    fn rules<'a>(self, rules: &'a [&'a str]) -> &'a [&'a str] {
        if self == Self::Userspace { &["10.42.0.0/16"] } else { rules }
    }
}
