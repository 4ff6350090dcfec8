//! The device's thread, as phase one sees it: what is to run there is sent there.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
};

use lattice_overlay::stack::Network;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_local,
};

use crate::{Failure, Kind, steps::Undo};

/// Makes a future there.
pub(super) type Work = Box<dyn FnOnce(Network) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// What has ended by itself first, if anything has.
pub(super) type Ended = watch::Receiver<Option<String>>;

/// Starts tasks on the device's thread.
pub(super) struct Tasks {
    work: mpsc::UnboundedSender<Work>,
    ended: Arc<watch::Sender<Option<String>>>,
}

/// A task there. Dropping it ends the task; its undo also waits until it has.
pub(super) struct Running {
    _stop: oneshot::Sender<()>,
    over: oneshot::Receiver<()>,
}

/// Tells, when it is dropped, that `what` has ended; also by a panic. Says nothing when that is empty.
struct Alarm {
    what: String,
    ended: Arc<watch::Sender<Option<String>>>,
}

/// What the device is to run: it takes on what is sent by the [`Tasks`].
pub(super) fn tasks() -> (Tasks, Ended, Work) {
    let (work, mut works) = mpsc::unbounded_channel::<Work>();
    let (ended, receiver) = watch::channel(None);
    let ended = Arc::new(ended);
    let alarm = Alarm { what: "the overlay's device".into(), ended: ended.clone() };
    let serve = |network: Network| {
        let serve = async move {
            // Dropped with the device's thread, in whatever way that ends.
            let _alarm = alarm;
            while let Some(work) = works.recv().await {
                spawn_local(work(network.clone()));
            }
            pending().await
        };
        Box::pin(serve) as _
    };
    (Tasks { work, ended }, receiver, Box::new(serve))
}

impl Tasks {
    /// Has `work` set something up, and runs the future that this gives until it ends or the [`Running`] is dropped. That it ends by itself is told
    /// as the end of `what`.
    ///
    /// # Errors
    /// That of `work`, or that the device has ended.
    pub(super) fn start<T, F, R>(
        &self,
        what: &str,
        work: impl FnOnce(Network) -> F + Send + 'static,
    ) -> Result<(T, Running), Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<(T, R), Failure>> + 'static,
        R: Future<Output = ()>,
    {
        let (tell, told) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let (alive, over) = oneshot::channel();
        let mut alarm = Alarm { what: what.into(), ended: self.ended.clone() };
        let serve = async move |network| match work(network).await {
            Ok((value, run)) => {
                let _ = tell.send(Ok(value));
                run.await;
                true
            }
            Err(failure) => {
                let _ = tell.send(Err(failure));
                false
            }
        };
        let work: Work = Box::new(move |network| {
            Box::pin(async move {
                let _alive = alive;
                let has_run = tokio::select! {
                    _ = stopped => false,
                    has_run = serve(network) => has_run,
                };
                if !has_run {
                    alarm.what.clear();
                }
            })
        });
        // Where the device has ended, it is dropped, and so tells nothing.
        let _ended = self.work.send(work);
        let gone =
            |_| Failure::new(Kind::Internal, "the overlay's device has ended; start the sandbox again");
        let stands = told.blocking_recv().map_err(gone)??;
        Ok((stands, Running { _stop: stop, over }))
    }
}

impl Running {
    /// Ends the task.
    pub(super) fn undo(self) -> Undo {
        Box::new(move || {
            let Self { _stop: stop, over } = self;
            drop(stop);
            // The task never sends; it is over when its end of the channel is gone.
            let _over = over.blocking_recv();
            Ok(())
        })
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if !self.what.is_empty() {
            let what = std::mem::take(&mut self.what);
            self.ended.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(what);
                is_first
            });
        }
    }
}
