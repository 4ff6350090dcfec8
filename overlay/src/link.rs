//! Network interfaces of a namespace: links, addresses and routes, by rtnetlink (`rtnetlink(7)`).
//!
//! Every function is synchronous and runs on a scratch thread inside the namespace it is given, so it may be called from
//! any thread, in a runtime or not.

mod changes;
mod limited;
mod own;
mod request;
mod route;
mod veth;

use std::{io, net::IpAddr};

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    Handle, LinkUnspec,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
        link::{
            AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVrf, LinkAttribute, LinkFlags,
            LinkInfo, LinkLayerType, LinkMessage,
        },
    },
};

use crate::Netns;

pub use changes::Changes;
pub(crate) use limited::LimitedRoutes;
pub use own::own_routes;
pub(crate) use request::run;
use request::{Failed, failed};
pub use route::{Route, add_default_route, add_route, routes};
pub use veth::add_veth;

/// Why an operation on links, addresses or routes failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The namespace could not be entered, or no netlink socket opened in it.
    #[error("cannot reach the network namespace: {0}; run as root (CAP_SYS_ADMIN and CAP_NET_ADMIN)")]
    Namespace(#[source] io::Error),
    /// No link of that name.
    #[error("no network interface named {0:?} in this namespace")]
    NotFound(String),
    /// The kernel refused.
    #[error("cannot {action}: {source}")]
    Refused {
        /// What was asked, in words.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl LinkError {
    /// The kernel's error number, when it was the kernel that refused.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Namespace(source) | Self::Refused { source, .. } => source.raw_os_error(),
            Self::NotFound(_) => None,
        }
    }
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index (`if_nametoindex(3)`).
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Frames carry an Ethernet header (`ARPHRD_ETHER`, and the loopback, whose frames do too); false for TUN and
    /// WireGuard, which carry bare IP packets.
    pub ethernet: bool,
    /// The loopback.
    pub loopback: bool,
    /// Carries bare IP packets (`ARPHRD_NONE`), as tunnels do.
    pub tunnel: bool,
    /// Bytes of a packet; 0 when the kernel does not say.
    pub mtu: u32,
    /// Its hardware address; empty where it has none.
    pub mac: Vec<u8>,
    /// A bridge.
    pub bridge: bool,
    /// The table of a VRF, whose links' routes are there.
    pub vrf: Option<u32>,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let kind = message.header.link_layer_type;
        let (mut name, mut mtu, mut mac, mut bridge, mut vrf) = (String::new(), 0, Vec::new(), false, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(found) => name = found,
                LinkAttribute::Mtu(found) => mtu = found,
                LinkAttribute::Address(found) => mac = found,
                LinkAttribute::LinkInfo(found) => {
                    bridge = found.contains(&LinkInfo::Kind(InfoKind::Bridge));
                    vrf = found.iter().find_map(table_of_vrf);
                }
                _ => {}
            }
        }
        Self {
            index: message.header.index,
            name,
            up: message.header.flags.contains(LinkFlags::Up),
            ethernet: matches!(kind, LinkLayerType::Ether | LinkLayerType::Loopback),
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            tunnel: kind == LinkLayerType::None,
            mtu,
            mac,
            bridge,
            vrf,
        }
    }
}

fn table_of_vrf(info: &LinkInfo) -> Option<u32> {
    let LinkInfo::Data(InfoData::Vrf(data)) = info else { return None };
    data.iter().find_map(|data| match data {
        InfoVrf::TableId(table) => Some(*table),
        _ => None,
    })
}

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) link: u32,
    pub(crate) ip: IpAddr,
    /// IPv6 duplicate detection is done and the address is not on its way out.
    pub(crate) settled: bool,
}

/// The links of a namespace.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn links(netns: &Netns) -> Result<Vec<Link>, LinkError> {
    run(netns, async |handle| all_links(&handle).await)
}

/// The addresses of a namespace, each with the name of its link.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn addresses(netns: &Netns) -> Result<Vec<(String, IpAddr)>, LinkError> {
    let (links, addresses) = links_and_addresses(netns)?;
    let name = |index| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    Ok(addresses.iter().filter_map(|address| Some((name(address.link)?, address.ip))).collect())
}

pub(crate) fn links_and_addresses(netns: &Netns) -> Result<(Vec<Link>, Vec<Address>), LinkError> {
    run(netns, async |handle| {
        let links = all_links(&handle).await?;
        let messages: Vec<AddressMessage> =
            handle.address().get().execute().try_collect().await.map_err(failed("list the addresses"))?;
        Ok((links, messages.into_iter().filter_map(address).collect()))
    })
}

/// Sets a link up (`ip link set NAME up`).
///
/// # Errors
/// When there is no such link.
pub fn set_up(netns: &Netns, name: &str) -> Result<(), LinkError> {
    change(netns, name, &format!("set {name} up"), |index| LinkUnspec::new_with_index(index).up().build())
}

/// Sets a link down (`ip link set NAME down`).
///
/// # Errors
/// When there is no such link.
pub fn set_down(netns: &Netns, name: &str) -> Result<(), LinkError> {
    change(netns, name, &format!("set {name} down"), |index| LinkUnspec::new_with_index(index).down().build())
}

