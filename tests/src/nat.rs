//! Hosts behind NATs, which are the kernel's own.
//!
//! ```text
//!      hub 192.168.50.1
//!       │ bridge
//!     .n router ── 10.77.n.1 ── 10.77.n.2 host
//! ```

use std::{fs, net::Ipv4Addr, path::Path, process::Stdio};

use lattice_overlay::Netns;

use crate::{
    Host, Lab,
    lab::{ip, new_netns},
    process::command,
};

/// What stands between a host and the others. All of them let in only what answers the host (RFC 4787: filtering that depends on
/// address and port), and nothing of the router's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// The host keeps its port whatever it sends to: an endpoint-independent mapping.
    Cone,
    /// Another random port for each destination: a mapping that depends on address and port, a "symmetric" NAT.
    Symmetric,
    /// Lets no UDP through at all.
    NoUdp,
}

impl Nat {
    fn rules(self) -> String {
        let masquerade = match self {
            Self::Symmetric => "masquerade fully-random",
            Self::Cone | Self::NoUdp => "masquerade",
        };
        let udp = if self == Self::NoUdp { "meta l4proto udp drop" } else { "" };
        format!(
            "table ip nat {{
                chain out {{ type nat hook postrouting priority srcnat; oifname \"outer\" {masquerade}; }}
                chain forward {{ type filter hook forward priority 0; policy drop;
                    {udp}
                    ct state established,related accept
                    iifname \"inner\" accept
                }}
                chain input {{ type filter hook input priority 0; policy drop; ct state established,related accept; }}
            }}"
        )
    }
}

/// A host's router, to change it while the host runs.
pub struct Router {
    /// Its namespace, with `outer` and `inner`.
    pub netns: Netns,
    /// Its address on the hub's side.
    pub address: Ipv4Addr,
}

impl Router {
    /// From now on nothing passes between the host and `other`.
    ///
    /// # Panics
    /// Without nft.
    pub fn cut(&self, other: Ipv4Addr) {
        let rules = format!(
            "table ip cut {{\nchain forward {{ type filter hook forward priority -10; ip saddr {other} drop; ip daddr {other} drop; }}\n}}"
        );
        nft(&self.netns, &rules);
    }

    /// Ends all cuts.
    ///
    /// # Panics
    /// Without a cut.
    pub fn heal(&self) {
        nft(&self.netns, "delete table ip cut");
    }

    /// Gives the router another address on the hub's side, as after a new lease: all mappings are gone.
    ///
    /// # Panics
    /// When `ip` fails.
    pub fn renumber(&mut self, lab: &mut Lab) {
        let next = Ipv4Addr::new(192, 168, 50, lab.next_number());
        ip(&self.netns, &format!("addr del {}/24 dev outer", self.address));
        ip(&self.netns, &format!("addr add {next}/24 dev outer"));
        self.address = next;
    }
}

impl Lab {
    /// Adds a host that reaches the others only through `nat`.
    ///
    /// # Panics
    /// Without root or nft.
    pub fn host_behind(&mut self, nat: Nat) -> (Host, Router) {
        let number = self.next_number();
        let (netns, router) = (new_netns(), new_netns());
        let outer = self.plug(&router, "outer", number);
        ip(&router, &format!("link add inner type veth peer name eth0 netns {}", netns.path().display()));
        let address = Ipv4Addr::new(10, 77, number, 2);
        let gateway = Ipv4Addr::new(10, 77, number, 1);
        ip(&router, &format!("addr add {gateway}/24 dev inner"));
        ip(&router, "link set inner up");
        ip(&netns, "link set lo up");
        ip(&netns, &format!("addr add {address}/24 dev eth0"));
        ip(&netns, "link set eth0 up");
        ip(&netns, &format!("route add default via {gateway}"));
        let forward = router.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"));
        forward.expect("the namespace").expect("forwarding on");
        nft(&router, &nat.rules());
        (Host { netns, address, dir: self.host_dir(number) }, Router { netns: router, address: outer })
    }
}

fn nft(netns: &Netns, rules: &str) {
    let mut nft = command(&netns.path(), Path::new("nft"));
    let out = nft.arg(rules).stderr(Stdio::piped()).output().expect("nft");
    assert!(out.status.success(), "nft: {}", String::from_utf8_lossy(&out.stderr));
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Duration};

    use super::*;

    fn socket(netns: &Netns) -> UdpSocket {
        let socket = netns.run(|| UdpSocket::bind("0.0.0.0:7000")).expect("the namespace").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        socket
    }

    /// Who the next datagram came from.
    fn from(socket: &UdpSocket) -> Option<std::net::SocketAddr> {
        socket.recv_from(&mut [0; 64]).ok().map(|(_, from)| from)
    }

    #[test]
    fn each_is_what_it_is_called() {
        let mut lab = Lab::bare();
        let (one, other) = (lab.host(), lab.host());
        let (at_one, at_other) = (socket(&one.netns), socket(&other.netns));
        let stranger =
            other.netns.run(|| UdpSocket::bind("0.0.0.0:7001")).expect("the namespace").expect("a socket");
        for nat in [Nat::Cone, Nat::Symmetric, Nat::NoUdp] {
            let (host, router) = lab.host_behind(nat);
            let inside = socket(&host.netns);
            inside.send_to(b"?", (one.address, 7000)).expect("sent");
            inside.send_to(b"?", (other.address, 7000)).expect("sent");
            let seen = [from(&at_one), from(&at_other)];
            match nat {
                Nat::NoUdp => assert_eq!(seen, [None, None]),
                Nat::Cone => assert_eq!(seen, [Some((router.address, 7000).into()); 2]),
                Nat::Symmetric => {
                    assert_ne!(seen[0].expect("arrived").port(), seen[1].expect("arrived").port())
                }
            }
            let Some(seen) = seen[0] else { continue };
            stranger.send_to(b"!", seen).expect("sent");
            assert_eq!(from(&inside), None, "{nat:?}: nobody asked that port");
            at_one.send_to(b"!", seen).expect("sent");
            assert_eq!(from(&inside), Some((one.address, 7000).into()), "{nat:?}");
        }
    }
}
