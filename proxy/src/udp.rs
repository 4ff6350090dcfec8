//! UDP ASSOCIATE (RFC 1928 §7): the datagrams of one client, for as long as its connection lasts.
//!
//! The client sends to a socket of its own, on the address at which it reached us. If it did not say from which port, its first datagram does;
//! from then on nobody else's are taken. Their sender's address must be that of the connection in any case.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf},
    net::{TcpStream, UdpSocket},
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::debug;

use crate::{
    Client, Datagrams, Host, Outbound, Refusal, Target,
    counters::Tally,
    limits::{MAX_DATAGRAM, UDP_QUEUE, UDP_TARGET_IDLE, UDP_TARGETS, UDP_WAIT},
    server::Shared,
    session::refuse,
    socks::{self, Dropped},
};

/// Serves one association to its end. `from` is where the client says it sends from. What it says of an address that is not its own is void:
/// some put their target there.
pub(crate) async fn associate<O: Outbound>(
    shared: &Shared<O>,
    mut stream: TcpStream,
    client: Client,
    from: Option<SocketAddr>,
) {
    let opened = timeout(shared.config.limits.connect, shared.outbound.udp(client)).await;
    let opened = opened.unwrap_or(Err(Refusal::TimedOut));
    let local = async {
        let address = stream.local_addr()?.ip().to_canonical();
        let socket = UdpSocket::bind((address, 0)).await?;
        let bound = socket.local_addr()?;
        io::Result::Ok((socket, bound))
    };
    let local =
        local.await.map_err(|error| Refusal::Failed(format!("no UDP socket for the client: {error}")));
    let (outward, (socket, bound)) = match opened.and_then(|outward| Ok((outward, local?))) {
        Ok(both) => both,
        Err(refusal) => return refuse(shared, stream, client, None, &refusal).await,
    };
    let own = |from: &SocketAddr| from.ip().is_unspecified() || from.ip() == client.address.ip();
    let association = Association {
        socket,
        outward: Rc::new(outward),
        client: client.address,
        port: Cell::new(from.filter(own).map(|from| from.port())),
        targets: RefCell::default(),
        tally: Rc::clone(&shared.tally),
    };
    shared.tally.count(|c| &mut c.associated);
    let granted = client.protocol.granted(Some(bound));
    let ended = tokio::select! {
        ended = connection(&mut stream, &granted) => ended,
        ended = association.forth() => ended,
        ended = association.back() => ended,
    };
    debug!(address = %client.address, error = ?ended.err(), "association ended");
}

/// Says that the association is there, and waits for the end of its connection. Nothing more is spoken on it.
async fn connection(stream: &mut TcpStream, granted: &[u8]) -> io::Result<()> {
    stream.write_all(granted).await?;
    let mut scrap = [0; 64];
    while stream.read(&mut scrap).await? > 0 {}
    Ok(())
}

struct Association<D> {
    /// Towards the client.
    socket: UdpSocket,
    outward: Rc<D>,
    /// The client's end of the connection.
    client: SocketAddr,
    /// From where its datagrams come, once that is known.
    port: Cell<Option<u16>>,
    targets: RefCell<Targets>,
    tally: Rc<Tally>,
}

