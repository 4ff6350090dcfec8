//! Which links forward packets.
//!
//! IPv4 asks the link that a packet came in by (`ip_route_input_slow`, `IN_DEV_FORWARD`): the agent's packets need
//! `net.ipv4.conf.<veth>.forwarding`, and their replies that of the link by which they come back, although NAT has just
//! made them ours. The host's global `ip_forward` need not be on.
//!
//! IPv6 asks `net.ipv6.conf.all.forwarding` (`ip6_forward`), and from Linux 6.17 on is content with `force_forwarding` of the link
//! that a packet came in by. The global one is never set here: it would make a router of the host, which as such stops
//! listening to router advertisements and may lose its own way out.

use std::{fs, io, path::PathBuf};

use super::UplinkError;
use crate::Netns;

/// Whose forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

fn file(version: Version, link: &str) -> PathBuf {
    match version {
        Version::V4 => format!("/proc/sys/net/ipv4/conf/{link}/forwarding"),
        Version::V6 => format!("/proc/sys/net/ipv6/conf/{link}/force_forwarding"),
    }
    .into()
}

/// How this host forwards IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ipv6 {
    /// All links do.
    All,
    /// Each link can be told to.
    PerLink,
    /// Not at all, and nothing less than all links could be told to.
    No,
}

pub(super) fn ipv6(netns: &Netns) -> Result<Ipv6, UplinkError> {
    let all = "/proc/sys/net/ipv6/conf/all";
    // No new link gets IPv6.
    let is_off = || {
        fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6")
            .is_ok_and(|text| text.trim() != "0")
    };
    let look = || match fs::read_to_string(format!("{all}/forwarding")) {
        Ok(_) if is_off() => Ipv6::No,
        Ok(text) if text.trim() != "0" => Ipv6::All,
        Ok(_) if fs::exists(format!("{all}/force_forwarding")).unwrap_or(false) => Ipv6::PerLink,
        _ => Ipv6::No,
    };
    netns.run(look).map_err(|source| crate::LinkError::Namespace(source).into())
}

/// Whether `link` forwards; a link that is not there does not.
pub(super) fn is_on(netns: &Netns, version: Version, link: &str) -> Result<bool, UplinkError> {
    let path = file(version, link);
    let read = netns.run(|| fs::read_to_string(&path)).and_then(|read| read);
    match read {
        Ok(text) => Ok(text.trim() != "0"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(UplinkError::Sysctl { path, value: '1', source }),
    }
}

/// Sets it. Off is also done where the link is gone.
pub(super) fn set(netns: &Netns, version: Version, link: &str, on: bool) -> Result<(), UplinkError> {
    if is_on(netns, version, link)? == on {
        return Ok(());
    }
    let path = file(version, link);
    let value = if on { '1' } else { '0' };
    let written = netns.run(|| fs::write(&path, [value as u8])).and_then(|written| written);
    written.map_err(|source| UplinkError::Sysctl { path, value, source })
}

/// Whether the kernel shows the firewall what a bridge passes between its ports, as if it were forwarded.
pub(super) fn bridges_are_filtered(netns: &Netns) -> Result<bool, UplinkError> {
    let look = || {
        ["iptables", "ip6tables"].iter().any(|tables| {
            fs::read_to_string(format!("/proc/sys/net/bridge/bridge-nf-call-{tables}"))
                .is_ok_and(|text| text.trim() != "0")
        })
    };
    netns.run(look).map_err(|source| crate::LinkError::Namespace(source).into())
}
