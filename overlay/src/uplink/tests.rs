//! Against the real kernel, in namespaces of their own: needs root and nft.

mod ends;
mod follow;
mod limits;
mod reach;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{
    forwarding::{Ipv6, Version},
    *,
};

const LIMIT: Duration = Duration::from_secs(60);
/// How long it is waited for what must not come.
const SILENCE: Duration = Duration::from_millis(400);
const SERVER: [&str; 2] = ["192.0.2.7", "2001:db8::7"];
const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const BEHIND: &str = "198.51.100.2";

/// ```text
/// agents ── uplinks ── host 192.0.2.1 ── eth0 ── server 192.0.2.7
///                        └── dmz0 198.51.100.1 ── third 198.51.100.2
/// ```
struct World {
    host: Arc<Netns>,
    server: Netns,
    third: Netns,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let [host, server, third] = [(); 3].map(|()| Netns::create().expect("run as root"));
        for netns in [&host, &server, &third] {
            link::set_up(netns, "lo").unwrap();
            // Namespaces take after the machine's own settings.
            netns
                .run(|| {
                    for (name, value) in [("forwarding", "0"), ("rp_filter", "1")] {
                        for scope in ["all", "default"] {
                            std::fs::write(format!("/proc/sys/net/ipv4/conf/{scope}/{name}"), value).unwrap();
                        }
                    }
                })
                .unwrap();
        }
        for (other, name, ends) in [
            (&server, "eth0", ["192.0.2.1/24", "192.0.2.7/24", "2001:db8::1/64", "2001:db8::7/64"]),
            (&third, "dmz0", ["198.51.100.1/24", "198.51.100.2/24", "2001:db8:1::1/64", "2001:db8:1::2/64"]),
        ] {
            link::add_veth(&host, name, other, "eth0").unwrap();
            for (netns, link, addresses) in
                [(&host, name, [ends[0], ends[2]]), (other, "eth0", [ends[1], ends[3]])]
            {
                for address in addresses {
                    link::add_address(netns, link, address.parse().unwrap()).unwrap();
                }
                link::set_up(netns, link).unwrap();
            }
        }
        link::add_default_route(&third, "198.51.100.1".parse().unwrap(), "eth0", BEHIND.parse().unwrap())
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self { host: Arc::new(host), server, third, dir }
    }

    fn config(&self, id: u32, agent: &Arc<Netns>, targets: &[&str]) -> UplinkConfig {
        UplinkConfig {
            id: UplinkId::new(id),
            owner: "sandbox test".into(),
            underlay: self.host.clone(),
            inside: agent.clone(),
            targets: targets.iter().map(|text| text.parse().unwrap()).collect(),
            overlay: ["10.42.0.0/16", "fd12:3456:789a::/48"].map(|net| net.parse().unwrap()),
            lock: self.dir.path().join("lock"),
        }
    }

    /// An agent with an open uplink to everything that the server's link leads to.
    fn agent(&self, id: u32) -> (Arc<Netns>, Uplink) {
        let agent = Arc::new(Netns::create().unwrap());
        let targets = ["192.0.2.0/24", "2001:db8::/64"];
        let uplink = Uplink::create(self.config(id, &agent, &targets)).unwrap();
        assert!(link::links(&agent).unwrap().iter().all(|link| !link.up), "before it can be policed");
        uplink.open().unwrap();
        (agent, uplink)
    }

    fn forwards(&self, link: &str) -> bool {
        forwarding::is_on(&self.host, Version::V4, link).unwrap()
    }

    fn nft(&self, script: &str) -> String {
        let nft = Nft::find().unwrap();
        nft.apply(&self.host, script, "do this").unwrap();
        nft.ask(&self.host, &["list", "ruleset"], "say").unwrap()
    }

    fn assert_clean(&self) {
        assert_eq!(self.nft(""), "", "rules");
        let links = link::links(&self.host).unwrap();
        assert!(!links.iter().any(|link| link.name.starts_with(PREFIX)), "{links:?}");
        for name in ["eth0", "dmz0"] {
            assert!(!self.forwards(name), "{name} forwards");
            assert!(!forwarding::is_on(&self.host, Version::V6, name).unwrap(), "{name} forwards IPv6");
        }
    }
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Says to each client who it is.
fn serve(netns: &Netns, ip: &str) -> u16 {
    let listener = netns.run(|| TcpListener::bind(at(ip, 0)).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((mut client, from)) = listener.accept() {
            let _ = client.write_all(from.ip().to_string().as_bytes());
        }
    });
    port
}

fn visit(netns: &Netns, ip: &str, port: u16, limit: Duration) -> Result<String, ErrorKind> {
    netns
        .run(|| {
            let mut stream = TcpStream::connect_timeout(&at(ip, port), limit).map_err(|e| e.kind())?;
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).map_err(|e| e.kind())?;
            Ok(text)
        })
        .unwrap()
}

/// The IP versions that this kernel forwards for single links.
fn versions(world: &World) -> &'static [usize] {
    if forwarding::ipv6(&world.host).unwrap() == Ipv6::No {
        println!("SKIPPED: IPv6 uplinks: this kernel has no force_forwarding (Linux 6.17)");
        return &[0];
    }
    &[0, 1]
}

fn shell(netns: &Netns, command: &str) {
    let run = || Command::new("sh").args(["-c", command]).output().expect("sh(1)");
    let out = netns.run(run).unwrap();
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
}
