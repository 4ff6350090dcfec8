//! Datagrams of peers to a service of the host, and the replies back.

use std::{
    cell::Cell,
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
};

use tokio::{
    net::UdpSocket,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    Datagrams, Target,
    limits::{FORWARD_FLOWS, FORWARD_UDP_IDLE},
    udp::receive,
};

/// One peer's address, and its socket towards the service.
struct Flow {
    socket: UdpSocket,
    last: Cell<Instant>,
}

/// See [`Forwarder::datagrams`](super::Forwarder::datagrams).
pub(super) async fn serve<D: Datagrams + 'static>(service: SocketAddr, inbound: D) -> io::Result<()> {
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
        if flows.len() >= FORWARD_FLOWS {
            continue;
        }
        let Ok(flow) = Flow::open(service).await.map(Rc::new) else { continue };
        let _lost = flow.socket.send(&datagram).await;
        let task = back(Rc::clone(&inbound), Rc::clone(&flow), peer);
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

/// Carries replies to `peer` until both directions have been silent for long enough; returns `peer`.
async fn back<D: Datagrams>(inbound: Rc<D>, flow: Rc<Flow>, peer: SocketAddr) -> SocketAddr {
    let to = Target::from(peer);
    loop {
        let idle = flow.last.get() + FORWARD_UDP_IDLE;
        let received = receive(|context, buffer| flow.socket.poll_recv(context, buffer).map_ok(|()| peer));
        match timeout_at(idle, received).await {
            Ok(Ok((datagram, _))) => {
                flow.last.set(Instant::now());
                let _refused = inbound.send(&datagram, &to).await;
            }
            // Nobody listens (ICMP port unreachable).
            Ok(Err(_)) => {}
            Err(_) if flow.last.get() + FORWARD_UDP_IDLE <= Instant::now() => return peer,
            Err(_) => {}
        }
    }
}
