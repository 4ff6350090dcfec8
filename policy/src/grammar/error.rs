//! Why a text is not a rule.

use super::{MAX_NAME_PORTS, MAX_PORTS, MAX_TEXT};
use crate::{NameError, SelectorError};

/// How much of the text a message repeats, in characters.
const SHOWN: usize = 80;

/// A text that is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {text:?}: {cause}")]
pub struct RuleError {
    what: &'static str,
    text: String,
    cause: Cause,
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// Nothing where an address should be.
    #[error("there is no address; write for example 10.42.0.10/32:8080")]
    NoTarget,
    /// More than [`MAX_TEXT`] bytes.
    #[error("it is longer than {MAX_TEXT} bytes; split it into several rules")]
    TooLong,
    /// A space or control character.
    #[error("it contains the character {0:?}; write for example 10.42.0.10/32:8080, without spaces")]
    Character(char),
    /// Not ASCII.
    #[error(
        "it contains the character {0:?}; write ASCII only, and a name in other letters in punycode, for example \
         xn--bcher-kva.example"
    )]
    NotAscii(char),
    /// Something before the address that is not a protocol.
    #[error(
        "unknown protocol {0:?}; use tcp, udp or icmp (it stands for ICMPv6 too), for example tcp:10.0.0.0/8:443"
    )]
    Proto(String),
    /// An IPv4 address in another form than four decimal numbers.
    #[error(
        "{0:?} is not an IPv4 address: write four decimal numbers from 0 to 255 without leading zeros, \
         for example 10.42.0.10 (programs disagree about octal, hexadecimal and short forms)"
    )]
    V4(String),
    /// Not an IPv6 address.
    #[error(
        "{0:?} is not an IPv6 address; write for example 2001:db8::1, or [2001:db8::/32]:443 when ports follow"
    )]
    V6(String),
    /// `fe80::1%eth0`.
    #[error("{0:?} has a zone id, which means nothing to a policy; leave out '%' and what follows")]
    Zone(String),
    /// `::ffff:10.0.0.1`.
    #[error("{0:?} is IPv4 in the form of IPv6; write it as IPv4, for example 10.42.0.10/32")]
    Mapped(String),
    /// The brackets do not fit.
    #[error(
        "the brackets do not fit; write IPv6 with ports as [2001:db8::/32]:443, the prefix length inside"
    )]
    Brackets,
    /// Ports after an IPv6 address without brackets.
    #[error("IPv6 needs brackets when ports follow; write for example [2001:db8::/32]:443")]
    NeedsBrackets,
    /// More than one part behind the address.
    #[error(
        "there is more than one ':' behind the address; list ports with ',', for example 10.0.0.0/8:80,443"
    )]
    Colons,
    /// The prefix length is not a number or too big.
    #[error("the prefix length {len:?} is not a number from 0 to {max}; write for example {example}")]
    Prefix {
        /// What stands behind the slash.
        len: String,
        /// The longest of the family.
        max: u8,
        /// One that is right.
        example: &'static str,
    },
    /// Bits behind the prefix are set, so it is not clear what is meant.
    #[error(
        "{given} has bits set behind its prefix; write {network} for the whole network or {address} for the one address"
    )]
    HostBits {
        /// As written.
        given: String,
        /// The network.
        network: String,
        /// The address alone.
        address: String,
    },
    /// Not a DNS name that a rule can name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// `api.example.com/24`.
    #[error(
        "a DNS name has no prefix length; leave out '/' and what follows, for example api.example.com:443"
    )]
    NamePrefix,
    /// More than [`MAX_NAME_PORTS`] ranges with a name.
    #[error(
        "a rule by name lists at most {MAX_NAME_PORTS} ports or ranges; use ranges such as 8000-8100, or leave out ':' for \
         every port"
    )]
    TooManyNamePorts,
    /// `*` as an address.
    #[error("'*' is not an address; write 0.0.0.0/0 for all of IPv4 or ::/0 for all of IPv6")]
    Star,
    /// Ports on ICMP.
    #[error("ICMP has no ports; write for example icmp:10.0.0.0/8")]
    IcmpPorts,
    /// Not a port.
    #[error(
        "{0:?} is not a port; write numbers from 1 to 65535 or ranges, for example 80,8000-8100, \
         or leave out ':' for every port"
    )]
    Port(String),
    /// The range ends before it begins.
    #[error("the port range {0:?} is reversed; write the lower port first, for example 8000-8100")]
    ReversedPorts(String),
    /// More than [`MAX_PORTS`] ranges.
    #[error("it lists more than {MAX_PORTS} ports; use ranges such as 8000-8100, or several rules")]
    TooManyPorts,
    /// Peers by their labels, where only addresses can stand.
    #[error(
        "{{…}} chooses peers by their labels, which only the control plane's policies can; \
         write an address, for example 10.42.0.10/32:8080"
    )]
    PeersInFlag,
    /// The braces do not fit.
    #[error("the braces do not fit; write for example tcp:{{role=tool}}:8080, or {{}} for every peer")]
    Braces,
    /// What is between the braces is no selector.
    #[error("{{…}} chooses no peers: {0}")]
    Selector(#[from] SelectorError),
}

impl RuleError {
    pub(crate) fn new(what: &'static str, text: &str, cause: Cause) -> Self {
        Self { what, text: shown(text), cause }
    }

    /// What is wrong.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }
}

/// The beginning of `text`, so that no input makes a long message.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}