/// Sets a link's MTU in bytes (`ip link set NAME mtu MTU`).
///
/// # Errors
/// When there is no such link, or the MTU is out of its driver's range.
pub fn set_mtu(netns: &Netns, name: &str, mtu: u16) -> Result<(), LinkError> {
    change(netns, name, &format!("set the MTU of {name} to {mtu}"), |index| {
        LinkUnspec::new_with_index(index).mtu(mtu.into()).build()
    })
}

/// Keeps a link from giving itself an IPv6 link-local address once it is up, and from soliciting routers by it
/// (`ip link set NAME addrgenmode none`). It does not outlast a move to another namespace.
pub(crate) fn set_no_link_local(netns: &Netns, name: &str) -> Result<(), LinkError> {
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let spec = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])]);
    let done = change(netns, name, &format!("keep {name} from IPv6 link-local addresses"), |index| {
        LinkUnspec::new_with_index(index).append_extra_attribute(spec).build()
    });
    match done {
        // Without IPv6 there is nothing to keep it from.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
        done => done,
    }
}

/// Adds an address to a link (`ip address add ADDRESS dev NAME`).
///
/// # Errors
/// When there is no such link, or it has the address already (`EEXIST`).
pub fn add_address(netns: &Netns, name: &str, address: IpNet) -> Result<(), LinkError> {
    run(netns, async |handle| {
        let index = index_of(&handle, name).await?;
        let mut request = handle.address().add(index, address.addr(), address.prefix_len());
        // Duplicate address detection would leave an IPv6 address unusable for a moment, on a link where nobody can
        // have the same one: a route could not name it as its source yet.
        if let IpNet::V6(_) = address {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(failed(format!("add {address} to {name}")))
    })
}

/// Keeps a link from ARP and neighbour discovery, and from joining the groups that the latter takes (`ip link set NAME arp off`).
pub(crate) fn set_no_arp(netns: &Netns, name: &str) -> Result<(), LinkError> {
    change(netns, name, &format!("turn ARP off on {name}"), |index| {
        LinkUnspec::new_with_index(index).arp(false).build()
    })
}

/// Tells a link which hardware address `ip` has behind it, for good (`ip neighbour add IP lladdr MAC dev NAME`): it is never
/// asked for by ARP or neighbour discovery.
pub(crate) fn add_neighbour(netns: &Netns, name: &str, ip: IpAddr, mac: &[u8]) -> Result<(), LinkError> {
    run(netns, async |handle| {
        let index = index_of(&handle, name).await?;
        let request = handle.neighbours().add(index, ip).link_layer_address(mac);
        request.execute().await.map_err(failed(format!("say where {ip} is on {name}")))
    })
}

/// Deletes a link (`ip link delete NAME`).
///
/// # Errors
/// When there is no such link, or it cannot be deleted (the loopback).
pub fn delete(netns: &Netns, name: &str) -> Result<(), LinkError> {
    run(netns, async |handle| {
        let index = index_of(&handle, name).await?;
        handle.link().del(index).execute().await.map_err(failed(format!("delete {name}")))
    })
}

/// Moves a link to another namespace under another name, in one request: it is never seen there under the old one.
pub(crate) fn move_to(from: &Netns, name: &str, to: &Netns, new_name: &str) -> Result<(), LinkError> {
    use std::os::fd::{AsFd, AsRawFd};
    let to = to.as_fd().as_raw_fd();
    change(from, name, &format!("move {name} to its network namespace as {new_name}"), |index| {
        LinkUnspec::new_with_index(index).setns_by_fd(to).name(new_name).build()
    })
}

fn change(
    netns: &Netns,
    name: &str,
    action: &str,
    message: impl FnOnce(u32) -> LinkMessage + Send,
) -> Result<(), LinkError> {
    run(netns, async |handle| {
        let index = index_of(&handle, name).await?;
        handle.link().set(message(index)).execute().await.map_err(failed(action))
    })
}

async fn all_links(handle: &Handle) -> Result<Vec<Link>, LinkError> {
    let links = handle.link().get().execute().map_ok(Link::from);
    links.try_collect().await.map_err(failed("list the network interfaces"))
}

async fn index_of(handle: &Handle, name: &str) -> Result<u32, LinkError> {
    let mut found = handle.link().get().match_name(name).execute();
    match found.try_next().await {
        Ok(Some(link)) => Ok(link.header.index),
        Ok(None) => Err(LinkError::NotFound(name.into())),
        Err(error) => match Failed::from(error).0 {
            source if source.raw_os_error() == Some(libc::ENODEV) => Err(LinkError::NotFound(name.into())),
            source => Err(LinkError::Refused { action: format!("look up {name}"), source }),
        },
    }
}

fn address(message: AddressMessage) -> Option<Address> {
    let unsettled = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    let mut local = None;
    let mut address = None;
    let mut flags = AddressFlags::empty();
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(found) => flags = *found,
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL, where present, is always ours.
    let ip = local.or(address)?;
    Some(Address { link: message.header.index, ip, settled: !flags.intersects(unsettled) })
}

#[cfg(test)]
mod tests;
