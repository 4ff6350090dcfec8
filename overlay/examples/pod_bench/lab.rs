//! The namespaces, and the far end that is the same for all clients.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    sync::Arc,
};

use ipnet::IpNet;
use lattice_overlay::{BackendChoice, Device, DeviceConfig, Netns, PeerConfig, create, link};
use lattice_wire::WgPrivateKey;

use crate::load::Load;

/// Of every device here, in bytes.
pub(crate) const MTU: u16 = 1420;
/// The far end's number. Number `n` is 10.42.0.n in the overlay.
pub(crate) const FAR: u8 = 1;
/// The clients' numbers.
pub(crate) const NEAR: [u8; 2] = [2, 3];

/// Keys are made of numbers: nothing here is a secret.
pub(crate) fn key(number: u8) -> WgPrivateKey {
    WgPrivateKey::from_random([number; 32])
}

/// An overlay address.
pub(crate) fn inner(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 42, 0, number)
}

/// The far end, and the namespace for the clients. Nothing of it outlives the process.
pub(crate) struct Lab {
    near: Arc<Netns>,
    far: Box<dyn Device>,
    server: SocketAddr,
    _server: Load,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let netns = || Arc::new(Netns::create().expect("needs root"));
        let (near, underlay, inside) = (netns(), netns(), netns());
        link::add_veth(&near, "eth0", &underlay, "eth0").unwrap();
        for (netns, address) in [(&near, near_outer()), (&underlay, far_outer())] {
            link::add_address(netns, "eth0", IpNet::new(address, 24).unwrap()).unwrap();
            link::set_up(netns, "eth0").unwrap();
        }
        link::set_up(&near, "lo").unwrap();
        let far = far_device(underlay, &inside);
        let mut server = Load::start(Command::new(std::env::current_exe().unwrap()), &inside, &["serve"]);
        let port = server.numbers()[0] as u16;
        Self { near, far, server: SocketAddr::new(inner(FAR).into(), port), _server: server }
    }

    /// The namespace of the clients and their load.
    pub(crate) fn near(&self) -> &Netns {
        &self.near
    }

    /// Where the far end takes WireGuard's packets.
    pub(crate) fn far_endpoint(&self) -> SocketAddr {
        SocketAddr::new(far_outer(), self.far.listen_port())
    }

    /// Where the server listens, in the overlay.
    pub(crate) fn server(&self) -> SocketAddr {
        self.server
    }
}

fn near_outer() -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 2).into()
}

fn far_outer() -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 1).into()
}

fn far_device(underlay: Arc<Netns>, inside: &Arc<Netns>) -> Box<dyn Device> {
    let config = DeviceConfig {
        name: "wg0".into(),
        private_key: key(FAR),
        listen_port: 0,
        mtu: MTU,
        underlay,
        inside: Arc::clone(inside),
        filter: None,
        paths: None,
    };
    let device = create(config, BackendChoice::UserSpace).unwrap();
    let peers = NEAR.map(|number| PeerConfig {
        public_key: key(number).public(),
        allowed_ips: vec![IpAddr::from(inner(number)).into()],
        endpoints: Vec::new(),
        keepalive: None,
    });
    device.set_peers(&peers).unwrap();
    link::add_address(inside, "wg0", IpAddr::from(inner(FAR)).into()).unwrap();
    link::set_up(inside, "wg0").unwrap();
    link::add_route(inside, "10.42.0.0/16".parse().unwrap(), "wg0", None).unwrap();
    device
}
