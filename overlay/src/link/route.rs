//! Routes (`ip-route(8)`): those of the agent's namespace are made, those of the underlay only read.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteScope, RouteType,
    },
};

use super::{LinkError, index_of, request::failed, run};
use crate::Netns;

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// The links that it leads out of; several for a multipath route.
    pub links: Vec<u32>,
    /// Bytes, where the route says so itself.
    pub mtu: Option<u32>,
}

/// The unicast routes of a namespace, of all its tables.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn routes(netns: &Netns) -> Result<Vec<Route>, LinkError> {
    run(netns, async |handle| {
        let mut all = Vec::new();
        let (v4, v6) = (RouteMessageBuilder::<Ipv4Addr>::new(), RouteMessageBuilder::<Ipv6Addr>::new());
        for mut message in [v4.build(), v6.build()] {
            // What the builder presets for a new route would narrow a question.
            message.header =
                RouteHeader { address_family: message.header.address_family, ..Default::default() };
            let found: Result<Vec<RouteMessage>, _> =
                handle.route().get(message).execute().try_collect().await;
            let found = found.map_err(failed("list the routes"))?;
            all.extend(found.into_iter().filter(unicast).filter_map(read));
        }
        Ok(all)
    })
}

fn unicast(message: &RouteMessage) -> bool {
    message.header.kind == RouteType::Unicast
}

pub(super) fn read(message: RouteMessage) -> Option<Route> {
    let length = message.header.destination_prefix_length;
    let mut at = None;
    let (mut links, mut mtu) = (Vec::new(), None);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => at = Some(IpAddr::V4(ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => at = Some(IpAddr::V6(ip)),
            RouteAttribute::Oif(link) => links.push(link),
            RouteAttribute::MultiPath(hops) => links.extend(hops.iter().map(|hop| hop.interface_index)),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let destination = match (at, message.header.address_family) {
        (Some(at), _) => IpNet::new(at, length).ok()?.trunc(),
        (None, rtnetlink::packet_route::AddressFamily::Inet) => Ipv4Net::default().into(),
        (None, rtnetlink::packet_route::AddressFamily::Inet6) => Ipv6Net::default().into(),
        _ => return None,
    };
    links.sort_unstable();
    links.dedup();
    Some(Route { destination, links, mtu })
}

/// Adds the default route of a gateway's IP version (`ip route add default via GATEWAY dev NAME src SOURCE`).
///
/// # Errors
/// When there is no such link, it is down, or there is a default route already (`EEXIST`).
pub fn add_default_route(
    netns: &Netns,
    gateway: IpAddr,
    name: &str,
    source: IpAddr,
) -> Result<(), LinkError> {
    let action = format!("add a default route via {gateway}");
    run(netns, async |handle| {
        let index = index_of(&handle, name).await?;
        let message = match (gateway, source) {
            (IpAddr::V4(gateway), IpAddr::V4(source)) => RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .pref_source(source)
                .build(),
            (IpAddr::V6(gateway), IpAddr::V6(source)) => RouteMessageBuilder::<Ipv6Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .pref_source(source)
                .build(),
            _ => return Err(other_version(&action)),
        };
        handle.route().add(message).execute().await.map_err(failed(&action))
    })
}

fn other_version(action: &str) -> LinkError {
    let text = "its preferred source is of the other IP version";
    LinkError::Refused { action: action.into(), source: io::Error::new(io::ErrorKind::InvalidInput, text) }
}

/// Adds a route out of a link, without gateway (`ip route add DEST dev NAME [src PREFSRC]`).
///
/// # Errors
/// When there is no such link, it is down, or the route is there already (`EEXIST`).
pub fn add_route(
    netns: &Netns,
    destination: IpNet,
    name: &str,
    preferred_source: Option<IpAddr>,
) -> Result<(), LinkError> {
    let action = format!("add a route to {destination} by {name}");
    run(netns, async |handle| {
        let mut message = route(destination, index_of(&handle, name).await?);
        if let Some(source) = preferred_source {
            if source.is_ipv4() != destination.addr().is_ipv4() {
                return Err(other_version(&action));
            }
            message.attributes.push(RouteAttribute::PrefSource(source.into()));
        }
        handle.route().add(message).execute().await.map_err(failed(&action))
    })
}

/// To `destination` by the link `index`, without gateway.
pub(super) fn route(destination: IpNet, index: u32) -> RouteMessage {
    match destination {
        IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .scope(RouteScope::Link)
            .output_interface(index)
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .output_interface(index)
            .build(),
    }
}
