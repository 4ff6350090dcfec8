//! The copies of output. Each is a task of the runtime's: a slow reader makes the process wait, not us grow.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::OwnedFd,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{SpliceFFlags, splice},
    poll::PollFlags,
};
use tokio::{
    net::unix::pipe::{Receiver, Sender},
    sync::watch,
    task::coop::consume_budget,
    time::timeout,
};

use super::fifo::{Output, is_ready};

/// What one call moves at most: a pipe holds no more unless told to.
pub(super) const CHUNK: usize = 64 << 10;
/// How soon to look again for a reader that is away at the end, first and at most.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_secs(2);

/// True once the process's output is no longer waited for.
pub(super) type Ending = watch::Receiver<bool>;

/// Copies what a process writes until all its writers have closed, or `to` can no longer be written.
pub(super) async fn copy_output(from: Receiver, to: Output, ending: Ending) -> io::Result<()> {
    match to {
        Output::Fifo(fifo, hold) => deliver(splice_all(&from, &fifo), &fifo, hold, ending).await,
        Output::File(file) => append_all(&from, &file).await,
        Output::Logger(pipe) => splice_all(&from, &pipe).await,
    }
}

/// Runs `copy` into `fifo`. Until the end, `hold` keeps the FIFO readable: what is written while containerd is away stays there.
/// When ending, a FIFO that nobody else reads fails the copy at once: nobody will come.
pub(super) async fn deliver(
    copy: impl Future<Output = io::Result<()>>,
    fifo: &Sender,
    hold: OwnedFd,
    mut ending: Ending,
) -> io::Result<()> {
    let mut copy = std::pin::pin!(copy);
    let result = tokio::select! {
        result = &mut copy => Some(result),
        _ = ending.wait_for(|is_ending| *is_ending) => None,
    };
    drop(hold);
    match result {
        Some(Ok(())) => wait_for_reader(fifo, ending).await,
        Some(Err(error)) => Err(error),
        None => copy.await,
    }
}

/// A reader that is away, as containerd is while it restarts, cannot open the FIFO once its last writer is gone, and what is in
/// it goes with the last that has it open.
async fn wait_for_reader(fifo: &Sender, mut ending: Ending) -> io::Result<()> {
    let mut pause = FIRST_LOOK;
    while !*ending.borrow_and_update() && is_ready(fifo, PollFlags::POLLERR)? {
        if timeout(pause, ending.changed()).await.is_ok_and(|changed| changed.is_err()) {
            break;
        }
        pause = LAST_LOOK.min(pause * 2);
    }
    Ok(())
}

/// Moves pages from one pipe to the other (`splice(2)`): nothing is copied, and no memory is ours.
async fn splice_all(from: &Receiver, to: &Sender) -> io::Result<()> {
    loop {
        consume_budget().await;
        from.readable().await?;
        match from.try_io(|| splice_some(from, to)) {
            Ok(Moved::Some) => {}
            Ok(Moved::End) => return Ok(()),
            Ok(Moved::NoRoom) => wait_for_room(to).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

enum Moved {
    Some,
    NoRoom,
    End,
}

/// `WouldBlock` is for `from` alone: the kernel's own does not say which of the two was meant.
fn splice_some(from: &Receiver, to: &Sender) -> io::Result<Moved> {
    match splice(from, None, to, None, CHUNK, SpliceFFlags::SPLICE_F_NONBLOCK) {
        Ok(0) => Ok(Moved::End),
        Ok(_) | Err(Errno::EINTR) => Ok(Moved::Some),
        // We are the only reader: what is there stays there.
        Err(Errno::EAGAIN) if is_ready(from, PollFlags::POLLIN)? => Ok(Moved::NoRoom),
        Err(error) => Err(error.into()),
    }
}

async fn wait_for_room(to: &Sender) -> io::Result<()> {
    let has_room = || is_ready(to, PollFlags::POLLOUT | PollFlags::POLLERR);
    // Makes the runtime forget that it could be written, unless it can again.
    let _ = to.try_io(|| if has_room()? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) });
    to.writable().await
}

async fn append_all(from: &Receiver, file: &File) -> io::Result<()> {
    loop {
        from.readable().await?;
        // Not kept while nothing comes.
        let mut buffer = vec![0; CHUNK];
        loop {
            match from.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => append(file, &buffer[..read]).await?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
}

pub(super) async fn append(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    consume_budget().await;
    file.write_all(bytes)
}
