//! Routes by which packets may be no longer than an MTU of their own (`ip-route(8)`).

use ipnet::IpNet;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteMetric};

use super::{LinkError, index_of, request::failed, route::route, run};
use crate::Netns;

/// Bytes of the headers of IPv4 and TCP; those of IPv6 are 20 more.
const HEADERS: u32 = 40;

/// Routes out of one link.
#[derive(Debug, Clone)]
pub(crate) struct LimitedRoutes {
    /// The link's name.
    pub(crate) link: String,
    /// Bytes of a packet that leaves by such a route.
    pub(crate) mtu: u16,
    /// Bytes of a packet that the other end of a TCP connection is told it may send. A connection that began by such a route keeps that for
    /// life, and the route may be gone soon.
    pub(crate) whole: u16,
}

impl LimitedRoutes {
    /// `ip route add DESTINATION dev LINK mtu MTU advmss …`.
    ///
    /// # Errors
    /// When there is no such link, it is down, or another route leads to the same destination (`EEXIST`).
    pub(crate) fn add(&self, netns: &Netns, destination: IpNet) -> Result<(), LinkError> {
        let action = format!("add a route to {destination} by {} with MTU {}", self.link, self.mtu);
        run(netns, async |handle| {
            let message = self.message(destination, index_of(&handle, &self.link).await?);
            handle.route().add(message).execute().await.map_err(failed(action))
        })
    }

    /// Deletes what [`Self::add`] added.
    ///
    /// # Errors
    /// When it is not there (`ESRCH`).
    pub(crate) fn delete(&self, netns: &Netns, destination: IpNet) -> Result<(), LinkError> {
        let action = format!("delete the route to {destination} by {} with MTU {}", self.link, self.mtu);
        run(netns, async |handle| {
            let message = self.message(destination, index_of(&handle, &self.link).await?);
            handle.route().del(message).execute().await.map_err(failed(action))
        })
    }

    fn message(&self, destination: IpNet, index: u32) -> RouteMessage {
        let headers = if destination.addr().is_ipv4() { HEADERS } else { HEADERS + 20 };
        let whole = u32::from(self.whole).saturating_sub(headers);
        let metrics = vec![RouteMetric::Mtu(self.mtu.into()), RouteMetric::Advmss(whole)];
        let mut message = route(destination, index);
        message.attributes.push(RouteAttribute::Metrics(metrics));
        message
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    };

    use nix::sys::socket::{getsockopt, sockopt::TcpMaxSeg};

    use super::*;
    use crate::link::{add_address, add_veth, set_up};

    /// Without the option for timestamps, which each segment has.
    const OPTION: u32 = 12;

    /// Bytes of a segment that `from` sends from now on: what it sends first shows it the route.
    fn segment(from: &mut TcpStream, to: &mut TcpStream) -> u32 {
        for _ in 0..2 {
            from.write_all(b"x").unwrap();
            to.read_exact(&mut [0]).unwrap();
        }
        getsockopt(from, TcpMaxSeg).unwrap() + OPTION
    }

    #[test]
    fn a_connection_follows_a_route_that_comes_and_goes_and_asks_for_whole_segments() {
        let (a, b) = (Netns::create().unwrap(), Netns::create().unwrap());
        add_veth(&a, "eth0", &b, "eth0").unwrap();
        let ends: [(&Netns, [&str; 2]); 2] =
            [(&a, ["192.0.2.1/24", "2001:db8::1/64"]), (&b, ["192.0.2.2/24", "2001:db8::2/64"])];
        for (netns, addresses) in ends {
            for address in addresses {
                add_address(netns, "eth0", address.parse().unwrap()).unwrap();
            }
            set_up(netns, "eth0").unwrap();
        }
        let routes = LimitedRoutes { link: "eth0".into(), mtu: 1280, whole: 1500 };
        for (to, headers) in [("192.0.2.2", 40), ("2001:db8::2", 60)] {
            let to: IpAddr = to.parse().unwrap();
            let listener = b.run(|| TcpListener::bind((to, 0))).unwrap().unwrap();
            let at: SocketAddr = listener.local_addr().unwrap();
            let connect = || {
                let stream = a.run(|| TcpStream::connect(at)).unwrap().unwrap();
                (stream, listener.accept().unwrap().0)
            };
            let (mut old, mut old_peer) = connect();
            assert_eq!(segment(&mut old, &mut old_peer), 1500 - headers);
            routes.add(&a, to.into()).unwrap();
            assert_eq!(routes.add(&a, to.into()).unwrap_err().raw_os_error(), Some(libc::EEXIST));
            let (mut new, mut new_peer) = connect();
            assert_eq!(segment(&mut old, &mut old_peer), 1280 - headers);
            assert_eq!(segment(&mut new, &mut new_peer), 1280 - headers);
            assert_eq!(segment(&mut new_peer, &mut new), 1500 - headers, "what the other end was told");
            routes.delete(&a, to.into()).unwrap();
            assert_eq!(segment(&mut old, &mut old_peer), 1500 - headers);
            assert_eq!(segment(&mut new, &mut new_peer), 1500 - headers);
            assert_eq!(routes.delete(&a, to.into()).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        }
    }
}
