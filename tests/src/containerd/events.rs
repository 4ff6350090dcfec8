//! What containerd's event service says about tasks.
//!
//! The order of a task's events is part of a runtime's contract:
//! <https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md>.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use prost::Message;

use super::{Daemon, grpc};
use crate::{lab::wait_until, process::patience};

/// One event of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Such as `create` or `exec-started`: the topic without `/tasks/`.
    pub topic: String,
    /// The container.
    pub container: String,
    /// The process in it: the container's id again for its first; empty where the event has none.
    pub process: String,
    /// Of an exit or a delete.
    pub status: Option<u32>,
    /// The process id that the runtime told.
    pub pid: Option<u32>,
}

/// A subscription to the events of tasks.
pub struct Events {
    receiver: Receiver<Event>,
    seen: Vec<Event>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Events {
    /// Everything from now on. Ends with containerd.
    ///
    /// # Panics
    /// When containerd does not take the subscription.
    pub fn subscribe(daemon: &Daemon) -> Self {
        let client = grpc::Client::new(&daemon.socket());
        let (sender, receiver) = channel();
        let (_stop, stopped) = tokio::sync::oneshot::channel();
        let following = client.clone();
        thread::spawn(move || {
            let follow = async {
                let request = Filters { filters: vec!["topic~=^/tasks/".into()] };
                let mut events = following.open::<Envelope>(&method("Subscribe"), &request).await?;
                while let Some(envelope) = events.next().await? {
                    forward(&sender, &envelope);
                }
                Ok::<(), grpc::Status>(())
            };
            let Ok(runtime) = grpc::runtime() else { return };
            runtime.block_on(async {
                tokio::select! { _ = follow => (), _ = stopped => () }
            });
        });
        // containerd does not say when it has taken a subscription, but events of our own arrive from then on.
        let probe = Publish { topic: "/tasks/probe".into(), event: Some(Any { value: Vec::new() }) };
        wait_until(Duration::from_secs(20), "the subscription", || {
            let sent: Result<Nothing, _> = client.call(&method("Publish"), &probe, Duration::from_secs(10));
            sent.unwrap_or_else(|error| panic!("an event of our own: {error}"));
            receiver.recv_timeout(Duration::from_millis(50)).is_ok()
        });
        Self { receiver, seen: Vec::new(), _stop }
    }

    /// Waits until an event fits; returns all so far.
    ///
    /// # Panics
    /// When `limit` passes first.
    pub fn wait(&mut self, limit: Duration, what: &str, fits: impl Fn(&Event) -> bool) -> &[Event] {
        let deadline = Instant::now() + patience(limit);
        while !self.seen.iter().any(&fits) {
            match self.receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => self.seen.push(event),
                Err(RecvTimeoutError::Timeout) => panic!("no {what} within {limit:?}; seen {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("containerd ended the subscription; seen {:#?}", self.seen)
                }
            }
        }
        &self.seen
    }

    /// The topics of `container` so far, in order; of processes other than the first with their id, such as `exit e1`.
    pub fn topics(&mut self, container: &str) -> Vec<String> {
        self.seen.extend(self.receiver.try_iter());
        let of = self.seen.iter().filter(|event| event.container == container);
        of.map(|event| match event.process.as_str() {
            "" => event.topic.clone(),
            process if process == container => event.topic.clone(),
            process => format!("{} {process}", event.topic),
        })
        .collect()
    }
}

fn method(name: &str) -> String {
    format!("/containerd.services.events.v1.Events/{name}")
}

fn forward(sender: &Sender<Event>, envelope: &Envelope) {
    let Some(any) = &envelope.event else { return };
    let bytes = any.value.as_slice();
    let topic = envelope.topic.trim_start_matches("/tasks/").to_owned();
    let event = |container: String, process: String, status, pid| Event {
        topic: topic.clone(),
        container,
        process,
        status,
        pid,
    };
    let read = match topic.as_str() {
        "create" => Created::decode(bytes).map(|e| event(e.container, String::new(), None, Some(e.pid))),
        "start" => Started::decode(bytes).map(|e| event(e.container, String::new(), None, Some(e.pid))),
        "exit" => Exited::decode(bytes).map(|e| event(e.container, e.id, Some(e.status), Some(e.pid))),
        "delete" => Deleted::decode(bytes).map(|e| event(e.container, e.id, Some(e.status), Some(e.pid))),
        _ => Other::decode(bytes).map(|e| event(e.container, e.process, None, None)),
    };
    if let Ok(event) = read {
        let _ = sender.send(event);
    }
}

#[derive(Message)]
struct Nothing {}

#[derive(Message)]
struct Publish {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(message, tag = "2")]
    event: Option<Any>,
}

#[derive(Message)]
struct Filters {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Message)]
struct Envelope {
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(message, tag = "4")]
    event: Option<Any>,
}

#[derive(Message)]
struct Any {
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Message)]
struct Created {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(uint32, tag = "6")]
    pid: u32,
}

#[derive(Message)]
struct Started {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(uint32, tag = "2")]
    pid: u32,
}

#[derive(Message)]
struct Exited {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(uint32, tag = "3")]
    pid: u32,
    #[prost(uint32, tag = "4")]
    status: u32,
}

#[derive(Message)]
struct Deleted {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(uint32, tag = "2")]
    pid: u32,
    #[prost(uint32, tag = "3")]
    status: u32,
    #[prost(string, tag = "5")]
    id: String,
}

/// exec-added, exec-started, oom, paused, resumed, checkpointed.
#[derive(Message)]
struct Other {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(string, tag = "2")]
    process: String,
}
