//! Our client: what pod mode is made of, with static keys and without a control plane.

use std::{
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll},
};

use lattice_netstack::Limits;
use lattice_overlay::{
    Netns, PeerConfig,
    stack::{ConnectError, Network, StackConfig, TcpStream, create_stack},
};
use lattice_policy::{Action, Policy, parse_rule};
use lattice_proxy::{Client, Config, Datagrams, Host, Outbound, Proxy, Refusal, Stream, Target};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::lab::{FAR, MTU, inner, key};

/// The first argument of a process that is this client.
pub(crate) const CLIENT: &str = "client";

/// Its number and the far end's endpoint are its arguments. It prints where its proxy is, and runs until the end of stdin.
pub(crate) fn run(arguments: &[String]) {
    let number: u8 = arguments[0].parse().unwrap();
    let config = StackConfig {
        name: "bench".into(),
        private_key: key(number),
        listen_port: 0,
        mtu: MTU,
        underlay: Arc::new(Netns::current().unwrap()),
        addresses: vec![inner(number).into()],
        paths: None,
        limits: Limits::default(),
    };
    let (told, address) = mpsc::channel();
    let device = create_stack(config, |network| serve(network, told)).unwrap();
    let rule = parse_rule(&format!("{}/32", inner(FAR))).unwrap();
    let table = Policy::new(1).egress(Action::Allow, rule).compile();
    device.filter().unwrap().apply(&table, &[], 1).unwrap();
    let far = PeerConfig {
        public_key: key(FAR).public(),
        allowed_ips: vec![IpAddr::from(inner(FAR)).into()],
        endpoints: vec![arguments[1].parse().unwrap()],
        keepalive: None,
    };
    device.set_peers(&[far]).unwrap();
    println!("{}", address.recv().unwrap());
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

async fn serve(network: Network, told: mpsc::Sender<SocketAddr>) {
    let config = Config::new(SocketAddr::from(([127, 0, 0, 1], 0)), None).unwrap();
    let proxy = Proxy::bind(config, Overlay(network)).await.unwrap();
    told.send(proxy.address()).unwrap();
    proxy.run().await;
}

/// The overlay, by addresses only.
struct Overlay(Network);

impl Outbound for Overlay {
    type Stream = Flow;
    type Datagrams = NoDatagrams;

    async fn connect(&self, target: &Target, _: Client) -> Result<Flow, Refusal> {
        let Host::Address(address) = target.host else { return Err(Refusal::NotFound) };
        match self.0.connect(SocketAddr::new(address, target.port)).await {
            Ok(stream) => {
                // As the product does.
                stream.set_no_delay(true);
                Ok(Flow(stream))
            }
            Err(ConnectError::Busy) => Err(Refusal::Busy),
            Err(error) => Err(Refusal::Failed(error.to_string())),
        }
    }

    async fn udp(&self, _: Client) -> Result<NoDatagrams, Refusal> {
        Err(Refusal::Busy)
    }
}

/// A connection of the overlay, as the proxy knows it.
struct Flow(TcpStream);

impl Stream for Flow {
    fn reset(&mut self) {
        self.0.reset();
    }

    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.0.poll_cut(cx)
    }
}

impl AsyncRead for Flow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Flow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// There are none here.
enum NoDatagrams {}

impl Datagrams for NoDatagrams {
    async fn send(&self, _: &[u8], _: &Target) -> Result<(), Refusal> {
        match *self {}
    }

    fn poll_receive(&self, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<SocketAddr>> {
        match *self {}
    }
}
