//! Port forwards: peers reach services of this host, by the flags' ports and no others.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use ipnet::{IpNet, Ipv4Net};
use lattice_overlay::stack::{self, ConnectError, Network, Request};
use lattice_policy::{PortRange, Proto, RuleSpec};
use lattice_proxy::{Datagrams, Forward, Forwarder, Host, Refusal, Target, Transport};
use tokio::{io::ReadBuf, task::JoinSet};

use super::{refusal::of_overlay, stream::Connection};
use crate::{Failure, Kind, generations::Generations};

/// What lets peers reach the ports of `forwards`, where the control plane leaves that to us.
///
/// # Errors
/// [`Kind::Usage`] when a port is forwarded twice.
pub(crate) fn offered(forwards: &[Forward], pool: Ipv4Net) -> Result<Vec<RuleSpec>, Failure> {
    let mut seen = HashSet::new();
    let rule = |forward: &Forward| {
        let Forward { transport, port, .. } = *forward;
        if !seen.insert((transport, port)) {
            let text = format!(
                "--forward {forward}: {transport} port {port} is forwarded already; give each port once"
            );
            return Err(Failure::new(Kind::Usage, text));
        }
        let proto = match transport {
            Transport::Tcp => Proto::Tcp,
            Transport::Udp => Proto::Udp,
        };
        let ports = vec![PortRange { lo: port.get(), hi: port.get() }];
        Ok(RuleSpec::new(proto, IpNet::V4(pool.trunc()), ports))
    };
    forwards.iter().map(rule).collect()
}

/// Opens the port of one forward; the result serves it, until a UDP socket fails.
pub(super) async fn serve(
    forward: Forward,
    network: Network,
    rules: Generations,
) -> Result<((), impl Future<Output = ()>), Failure> {
    let forwarder = Forwarder::new(forward);
    let port = forward.port.get();
    let open = match forward.transport {
        Transport::Tcp => Open::Tcp(network.listen(port)),
        Transport::Udp => {
            let socket = network.bind_udp(port).map_err(|error| taken(&forward, &error))?;
            Open::Udp(Port { socket, rules })
        }
    };
    let run = async move {
        match open {
            Open::Tcp(listener) => connections(&forwarder, listener).await,
            Open::Udp(port) => {
                if let Err(error) = forwarder.datagrams(port).await {
                    tracing::error!(%forward, %error, "a port forward has ended");
                }
            }
        }
    };
    Ok(((), run))
}

/// A port that peers reach.
enum Open {
    Tcp(stack::TcpListener),
    Udp(Port),
}

fn taken(forward: &Forward, error: &ConnectError) -> Failure {
    let text =
        format!("--forward {forward}: cannot have {} port {}: {error}", forward.transport, forward.port);
    Failure::new(Kind::Taken, text)
}

/// A service that is not there refuses its peers: it is dialled before they are answered.
async fn connections(forwarder: &Forwarder, mut listener: stack::TcpListener) {
    let mut served = JoinSet::new();
    loop {
        let request = tokio::select! {
            request = listener.request() => request,
            Some(_) = served.join_next() => continue,
        };
        let forwarder = forwarder.clone();
        served.spawn_local(async move {
            let peer = request.remote();
            if let Err(error) = connection(&forwarder, request).await {
                tracing::debug!(%peer, %error, "a forwarded connection has ended");
            }
        });
    }
}

async fn connection(forwarder: &Forwarder, request: Request) -> io::Result<()> {
    let service = forwarder.dial().await?;
    let stream = request.accept().await.map_err(io::Error::other)?;
    stream.set_no_delay(true);
    service.relay(Connection::Device(stream)).await
}

/// A forwarded UDP port.
struct Port {
    socket: stack::UdpSocket,
    rules: Generations,
}

impl Datagrams for Port {
    async fn send(&self, payload: &[u8], target: &Target) -> Result<(), Refusal> {
        // Replies go to addresses alone.
        let Host::Address(address) = target.host else { return Err(Refusal::NotFound) };
        let remote = SocketAddr::new(address, target.port);
        self.socket.writable().await;
        self.socket.send_to(payload, remote).map_err(|error| of_overlay(error, &self.rules))
    }

    fn poll_receive(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<SocketAddr>> {
        self.socket.poll_recv_from(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use lattice_policy::{Action, Direction, Packet, evaluate};

    use super::*;
    use crate::live::{tests::map, wanted};

    fn forwards(flags: &[&str]) -> Vec<Forward> {
        flags.iter().map(|flag| flag.parse().unwrap()).collect()
    }

    #[test]
    fn a_forward_opens_its_own_port_to_the_overlay_and_nothing_else_and_no_layer() {
        let map = map(None);
        let forwards = forwards(&["8080:127.0.0.1:80", "udp:53:127.0.0.1:5353"]);
        let local =
            lattice_policy::Local { offered: offered(&forwards, map.pool).unwrap(), ..Default::default() };
        let policy = wanted(1, &local, &map, 0).unwrap();
        let comes = |proto, from: &str, port| {
            let from: std::net::IpAddr = from.parse().unwrap();
            let packet = Packet { direction: Direction::Ingress, proto, remote: from, port: Some(port) };
            evaluate(&policy, &packet).action == Action::Allow
        };
        assert!(comes(6, "10.42.0.7", 8080) && comes(17, "10.42.0.7", 53));
        for (proto, from, port) in
            [(6, "10.42.0.7", 80), (17, "10.42.0.7", 8080), (6, "10.42.0.7", 53), (6, "10.43.0.7", 8080)]
        {
            assert!(!comes(proto, from, port), "{proto} {from} {port}");
        }
        // A layer that lets nobody in, such as a preset's, is not opened by a flag of the agent's host.
        let policy = wanted(1, &local, &self::map(Some(&["0.0.0.0/0"])), 0).unwrap();
        let packet = Packet {
            direction: Direction::Ingress,
            proto: 6,
            remote: "10.42.0.7".parse().unwrap(),
            port: Some(8080),
        };
        assert_eq!(evaluate(&policy, &packet).action, Action::Deny);
    }

    #[test]
    fn a_port_is_forwarded_once() {
        let twice = forwards(&["8080:127.0.0.1:80", "udp:8080:127.0.0.1:80", "8080:127.0.0.1:81"]);
        let failure = offered(&twice, "10.42.0.0/16".parse().unwrap()).unwrap_err();
        assert_eq!(
            failure.message,
            "--forward tcp:8080:127.0.0.1:81: tcp port 8080 is forwarded already; give each port once"
        );
    }
}
