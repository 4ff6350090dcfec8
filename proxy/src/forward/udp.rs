//! Datagrams of peers to a service of the host, and the replies back.

use std::{
    cell::Cell,
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{Datagrams, Target, udp::receive};

/// How many flows, and how long one may be silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) flows: usize,
    pub(super) idle: Duration,
}

/// One peer's address, and its socket towards the service.
struct Flow {
    socket: UdpSocket,
    last: Cell<Instant>,
}

/// See [`Forwarder::datagrams`](super::Forwarder::datagrams).
pub(super) async fn serve<D: Datagrams + 'static>(
    service: SocketAddr,
    inbound: D,
    bounds: Bounds,
) -> io::Result<()> {
    let inbound = Rc::new(inbound);
    let mut flows: HashMap<SocketAddr, Rc<Flow>> = HashMap::new();
    let mut replies = JoinSet::new();
    loop {
        let (datagram, peer) = tokio::select! {
            received = receive(|context, buffer| inbound.poll_receive(context, buffer)) => received?,
            Some(ended) = replies.join_next() => {
                if let Ok(peer) = ended {
                    flows.remove(&peer);
                }
                continue;
            }
        };
        // A service that does not listen yet says so by an error here, now and then: the next datagram may find it.
        if let Some(flow) = flows.get(&peer) {
            flow.last.set(Instant::now());
            let _lost = flow.socket.send(&datagram).await;
            continue;
        }
        // Beyond the limit, datagrams are lost until a sender has been idle for long enough.
        if flows.len() >= bounds.flows {
            continue;
        }
        let Ok(flow) = Flow::open(service).await.map(Rc::new) else { continue };
        let _lost = flow.socket.send(&datagram).await;
        let task = back(Rc::clone(&inbound), Rc::clone(&flow), peer, bounds.idle);
        replies.spawn_local(task);
        flows.insert(peer, flow);
    }
}

impl Flow {
    async fn open(service: SocketAddr) -> io::Result<Self> {
        let any: IpAddr =
            if service.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(service).await?;
        Ok(Self { socket, last: Cell::new(Instant::now()) })
    }
}

/// Carries replies to `peer` until both directions have been silent for so long; returns `peer`.
async fn back<D: Datagrams>(inbound: Rc<D>, flow: Rc<Flow>, peer: SocketAddr, idle: Duration) -> SocketAddr {
    let to = Target::from(peer);
    loop {
        let end = flow.last.get() + idle;
        let received = receive(|context, buffer| flow.socket.poll_recv(context, buffer).map_ok(|()| peer));
        match timeout_at(end, received).await {
            Ok(Ok((datagram, _))) => {
                flow.last.set(Instant::now());
                let _refused = inbound.send(&datagram, &to).await;
            }
            // Nobody listens (ICMP port unreachable).
            Ok(Err(_)) => {}
            // Meanwhile the peer may have sent something.
            Err(_) if flow.last.get() + idle <= Instant::now() => return peer,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use tokio::{
        io::ReadBuf,
        task::{LocalSet, spawn_local},
        time::timeout,
    };

    use super::*;
    use crate::{Host, Refusal};

    struct Port(UdpSocket);

    impl Datagrams for Port {
        async fn send(&self, payload: &[u8], target: &Target) -> Result<(), Refusal> {
            let Host::Address(address) = target.host else { panic!("{target}") };
            self.0.send_to(payload, (address, target.port)).await.unwrap();
            Ok(())
        }

        fn poll_receive(
            &self,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<SocketAddr>> {
            self.0.poll_recv_from(context, buffer)
        }
    }

    async fn socket() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").await.unwrap()
    }

    async fn receives(socket: &UdpSocket, within: Duration) -> Option<u8> {
        let mut byte = [0];
        timeout(within, socket.recv_from(&mut byte)).await.ok().map(|_| byte[0])
    }

    #[tokio::test]
    async fn flows_are_bounded_and_a_silent_one_makes_room() {
        const HANGS: Duration = Duration::from_secs(60);
        const IDLE: Duration = Duration::from_secs(2);
        let test = async {
            let (service, port, first, second) =
                (socket().await, socket().await, socket().await, socket().await);
            let inside = port.local_addr().unwrap();
            let bounds = Bounds { flows: 1, idle: IDLE };
            let task = spawn_local(serve(service.local_addr().unwrap(), Port(port), bounds));
            first.send_to(&[1], inside).await.unwrap();
            assert_eq!(receives(&service, HANGS).await, Some(1));
            second.send_to(&[2], inside).await.unwrap();
            assert_eq!(receives(&service, IDLE / 10).await, None, "two flows");
            let again = async {
                while receives(&service, IDLE / 10).await != Some(2) {
                    second.send_to(&[2], inside).await.unwrap();
                }
            };
            timeout(HANGS, again).await.expect("the first flow is never forgotten");
            assert!(!task.is_finished());
            task.abort();
        };
        LocalSet::new().run_until(test).await;
    }
}
