//! The rule grammar: `[proto:]target[:ports]`.
//!
//! ```text
//! rule   = [ proto ":" ] target [ ":" ports ]
//! proto  = "tcp" | "udp" | "icmp"                        none: all three; with ports, TCP and UDP
//! target = v4 [ "/" len ] | v6 [ "/" len ] | "[" v6 [ "/" len ] "]" | [ "*." ] name
//! name   = label 1*( "." label ) [ "." ]                 of a-z, 0-9, '-'; see [`crate::pattern`]
//! ports  = range *( "," range )                          IPv6 needs the brackets when ports follow
//! range  = port [ "-" port ]                             1 to 65535
//! ```
//!
//! An address has one spelling per family here. `0x7f.1`, `0177.0.0.1`, `2130706433` and `::ffff:127.0.0.1` all mean
//! 127.0.0.1 to some program and something else to another; a policy must not depend on who reads it.

mod error;
mod ports;
mod target;

use std::fmt;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{NamePattern, Pin, PortRange, Proto};
use error::shown;
pub use error::{Cause, RuleError};

/// Longest text of a rule, in bytes.
pub const MAX_TEXT: usize = 1024;

/// Most port ranges in one rule.
pub const MAX_PORTS: usize = 64;

/// Most port ranges in one rule by name: each is a line of the pin.
pub const MAX_NAME_PORTS: usize = Pin::MAX_LINES;

/// A rule as a person writes it; whether it allows or denies, and which way, is said elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSpec {
    /// Which protocol.
    pub proto: Proto,
    /// Whom it names.
    pub target: Target,
    /// Sorted, disjoint, not adjacent; empty means every port.
    pub ports: Vec<PortRange>,
    /// As it was written.
    pub text: String,
}

/// Whom a rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A network without host bits, or one address.
    Net(IpNet),
    /// Whatever addresses these names have.
    Name(NamePattern),
}

/// The addresses that a rule is about: all of `net`, or those of them that a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    pub(crate) name: Option<NamePattern>,
    pub(crate) net: IpNet,
}

// === impl RuleSpec ===

impl RuleSpec {
    /// A rule made from its parts, with the text that [`parse_rule`] reads the same from.
    pub fn new(proto: Proto, target: impl Into<Target>, ports: Vec<PortRange>) -> Self {
        let mut spec = Self { proto, target: target.into(), ports, text: String::new() };
        spec.text = spec.to_string();
        spec
    }

    /// Whether it names its target by DNS.
    pub fn is_by_name(&self) -> bool {
        matches!(self.target, Target::Name(_))
    }

    /// One for a network; for a name one of each address family.
    pub(crate) fn scopes(&self) -> Vec<Scope> {
        match &self.target {
            Target::Net(net) => vec![Scope { name: None, net: net.trunc() }],
            Target::Name(name) => {
                everywhere().into_iter().map(|net| Scope { name: Some(name.clone()), net }).collect()
            }
        }
    }
}

// === impl Target ===

impl Target {
    /// As it stands before `ports`.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>, ports: &[PortRange]) -> fmt::Result {
        match self {
            Self::Net(IpNet::V6(net)) if !ports.is_empty() => write!(f, "[{net}]"),
            Self::Net(net) => write!(f, "{net}"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

impl From<IpNet> for Target {
    fn from(net: IpNet) -> Self {
        Self::Net(net)
    }
}

/// Every address there is.
pub(crate) fn everywhere() -> [IpNet; 2] {
    [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]
}

/// Reads one rule.
///
/// # Errors
/// When the text is not a rule. The message begins with `invalid egress CIDR`, names the text, and says what to write.
pub fn parse_rule(text: &str) -> Result<RuleSpec, RuleError> {
    parse(text).map_err(|cause| RuleError::new("egress CIDR", text, cause))
}

fn parse(text: &str) -> Result<RuleSpec, Cause> {
    let (proto, rest) = split_proto(text)?;
    if text.contains(['{', '}']) {
        return Err(Cause::PeersInFlag);
    }
    let (target, ports) = parse_target(proto, rest)?;
    Ok(RuleSpec { proto, target, ports, text: text.to_owned() })
}

/// Reads what stands behind the protocol when it names a network or a name.
pub(crate) fn parse_target(proto: Proto, rest: &str) -> Result<(Target, Vec<PortRange>), Cause> {
    let (target, ports) = target::split(rest)?;
    let (target, ports) = (target::parse(target)?, parse_ports(proto, ports)?);
    if matches!(target, Target::Name(_)) && ports.len() > MAX_NAME_PORTS {
        return Err(Cause::TooManyNamePorts);
    }
    Ok((target, ports))
}

/// Reads the ports of a rule of `proto`.
pub(crate) fn parse_ports(proto: Proto, ports: Option<&str>) -> Result<Vec<PortRange>, Cause> {
    match ports {
        None => Ok(Vec::new()),
        Some(_) if proto == Proto::Icmp => Err(Cause::IcmpPorts),
        Some(ports) => ports::parse(ports),
    }
}

/// Refuses what no rule can be, and takes the protocol off. No protocol's name is the beginning of an address, so this
/// cannot eat a part of one.
pub(crate) fn split_proto(text: &str) -> Result<(Proto, &str), Cause> {
    if text.len() > MAX_TEXT {
        return Err(Cause::TooLong);
    }
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(if odd.is_ascii() { Cause::Character(odd) } else { Cause::NotAscii(odd) });
    }
    let Some((head, rest)) = text.split_once(':') else { return Ok((Proto::Any, text)) };
    match head {
        "tcp" => Ok((Proto::Tcp, rest)),
        "udp" => Ok((Proto::Udp, rest)),
        "icmp" => Ok((Proto::Icmp, rest)),
        _ if target::follows_unknown_proto(head, rest) => Err(Cause::Proto(shown(head))),
        _ => Ok((Proto::Any, text)),
    }
}

/// The shortest text that means the same.
impl fmt::Display for RuleSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.proto, &self.ports, |f| self.target.write(f, &self.ports))
    }
}

/// Writes a rule around its target.
pub(crate) fn write(
    f: &mut fmt::Formatter<'_>,
    proto: Proto,
    ports: &[PortRange],
    target: impl FnOnce(&mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    f.write_str(match proto {
        Proto::Any => "",
        Proto::Tcp => "tcp:",
        Proto::Udp => "udp:",
        Proto::Icmp => "icmp:",
    })?;
    target(f)?;
    for (i, range) in ports.iter().enumerate() {
        write!(f, "{}{range}", if i == 0 { ':' } else { ',' })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
