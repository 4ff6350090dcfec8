//! The gateway's task. It waits for packets, for the owner's tasks and for time; what is idle is woken by nothing.

use std::{
    future::{pending, poll_fn},
    io,
    os::fd::AsFd as _,
    rc::Rc,
    sync::{Arc, mpsc::SyncSender},
    task::Poll,
    time::Duration,
};

use lattice_netstack::Stack;
use tokio::time::sleep_until;

use super::{
    Gateway, Serve,
    pipe::Pipes,
    state::{Shared, State},
};
use crate::{device::UserFilter, stack::epoll::Watched};

/// How long the owner may take to answer a request: longer than a kernel tries to connect (`tcp_syn_retries` of `tcp(7)`), so that what an agent
/// sends again meanwhile is known.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(150);

/// Runs until the device, or `serve`, has ended.
pub(super) async fn run(
    stack: Stack,
    pipes: Arc<Pipes>,
    filter: UserFilter,
    serve: Serve,
    tell: &SyncSender<io::Result<()>>,
) {
    let bell = match Watched::readable(pipes.out.as_fd()) {
        Ok(bell) => bell,
        Err(error) => return drop(tell.send(Err(error))),
    };
    let shared = Rc::new(Shared::new(stack, pipes, filter));
    let _started = tell.send(Ok(()));
    let served = tokio::task::spawn_local(serve(Gateway(Rc::clone(&shared))));
    tokio::select! {
        () = turns(&shared, &bell) => {}
        ended = served => {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the way out of the overlay failed");
            }
        }
    }
}

async fn turns(shared: &Shared, bell: &Watched) {
    while !shared.pipes.has_ended() {
        bell.clear();
        shared.turn();
        // Those who were told something have their turn first.
        tokio::task::yield_now().await;
        let at = shared.state().poll_at();
        tokio::select! {
            () = poll_fn(|context| if bell.is_ready(context) { Poll::Ready(()) } else { Poll::Pending }) => {}
            () = shared.used.notified() => {}
            () = async {
                match at {
                    Some(at) => sleep_until(at.into()).await,
                    None => pending().await,
                }
            } => {}
        }
    }
}

impl State {
    /// When the stack is to be called though nothing happens.
    fn poll_at(&self) -> Option<std::time::Instant> {
        self.stack.poll_at()
    }
}
