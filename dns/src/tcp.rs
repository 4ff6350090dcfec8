//! DNS over TCP (RFC 7766): several connections, several queries in each, replies in the order in which they are ready.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Semaphore, mpsc},
    task::spawn_local,
    time::timeout,
};

use crate::{
    Transport, Why,
    limits::{MAX_CONNECTIONS, MAX_QUERY, TCP_IDLE, TCP_PIPELINE},
    query::Client,
    server::{ReplyTo, Shared},
};

/// Between two tries where the kernel has no descriptor or memory for us.
const BREATH: Duration = Duration::from_millis(50);

/// Accepts connections, and serves each in a task of its own.
pub(crate) async fn serve(shared: &Rc<Shared>, listener: &TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    shared.refused(Why::Connections);
                    continue;
                };
                let shared = Rc::clone(shared);
                drop(spawn_local(async move {
                    connection(&shared, stream, address).await;
                    drop(place);
                }));
            }
            Err(_) => tokio::time::sleep(BREATH).await,
        }
    }
}

async fn connection(shared: &Rc<Shared>, mut stream: TcpStream, address: SocketAddr) {
    let (reader, writer) = stream.split();
    let (replies, queue) = mpsc::channel(TCP_PIPELINE);
    tokio::join!(read(shared, reader, address, replies), write(writer, queue));
}

/// Reads queries until the agent ends, is idle, sends rubbish, or does not read. Ends the writing side by dropping `replies`,
/// once the queries that were read have their replies.
async fn read(
    shared: &Rc<Shared>,
    mut reader: ReadHalf<'_>,
    address: SocketAddr,
    replies: mpsc::Sender<Vec<u8>>,
) {
    let client = Client { address, transport: Transport::Tcp };
    // A place for the reply comes first: without one, nothing more is read.
    while let Ok(Ok(place)) = timeout(TCP_IDLE, replies.clone().reserve_owned()).await {
        let message = tokio::select! {
            () = replies.closed() => return,
            message = timeout(TCP_IDLE, read_message(&mut reader)) => message,
        };
        match message {
            Ok(Ok(Some(message))) => shared.receive(&message, client, ReplyTo::Tcp(place)),
            Ok(Ok(None)) => return shared.malformed(),
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// One message; none when it is too long to be a query.
async fn read_message(reader: &mut ReadHalf<'_>) -> io::Result<Option<Vec<u8>>> {
    let length = usize::from(reader.read_u16().await?);
    if length > MAX_QUERY {
        return Ok(None);
    }
    let mut message = vec![0; length];
    reader.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write(mut writer: WriteHalf<'_>, mut replies: mpsc::Receiver<Vec<u8>>) {
    while let Some(reply) = replies.recv().await {
        let Ok(length) = u16::try_from(reply.len()) else { return };
        let message = [&length.to_be_bytes(), reply.as_slice()].concat();
        if !matches!(timeout(TCP_IDLE, writer.write_all(&message)).await, Ok(Ok(()))) {
            return;
        }
    }
}
