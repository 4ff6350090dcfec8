//! The address, network or name of a rule, and where its ports begin.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::{Cause, Target, error::shown};
use crate::pattern::ends_in_number;

/// Takes target and ports apart. The target keeps its family's form but not its brackets.
pub(super) fn split(text: &str) -> Result<(&str, Option<&str>), Cause> {
    if let Some(inner) = text.strip_prefix('[') {
        let (inside, behind) = inner.split_once(']').ok_or(Cause::Brackets)?;
        let ports = match behind.strip_prefix(':') {
            None if behind.is_empty() => None,
            None => return Err(Cause::Brackets),
            Some(ports) if ports.contains([':', '[', ']']) => return Err(Cause::Colons),
            Some(ports) => Some(ports),
        };
        return if inside.contains(':') { Ok((inside, ports)) } else { Err(Cause::Brackets) };
    }
    if text.contains(['[', ']']) {
        return Err(Cause::Brackets);
    }
    match text.matches(':').count() {
        0 => Ok((text, None)),
        1 => Ok(text.split_once(':').map_or((text, None), |(target, ports)| (target, Some(ports)))),
        // Dots before the first colon: IPv4 or a name, and then more than one part behind it.
        _ if text.find('.') < text.find(':') && text.contains('.') => Err(Cause::Colons),
        _ if text.split_once('/').is_some_and(|(_, len)| len.contains(':')) => Err(Cause::NeedsBrackets),
        _ => Ok((text, None)),
    }
}

/// Reads a name, or an address, alone or with a prefix length.
pub(super) fn parse(text: &str) -> Result<Target, Cause> {
    let (address, len) = text.split_once('/').map_or((text, None), |(address, len)| (address, Some(len)));
    if is_name(address) {
        return if len.is_some() { Err(Cause::NamePrefix) } else { Ok(Target::Name(address.parse()?)) };
    }
    parse_net(address, len).map(Target::Net)
}

fn parse_net(address: &str, len: Option<&str>) -> Result<IpNet, Cause> {
    let address = parse_address(address)?;
    let whole = IpNet::from(address);
    let Some(len) = len else { return Ok(whole) };

    let bad_prefix = || Cause::Prefix {
        len: shown(len),
        max: whole.max_prefix_len(),
        example: if address.is_ipv4() { "10.0.0.0/8" } else { "fd00::/8" },
    };
    // `u8::from_str` alone would take `+8` and `08`.
    let decimal = len == "0" || (len.bytes().all(|c| c.is_ascii_digit()) && !len.starts_with('0'));
    let bits: u8 = len.parse().ok().filter(|_| decimal).ok_or_else(bad_prefix)?;
    let net = IpNet::new(address, bits).map_err(|_| bad_prefix())?;
    if net.trunc() != net {
        let (network, address) = (net.trunc().to_string(), whole.to_string());
        return Err(Cause::HostBits { given: net.to_string(), network, address });
    }
    Ok(net)
}

fn parse_address(text: &str) -> Result<IpAddr, Cause> {
    if text.is_empty() {
        return Err(Cause::NoTarget);
    }
    if text.contains('%') {
        return Err(Cause::Zone(shown(text)));
    }
    if text.contains(':') {
        let address: Ipv6Addr = text.parse().map_err(|_| Cause::V6(shown(text)))?;
        return match address.to_ipv4_mapped() {
            Some(_) => Err(Cause::Mapped(shown(text))),
            None => Ok(address.into()),
        };
    }
    if text == "*" {
        return Err(Cause::Star);
    }
    text.parse().map(IpAddr::V4).map_err(|_| Cause::V4(shown(text)))
}

/// Whether `text` is meant as a DNS name. What ends in a number is meant as an IPv4 address.
fn is_name(text: &str) -> bool {
    let letters = text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b'*'));
    letters && text != "*" && !ends_in_number(text)
}

/// Whether `head` was meant as a protocol: a word before what can only be an address. (`localhost:80` is not: what
/// follows is a port.)
pub(super) fn follows_unknown_proto(head: &str, rest: &str) -> bool {
    let word = head.starts_with(|c: char| c.is_ascii_alphabetic()) && !head.contains(['.', '/', '[', '%']);
    let address = rest.contains(['.', '/', '[']);
    let v6 = head.bytes().all(|c| c.is_ascii_hexdigit()) && !rest.contains('[');
    word && address && !v6
}
