//! Why an agent or a peer is refused, in the proxy's words. Rules and reasons are those of the flow records.

use std::io;

use lattice_dns::{NotResolved, Why};
use lattice_overlay::stack::{ConnectError, Denied};
use lattice_policy::{Reason, RuleId};
use lattice_proxy::{Because, Refusal};

use crate::generations::Generations;

/// No connection, for a reason of the overlay's.
pub(super) fn of_overlay(error: ConnectError, rules: &Generations) -> Refusal {
    match error {
        ConnectError::Denied(denied) => of_policy(denied, rules),
        ConnectError::NoPeer => Refusal::NoRoute,
        ConnectError::Refused => Refusal::ConnectionRefused,
        ConnectError::Unreachable => Refusal::Unreachable,
        ConnectError::TimedOut => Refusal::TimedOut,
        ConnectError::Busy => Refusal::Busy,
        ConnectError::Stopped => Refusal::Failed("the sandbox's device has ended".into()),
    }
}

/// An address that the policy denies.
pub(super) fn of_policy(denied: Denied, rules: &Generations) -> Refusal {
    let Denied { decision, generation } = denied;
    Refusal::DeniedAddress(because(decision.reason, rules.rule_text(generation, decision.rule)))
}

/// A name without an address.
pub(super) fn of_name(error: NotResolved, rules: &Generations) -> Refusal {
    match error {
        NotResolved::Refused { why: Why::Answer, .. } => {
            Refusal::DeniedAddress(because(Reason::Answer, None))
        }
        NotResolved::Refused { why, rule } => {
            let rule = match why {
                Why::Unknown | Why::Searched | Why::Denied => {
                    rule.and_then(|rule| rules.newest(RuleId(rule)))
                }
                why => Some(format!("resolver: {}", why.as_str())),
            };
            Refusal::DeniedName(because(Reason::Name, rule))
        }
        NotResolved::NoName => Refusal::NotFound,
        NotResolved::Failed => Refusal::Failed("no nameserver answered".into()),
    }
}

/// No connection by a socket of this host.
pub(super) fn of_host(error: &io::Error) -> Refusal {
    use io::ErrorKind as E;
    match error.kind() {
        E::ConnectionRefused => Refusal::ConnectionRefused,
        E::NetworkUnreachable => Refusal::NoRoute,
        E::HostUnreachable | E::NetworkDown => Refusal::Unreachable,
        E::TimedOut => Refusal::TimedOut,
        E::OutOfMemory | E::ResourceBusy | E::AddrInUse | E::AddrNotAvailable => Refusal::Busy,
        _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS)) => {
            Refusal::Busy
        }
        _ => Refusal::Failed(error.to_string()),
    }
}

/// What decided, in the words of the flow record.
pub(super) fn because(reason: Reason, rule: Option<String>) -> Because {
    let word = serde_json::to_value(reason).ok();
    let reason = word.as_ref().and_then(|word| word.as_str()).unwrap_or("denied").to_owned();
    Because { rule, reason }
}

#[cfg(test)]
mod tests {
    use lattice_filter::Decision;
    use lattice_policy::{Action, Policy, builtin, parse_rule};

    use super::*;

    fn rules() -> Generations {
        let rules = Generations::default();
        for generation in 1..=2 {
            let deny = parse_rule(&format!("tcp:10.42.0.{generation}")).unwrap();
            rules.add(Policy::new(generation).egress(Action::Deny, deny).into());
        }
        rules
    }

    #[test]
    fn a_denial_names_the_rule_of_the_generation_that_decided() {
        let denied = |reason, rule, generation| {
            let decision = Decision { action: Action::Deny, reason, rule };
            of_overlay(ConnectError::Denied(Denied { decision, generation }), &rules()).to_string()
        };
        let text = denied(Reason::RuleDeny, RuleId(1), 1);
        assert_eq!(text, "the policy does not permit this address (rule-deny, rule \"tcp:10.42.0.1\")");
        assert!(denied(Reason::RuleDeny, RuleId(1), 2).contains("tcp:10.42.0.2"));
        assert!(denied(Reason::DefaultDeny, RuleId::NONE, 2).ends_with("(default-deny)"));
        assert!(denied(Reason::RuleDeny, builtin::FIRST, 2).contains("built-in: cloud metadata"));
    }

    #[test]
    fn names_are_refused_as_their_record_says() {
        let refused = |why, rule| of_name(NotResolved::Refused { why, rule }, &rules());
        let name = |rule: Option<&str>| {
            Refusal::DeniedName(Because { rule: rule.map(str::to_owned), reason: "name".into() })
        };
        assert_eq!(refused(Why::Unknown, None), name(None));
        assert_eq!(refused(Why::Denied, Some(1)), name(Some("tcp:10.42.0.2")));
        assert_eq!(refused(Why::NameRate, Some(1)), name(Some("resolver: name-rate")));
        let address = Because { rule: None, reason: "answer".into() };
        assert_eq!(refused(Why::Answer, Some(1)), Refusal::DeniedAddress(address));
        assert_eq!(of_name(NotResolved::NoName, &rules()), Refusal::NotFound);
    }

    #[test]
    fn what_the_kernel_says_has_its_own_refusal() {
        for (errno, refusal) in [
            (libc::ECONNREFUSED, Refusal::ConnectionRefused),
            (libc::ENETUNREACH, Refusal::NoRoute),
            (libc::EHOSTUNREACH, Refusal::Unreachable),
            (libc::ETIMEDOUT, Refusal::TimedOut),
            (libc::EMFILE, Refusal::Busy),
            (libc::EADDRNOTAVAIL, Refusal::Busy),
        ] {
            assert_eq!(of_host(&io::Error::from_raw_os_error(errno)), refusal);
        }
        assert!(matches!(of_host(&io::Error::from_raw_os_error(libc::EPERM)), Refusal::Failed(_)));
    }
}
