//! A process's terminal: runsc makes it, sends us the master side, and we copy both ways.

use std::{
    convert::Infallible,
    fs,
    future::pending,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::unistd::mkdtemp;
use tokio::{
    io::Interest,
    net::{
        UnixListener,
        unix::pipe::{Receiver, Sender},
    },
    sync::Notify,
    task::coop::consume_budget,
};

use super::{
    copy::{Ending, append, deliver},
    fifo::Output,
    scm,
    tty::Tty,
};

/// `sun_path` holds this many bytes, and a zero (`unix(7)`).
const MAX_SOCKET_PATH: usize = 107;
/// A terminal gives no more at once.
const CHUNK: usize = 4096;

/// A socket that only root can reach. Removed when dropped.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Made because the path would have been too long.
    short_dir: Option<PathBuf>,
}

impl Socket {
    /// Listens in `dir`, or, when its path is too long for a socket, in a short-lived private directory beside the system's sockets.
    pub(super) fn listen(dir: &Path) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (path, short_dir) = match dir.join(format!("tty-{}", NEXT.fetch_add(1, Ordering::Relaxed))) {
            path if path.as_os_str().len() <= MAX_SOCKET_PATH => (path, None),
            _ => {
                let short = mkdtemp("/run/lattice-tty-XXXXXX")?;
                (short.join("tty"), Some(short))
            }
        };
        match UnixListener::bind(&path) {
            Ok(listener) => Ok(Self { listener, path, short_dir }),
            Err(error) => {
                short_dir.iter().for_each(|dir| drop(fs::remove_dir(dir)));
                Err(error)
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the terminal that the first comer sends.
    pub(super) async fn accept(&self) -> io::Result<Tty> {
        let (stream, _) = self.listener.accept().await?;
        Tty::new(stream.async_io(Interest::READABLE, || scm::receive(stream.as_fd())).await?)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        self.short_dir.iter().for_each(|dir| drop(fs::remove_dir(dir)));
    }
}

/// Copies both ways until nobody has the terminal open any more. When the input ends, the terminal hangs up: what it has to
/// say by then is still read.
pub(super) async fn copy(
    tty: Arc<Tty>,
    input: Option<Receiver>,
    output: Option<Output>,
    ending: Ending,
) -> io::Result<()> {
    match output {
        None => copy_both(&tty, input, Sink::Null).await,
        Some(Output::File(file)) => copy_both(&tty, input, Sink::File(&file)).await,
        Some(Output::Logger(pipe)) => copy_both(&tty, input, Sink::Pipe(&pipe)).await,
        Some(Output::Fifo(fifo, hold)) => {
            deliver(copy_both(&tty, input, Sink::Pipe(&fifo)), &fifo, hold, ending).await
        }
    }
}

async fn copy_both(tty: &Tty, input: Option<Receiver>, sink: Sink<'_>) -> io::Result<()> {
    let hang_up = Notify::new();
    let write = async {
        if let Some(from) = input {
            if let Err(error) = write_terminal(&from, tty).await {
                tracing::debug!(%error, "the terminal takes no more input");
            }
            hang_up.notify_one();
        }
        pending::<Infallible>().await
    };
    tokio::select! {
        result = read_terminal(tty, &sink, &hang_up) => result,
        never = write => match never {},
    }
}

async fn read_terminal(tty: &Tty, sink: &Sink<'_>, hang_up: &Notify) -> io::Result<()> {
    let mut is_last = false;
    while !is_last {
        tokio::select! {
            ready = tty.readable() => ready?,
            () = hang_up.notified() => is_last = true,
        }
        // Not kept while nothing comes.
        let mut buffer = vec![0; CHUNK];
        loop {
            match tty.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => sink.write_all(&buffer[..read]).await?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

async fn write_terminal(from: &Receiver, tty: &Tty) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match from.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => tty.write_all(&buffer[..read]).await?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            consume_budget().await;
        }
    }
}

enum Sink<'a> {
    Null,
    Pipe(&'a Sender),
    File(&'a fs::File),
}

impl Sink<'_> {
    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        let pipe = match self {
            Self::Null => {
                consume_budget().await;
                return Ok(());
            }
            Self::File(file) => return append(file, bytes).await,
            Self::Pipe(pipe) => pipe,
        };
        while !bytes.is_empty() {
            consume_budget().await;
            pipe.writable().await?;
            match pipe.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
