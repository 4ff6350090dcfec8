//! A rule of a named policy: the grammar of flags, and `{selector}` for the addresses of the peers that fit.

use std::{fmt, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    PortRange, Proto, RuleError, Selector, Target,
    builtin::is_exact,
    grammar::{self, Cause},
};

/// One rule of a named policy, as text: `[proto:]target[:ports]`, where the target may be `{selector}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamedRule {
    pub(crate) proto: Proto,
    pub(crate) target: NamedTarget,
    /// Sorted, disjoint, not adjacent; empty means every port.
    pub(crate) ports: Vec<PortRange>,
}

/// Whom it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamedTarget {
    /// A network, one address or a name.
    Plain(Target),
    /// The overlay addresses of the workspace's peers that fit.
    Peers(Selector),
}

// === impl NamedRule ===

impl NamedRule {
    /// Whether it names its target by DNS.
    pub(crate) fn is_by_name(&self) -> bool {
        matches!(self.target, NamedTarget::Plain(Target::Name(_)))
    }

    /// Which peers it names, where it names peers.
    pub fn peers(&self) -> Option<&Selector> {
        if let NamedTarget::Peers(selector) = &self.target { Some(selector) } else { None }
    }

    /// The network that it names, where it names one.
    pub fn net(&self) -> Option<IpNet> {
        if let NamedTarget::Plain(Target::Net(net)) = &self.target { Some(*net) } else { None }
    }

    /// Whether it names single addresses, or one name, and ports, as the isolated preset asks for.
    pub(crate) fn is_narrow(&self) -> bool {
        let exact = match &self.target {
            NamedTarget::Plain(Target::Net(net)) => is_exact(net),
            NamedTarget::Plain(Target::Name(name)) => !name.is_wildcard(),
            NamedTarget::Peers(_) => true,
        };
        exact && !self.ports.is_empty()
    }
}

impl FromStr for NamedRule {
    type Err = RuleError;
    fn from_str(text: &str) -> Result<Self, RuleError> {
        parse(text).map_err(|cause| RuleError::new("rule", text, cause))
    }
}

fn parse(text: &str) -> Result<NamedRule, Cause> {
    let (proto, rest) = grammar::split_proto(text)?;
    let Some(inner) = rest.strip_prefix('{') else {
        if rest.contains(['{', '}']) {
            return Err(Cause::Braces);
        }
        let (target, ports) = grammar::parse_target(proto, rest)?;
        return Ok(NamedRule { proto, target: NamedTarget::Plain(target), ports });
    };
    let (selector, behind) = inner.split_once('}').ok_or(Cause::Braces)?;
    let ports = match behind.strip_prefix(':') {
        None if behind.is_empty() => None,
        None => return Err(Cause::Braces),
        ports => ports,
    };
    let target = NamedTarget::Peers(selector.parse()?);
    Ok(NamedRule { proto, target, ports: grammar::parse_ports(proto, ports)? })
}

impl TryFrom<String> for NamedRule {
    type Error = RuleError;
    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

impl From<NamedRule> for String {
    fn from(rule: NamedRule) -> Self {
        rule.to_string()
    }
}

/// The shortest text that means the same.
impl fmt::Display for NamedRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        grammar::write(f, self.proto, &self.ports, |f| match &self.target {
            NamedTarget::Peers(selector) => write!(f, "{{{selector}}}"),
            NamedTarget::Plain(target) => target.write(f, &self.ports),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts() {
        for (text, canonical) in [
            ("tcp:{role=tool}:8080", "tcp:{role=tool}:8080"),
            ("{name=db}", "{name=db}"),
            ("{}", "{}"),
            ("icmp:{role!=db,!old}", "icmp:{role!=db,!old}"),
            ("{a/b==c}:80,81", "{a/b=c}:80-81"),
            ("tcp:10.0.0.1:443", "tcp:10.0.0.1/32:443"),
            ("udp:[fd00::/8]:53", "udp:[fd00::/8]:53"),
            ("API.example.com.:443", "api.example.com:443"),
            ("tcp:*.example.com:8443,443", "tcp:*.example.com:443,8443"),
            ("icmp:api.example.com", "icmp:api.example.com"),
        ] {
            let rule: NamedRule = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(rule.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(rule));
        }
    }

    #[test]
    fn refuses() {
        for (text, says) in [
            ("tcp:{role=tool", "braces"),
            ("tcp:role=tool}", "braces"),
            ("{a}b", "braces"),
            ("10.0.0.1{a}", "braces"),
            ("{a,}", "requirement is empty"),
            ("{a= b}", "character ' '"),
            ("{a}:", "not a port"),
            ("icmp:{a}:80", "ICMP has no ports"),
            ("tool.lattice:443", "{name=…}"),
            ("*.com:443", "at least two labels"),
            ("http:{a.b=c}:80", "unknown protocol"),
        ] {
            let error = text.parse::<NamedRule>().unwrap_err().to_string();
            assert!(error.starts_with("invalid rule ") && error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn the_flags_know_no_selectors() {
        for text in ["{}", "tcp:{role=tool}:8080", "10.0.0.1}"] {
            let error = crate::parse_rule(text).unwrap_err().to_string();
            assert!(error.contains("only the control plane's policies can"), "{error}");
        }
    }

    #[test]
    fn narrow_is_one_address_and_ports() {
        let narrow = |text: &str| text.parse::<NamedRule>().unwrap().is_narrow();
        assert!(narrow("tcp:10.0.0.1:443") && narrow("{role=tool}:80") && narrow("[::1]:80"));
        assert!(narrow("api.example.com:443") && !narrow("api.example.com") && !narrow("*.example.com:443"));
        assert!(
            !narrow("10.0.0.0/31:443") && !narrow("10.0.0.1") && !narrow("{role=tool}") && !narrow("icmp:{}")
        );
    }
}
