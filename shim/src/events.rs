//! Events to containerd, in the order in which they were published (`core/runtime/v2/README.md`).
//!
//! One queue and one worker: an event is tried until containerd has it, and only then the next. While containerd is away
//! the queue grows to its bound.

mod forward;
mod queue;

use std::{sync::Arc, time::Duration};

use containerd_shim_protos::{
    events,
    protobuf::{
        MessageDyn, MessageField, well_known_types::any::Any, well_known_types::timestamp::Timestamp,
    },
    shim::event::Envelope,
    topics,
};

use queue::Queue;

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// `/tasks/create`
    Create(events::task::TaskCreate),
    /// `/tasks/start`
    Start(events::task::TaskStart),
    /// `/tasks/exec-added`
    ExecAdded(events::task::TaskExecAdded),
    /// `/tasks/exec-started`
    ExecStarted(events::task::TaskExecStarted),
    /// `/tasks/exit`
    Exit(events::task::TaskExit),
    /// `/tasks/delete`
    Delete(events::task::TaskDelete),
    /// `/tasks/paused`
    Paused(events::task::TaskPaused),
    /// `/tasks/resumed`
    Resumed(events::task::TaskResumed),
    /// `/tasks/checkpointed`
    Checkpointed(events::task::TaskCheckpointed),
    /// `/tasks/oom`
    Oom(events::task::TaskOOM),
}

impl Event {
    /// Its topic.
    pub fn topic(&self) -> &'static str {
        match self {
            Self::Create(_) => topics::TASK_CREATE_EVENT_TOPIC,
            Self::Start(_) => topics::TASK_START_EVENT_TOPIC,
            Self::ExecAdded(_) => topics::TASK_EXEC_ADDED_EVENT_TOPIC,
            Self::ExecStarted(_) => topics::TASK_EXEC_STARTED_EVENT_TOPIC,
            Self::Exit(_) => topics::TASK_EXIT_EVENT_TOPIC,
            Self::Delete(_) => topics::TASK_DELETE_EVENT_TOPIC,
            Self::Paused(_) => topics::TASK_PAUSED_EVENT_TOPIC,
            Self::Resumed(_) => topics::TASK_RESUMED_EVENT_TOPIC,
            Self::Checkpointed(_) => topics::TASK_CHECKPOINTED_EVENT_TOPIC,
            Self::Oom(_) => topics::TASK_OOM_EVENT_TOPIC,
        }
    }

    /// Its body.
    pub fn body(&self) -> &dyn MessageDyn {
        match self {
            Self::Create(body) => body,
            Self::Start(body) => body,
            Self::ExecAdded(body) => body,
            Self::ExecStarted(body) => body,
            Self::Exit(body) => body,
            Self::Delete(body) => body,
            Self::Paused(body) => body,
            Self::Resumed(body) => body,
            Self::Checkpointed(body) => body,
            Self::Oom(body) => body,
        }
    }

    fn envelope(&self, namespace: &str) -> Result<Envelope, containerd_shim_protos::protobuf::Error> {
        let body = self.body();
        // containerd's typeurl knows messages by their bare names.
        let type_url = body.descriptor_dyn().full_name().to_owned();
        Ok(Envelope {
            timestamp: MessageField::some(Timestamp::now()),
            namespace: namespace.to_owned(),
            topic: self.topic().to_owned(),
            event: MessageField::some(Any { type_url, value: body.write_to_bytes_dyn()?, ..Any::default() }),
            ..Envelope::default()
        })
    }
}

/// Publishes events. Cheap to clone; all clones share one queue.
#[derive(Debug, Clone)]
pub struct Publisher {
    queue: Arc<Queue>,
    namespace: Arc<str>,
}

impl Publisher {
    /// `address` is containerd's ttrpc socket (`TTRPC_ADDRESS`); without one (CRI-O) events are logged. Inside a runtime.
    pub fn start(address: Option<&str>, namespace: &str) -> Self {
        let queue = Arc::new(Queue::default());
        let target = address.filter(|address| !address.is_empty()).map(forward::Containerd::at);
        tokio::spawn(forward::run(Arc::clone(&queue), target));
        Self { queue, namespace: namespace.into() }
    }

    /// Takes an event into the queue; never blocks, never reorders. When containerd was away so long that the queue is full, the
    /// oldest go, and that is logged.
    pub fn publish(&self, event: Event) {
        match event.envelope(&self.namespace) {
            Ok(envelope) => self.queue.push(envelope),
            Err(error) => tracing::error!(topic = event.topic(), %error, "an event cannot be encoded"),
        }
    }

    /// Waits until everything published so far was taken, at most `limit`.
    pub async fn flush(&self, limit: Duration) {
        // What is not taken by then stays in the queue; whoever waits has said how long it may take.
        let _ = tokio::time::timeout(limit, self.queue.taken_so_far()).await;
    }
}

#[cfg(test)]
mod tests;