impl<D: Datagrams + 'static> Association<D> {
    /// From the client outwards.
    async fn forth(&self) -> io::Result<()> {
        // Datagrams to names, each until its name is resolved. Those to addresses do not wait for them.
        let mut waiting = JoinSet::new();
        loop {
            let (bytes, from) = tokio::select! {
                received = receive(|context, buffer| self.socket.poll_recv_from(context, buffer)) => received?,
                Some(_) = waiting.join_next() => continue,
            };
            if !self.is_client(from) {
                self.tally.count(|c| &mut c.datagrams_foreign);
                continue;
            }
            let (target, payload) = match socks::datagram(&bytes) {
                Ok(read) => read,
                Err(Dropped::Malformed | Dropped::Fragment) => {
                    self.tally.count(|c| &mut c.datagrams_malformed);
                    continue;
                }
            };
            let full = matches!(target.host, Host::Name(_)) && waiting.len() >= UDP_QUEUE;
            if full || !self.targets.borrow_mut().admit(&target, Instant::now()) {
                self.tally.count(|c| &mut c.datagrams_dropped);
                continue;
            }
            match target.host {
                Host::Address(_) => send(&*self.outward, payload, &target, &self.tally).await,
                Host::Name(_) => {
                    let (outward, tally) = (Rc::clone(&self.outward), Rc::clone(&self.tally));
                    let payload = payload.to_vec();
                    waiting.spawn_local(async move { send(&*outward, &payload, &target, &tally).await });
                }
            }
        }
    }

    /// From outside to the client.
    async fn back(&self) -> io::Result<()> {
        loop {
            let (payload, from) =
                receive(|context, buffer| self.outward.poll_receive(context, buffer)).await?;
            let Some(port) = self.port.get() else { continue };
            let mut datagram = socks::header(from);
            datagram.extend(payload);
            let to = SocketAddr::new(self.client.ip(), port);
            // Too large with its header, or nobody listens any more: lost, as anywhere with UDP.
            if self.socket.send_to(&datagram, to).await.is_ok() {
                self.tally.count(|c| &mut c.datagrams);
            }
        }
    }

    fn is_client(&self, from: SocketAddr) -> bool {
        if from.ip() != self.client.ip() {
            return false;
        }
        if self.port.get().is_none() {
            self.port.set(Some(from.port()));
        }
        self.port.get() == Some(from.port())
    }
}

async fn send(outward: &impl Datagrams, payload: &[u8], target: &Target, tally: &Tally) {
    match timeout(UDP_WAIT, outward.send(payload, target)).await {
        Ok(Ok(())) => tally.count(|c| &mut c.datagrams),
        Ok(Err(_)) => tally.count(|c| &mut c.datagrams_refused),
        Err(_) => tally.count(|c| &mut c.datagrams_dropped),
    }
}

/// One datagram and its sender. While none is there, there is no buffer for it either.
pub(crate) async fn receive<F>(mut poll: F) -> io::Result<(Vec<u8>, SocketAddr)>
where
    F: FnMut(&mut Context<'_>, &mut ReadBuf<'_>) -> Poll<io::Result<SocketAddr>>,
{
    poll_fn(|context| {
        let mut buffer = [MaybeUninit::uninit(); MAX_DATAGRAM];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        let from = ready!(poll(context, &mut buffer))?;
        Poll::Ready(Ok((buffer.filled().to_vec(), from)))
    })
    .await
}

/// Where an association sent to of late.
#[derive(Debug, Default)]
struct Targets(HashMap<Target, Instant>);

impl Targets {
    /// Whether a datagram may go to `target`: there is room for a target, or one that was not used for long makes some.
    fn admit(&mut self, target: &Target, now: Instant) -> bool {
        if let Some(last) = self.0.get_mut(target) {
            *last = now;
            return true;
        }
        if self.0.len() >= UDP_TARGETS {
            self.0.retain(|_, last| now.duration_since(*last) < UDP_TARGET_IDLE);
        }
        let room = self.0.len() < UDP_TARGETS;
        if room {
            self.0.insert(target.clone(), now);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_bounded_and_make_room_when_they_are_idle() {
        let target = |n: u16| Target::from(SocketAddr::from(([192, 0, 2, 1], n + 1)));
        let (mut targets, start) = (Targets::default(), Instant::now());
        let full = u16::try_from(UDP_TARGETS).unwrap();
        for n in 0..full {
            assert!(targets.admit(&target(n), start));
        }
        assert!(!targets.admit(&target(full), start));
        let later = start + UDP_TARGET_IDLE / 2;
        assert!(targets.admit(&target(0), later) && !targets.admit(&target(full), later));
        let idle = start + UDP_TARGET_IDLE;
        assert!(targets.admit(&target(full), idle));
        assert_eq!(targets.0.len(), 2);
        assert!(targets.admit(&target(0), idle) && targets.admit(&target(1), idle));
    }
}
