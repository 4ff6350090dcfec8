//! An ordered list of done steps, each with its undo.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::{Failure, Kind};

/// Undoes one step. Says what it could not undo.
pub type Undo = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// Told of every finished step.
pub trait Progress: Send {
    /// `name` is done; it took `took`; `detail` says with what result.
    fn step(&mut self, name: &'static str, took: Duration, detail: &str);

    /// Something that is not wrong, but hardly what was meant.
    fn warn(&mut self, text: &str);
}

/// Asks a running phase one to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A stop and the sender that triggers it with `true`.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Whether it was triggered.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Refuses to go on when it was triggered.
    ///
    /// # Errors
    /// [`Kind::Interrupted`].
    pub fn check(&self) -> Result<(), Failure> {
        if self.is_set() { Err(interrupted()) } else { Ok(()) }
    }

    /// Resolves when it is triggered, never when its sender is gone.
    pub async fn wait(&mut self) {
        if self.0.wait_for(|set| *set).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// `work`, unless the stop comes first.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut stop = self.clone();
        tokio::select! {
            done = work => done,
            () = stop.wait() => Err(interrupted()),
        }
    }
}

fn interrupted() -> Failure {
    Failure::new(Kind::Interrupted, "interrupted by a signal; everything done so far was undone")
}

struct Done {
    name: &'static str,
    undo: Undo,
}

/// The steps done so far. Dropping it undoes them, last first.
pub struct Steps<'a> {
    done: Vec<Done>,
    progress: Option<&'a mut dyn Progress>,
    stop: Stop,
}

impl<'a> Steps<'a> {
    /// No steps yet.
    pub fn new(progress: &'a mut dyn Progress, stop: Stop) -> Self {
        Self { done: Vec::new(), progress: Some(progress), stop }
    }

    /// Runs one step. `work` returns its result, how it is undone, and a word on the result for people. A step must
    /// undo its own half-done work when it fails.
    ///
    /// # Errors
    /// The step's, or that the start was interrupted.
    pub fn run<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<(T, Undo, String), Failure>,
    ) -> Result<T, Failure> {
        self.stop.check()?;
        let begun = Instant::now();
        let (value, undo, detail) = work().map_err(|failure| {
            let message = format!("{name}: {}", failure.message);
            Failure { message, ..failure }
        })?;
        self.done.push(Done { name, undo });
        if let Some(progress) = &mut self.progress {
            progress.step(name, begun.elapsed(), &detail);
        }
        Ok(value)
    }

    /// Tells the observer.
    pub(crate) fn warn(&mut self, text: &str) {
        if let Some(progress) = &mut self.progress {
            progress.warn(text);
        }
    }

    /// Ends the list's tie to its observer, so that it can be kept.
    pub fn finish(mut self) -> Steps<'static> {
        let done = std::mem::take(&mut self.done);
        Steps { done, progress: None, stop: self.stop.clone() }
    }

    /// Undoes everything, last first, and says what could not be undone.
    pub fn undo(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        while let Some(Done { name, undo }) = self.done.pop() {
            let begun = Instant::now();
            if let Err(error) = undo() {
                tracing::warn!(step = name, %error, "could not undo");
                left.push(format!("{name}: {error}"));
            }
            tracing::debug!(step = name, ms = begun.elapsed().as_secs_f64() * 1e3, "undone");
        }
        left
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        self.undo();
    }
}

/// An undo that has nothing to do.
pub(crate) fn nothing() -> Undo {
    Box::new(|| Ok(()))
}

/// An undo that drops `value`.
pub(crate) fn drops<T: Send + 'static>(value: T) -> Undo {
    Box::new(move || {
        drop(value);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    struct Silent;
    impl Progress for Silent {
        fn step(&mut self, _: &'static str, _: Duration, _: &str) {}
        fn warn(&mut self, _: &str) {}
    }

    type Log = Arc<Mutex<Vec<String>>>;

    fn undo(log: &Log, text: &str) -> Undo {
        let (log, text) = (log.clone(), text.to_owned());
        Box::new(move || {
            log.lock().unwrap().push(text);
            Ok(())
        })
    }

    #[test]
    fn a_failed_step_undoes_the_earlier_ones_in_reverse() {
        let log = Log::default();
        let (_sender, stop) = Stop::new();
        let mut silent = Silent;
        let mut steps = Steps::new(&mut silent, stop);
        for name in ["one", "two"] {
            steps.run(name, || Ok(((), undo(&log, name), String::new()))).unwrap();
        }
        let failed = steps.run("three", || -> Result<((), Undo, String), Failure> {
            Err(Failure::new(Kind::Kernel, "no"))
        });
        assert_eq!(failed.unwrap_err().message, "three: no");
        drop(steps);
        assert_eq!(*log.lock().unwrap(), ["two", "one"]);
    }

    #[test]
    fn a_stop_ends_the_list_before_its_next_step() {
        let (sender, stop) = Stop::new();
        let mut silent = Silent;
        let mut steps = Steps::new(&mut silent, stop);
        steps.run("one", || Ok(((), nothing(), String::new()))).unwrap();
        sender.send(true).unwrap();
        let failed = steps.run("two", || Ok(((), nothing(), String::new())));
        assert_eq!(failed.unwrap_err().kind, Kind::Interrupted);
    }
}
