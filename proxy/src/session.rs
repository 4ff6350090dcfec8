//! One client, from its first byte to the end of its connection.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::debug;
use zeroize::Zeroizing;

use crate::{
    Client, Outbound, Protocol, Refusal, Stream, Target,
    counters::{Counters, Tally},
    exchange::Exchanging,
    half_open::Place,
    handshake::{Ending, Handshake, Step},
    http::Exchange,
    limits::{FAREWELL, FAREWELL_BYTES, MAX_HANDSHAKE},
    relay::Relay,
    server::Shared,
    socks::Request,
    udp,
};

/// How a handshake came out.
#[derive(Debug)]
enum Outcome {
    /// A request, and what came behind it.
    Asked(Protocol, Request, Vec<u8>),
    /// None, and what to say about it.
    Ended(Ending, Vec<u8>),
}

/// A client that is counted as active, until it is dropped.
struct Active {
    tally: Rc<Tally>,
    _place: OwnedSemaphorePermit,
}

impl Active {
    fn new(tally: &Rc<Tally>, places: &Arc<Semaphore>) -> Option<Self> {
        let place = Arc::clone(places).try_acquire_owned().ok()?;
        tally.count(|c| &mut c.active);
        Some(Self { tally: Rc::clone(tally), _place: place })
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.tally.gone(|c| &mut c.active);
    }
}

/// Serves one client to its end.
pub(crate) async fn serve<O: Outbound>(
    shared: Rc<Shared<O>>,
    mut stream: TcpStream,
    address: SocketAddr,
    half_open: Place,
) {
    let outcome = timeout(shared.config.limits.handshake, negotiate(&shared, &mut stream)).await;
    let (protocol, request, early) = match outcome {
        Ok(Ok(Outcome::Asked(protocol, request, early))) => (protocol, request, early),
        Ok(Ok(Outcome::Ended(ending, farewell))) => {
            shared.tally.count(|c| match ending {
                Ending::Credentials => &mut c.unauthorized,
                Ending::Malformed => &mut c.malformed,
            });
            debug!(%address, ?ending, "no request that can be served");
            return end(stream, &farewell).await;
        }
        Ok(Err(error)) => return debug!(%address, %error, "client is gone before its request"),
        Err(_) => {
            shared.tally.count(|c| &mut c.slow);
            return debug!(%address, "client takes too long");
        }
    };
    let client = Client { address, protocol };
    let Some(_active) = Active::new(&shared.tally, &shared.connections) else {
        shared.tally.count(|c| &mut c.busy);
        return end(stream, &protocol.refused(None, &Refusal::Busy)).await;
    };
    // Not before: a client that is told to go has a place, too.
    drop(half_open);
    match request {
        Request::Connect(target) => {
            if let Some((stream, outward)) = connect(&shared, stream, client, &target).await {
                relay(client, stream, outward, early).await;
            }
        }
        Request::Exchange(Exchange { target, head, body }) => {
            if let Some((stream, outward)) = connect(&shared, stream, client, &target).await {
                let (first, left) = first_part(head, &early, body);
                let stream = Exchanging::new(stream, left, shared.config.limits.answer);
                relay(client, stream, outward, first).await;
            }
        }
        Request::Associate(from) => match shared.associations.try_acquire() {
            Ok(_place) => udp::associate(&shared, stream, client, from).await,
            Err(_) => {
                shared.tally.count(|c| &mut c.busy);
                end(stream, &protocol.refused(None, &Refusal::Busy)).await;
            }
        },
    }
}

/// Goes through the handshake. What it reads is wiped: it may be a password.
async fn negotiate<O>(shared: &Shared<O>, stream: &mut TcpStream) -> io::Result<Outcome> {
    let mut buffer = Zeroizing::new(vec![0; MAX_HANDSHAKE]);
    let (mut start, mut end) = (0, 0);
    let mut handshake = Handshake::new(shared.config.credentials());
    loop {
        let (used, step) = handshake.step(&buffer[start..end]);
        start += used;
        match step {
            Step::More => {
                if start > 0 {
                    buffer.copy_within(start..end, 0);
                    (start, end) = (0, end - start);
                }
                match stream.read(&mut buffer[end..]).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    read => end += read,
                }
            }
            Step::Send(bytes) => stream.write_all(&bytes).await?,
            Step::Done(protocol, request) => {
                return Ok(Outcome::Asked(protocol, request, buffer[start..end].to_vec()));
            }
            Step::End(ending, farewell) => return Ok(Outcome::Ended(ending, farewell)),
        }
    }
}

/// What goes to the server at once: the head, and what came of the body behind it. Also how much of that is still to come.
fn first_part(mut head: Vec<u8>, early: &[u8], body: u64) -> (Vec<u8>, u64) {
    let part = usize::try_from(body).unwrap_or(usize::MAX).min(early.len());
    head.extend_from_slice(&early[..part]);
    (head, body - part as u64)
}

/// Connects to where the client wants to; tells it why not, if not.
async fn connect<O: Outbound>(
    shared: &Shared<O>,
    stream: TcpStream,
    client: Client,
    target: &Target,
) -> Option<(TcpStream, O::Stream)> {
    let connected = tokio::select! {
        connected = timeout(shared.config.limits.connect, shared.outbound.connect(target, client)) => {
            connected.unwrap_or(Err(Refusal::TimedOut))
        }
        () = reset(&stream) => {
            debug!(address = %client.address, "client is gone before its connection");
            return None;
        }
    };
    match connected {
        Ok(outward) => {
            shared.tally.count(|c| &mut c.connected);
            Some((stream, outward))
        }
        Err(refusal) => {
            refuse(shared, stream, client, Some(target), &refusal).await;
            None
        }
    }
}

/// Relays to the end; `first` is for the server before anything else.
async fn relay(client: Client, mut stream: impl Stream, outward: impl Stream, first: Vec<u8>) {
    let granted = client.protocol.granted(None);
    // From here on, whatever breaks is passed on to the other end.
    let greeted = stream.write_all(&granted).await;
    let relay = Relay::new(stream, outward, first);
    let ended = match greeted {
        Ok(()) => relay.await,
        Err(error) => Err(error),
    };
    debug!(address = %client.address, error = ?ended.err(), "connection ended");
}

/// Tells the client why not.
pub(crate) async fn refuse<O>(
    shared: &Shared<O>,
    stream: TcpStream,
    client: Client,
    target: Option<&Target>,
    refusal: &Refusal,
) {
    shared.tally.count(|c: &mut Counters| &mut c.refused);
    debug!(address = %client.address, %refusal, "refused");
    end(stream, &client.protocol.refused(target, refusal)).await;
}

/// Says one last thing. What the client still sends is read for a while: were it not, the kernel would answer with a reset, which can
/// overtake what was said.
async fn end(mut stream: TcpStream, farewell: &[u8]) {
    if farewell.is_empty() {
        return;
    }
    let _ = timeout(FAREWELL, async {
        stream.write_all(farewell).await?;
        stream.shutdown().await?;
        let mut scrap = [0; 512];
        for _ in 0..FAREWELL_BYTES / scrap.len() {
            if stream.read(&mut scrap).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    })
    .await;
}

/// Ends when the client has reset its connection; not when it has merely said that it will send no more.
pub(crate) async fn reset(stream: &TcpStream) {
    while let Ok(ready) = stream.ready(Interest::ERROR).await {
        if ready.is_error() {
            return;
        }
    }
}
