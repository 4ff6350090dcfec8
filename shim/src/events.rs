//! Events to containerd, in the order in which they were published (`core/runtime/v2/README.md`).

use containerd_shim_protos::{events, protobuf::MessageDyn};

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
        todo!()
    }

    /// Its body.
    pub fn body(&self) -> &dyn MessageDyn {
        todo!()
    }
}

/// Publishes events. Cheap to clone; all clones share one queue.
#[derive(Debug, Clone)]
pub struct Publisher {}

impl Publisher {
    /// `address` is containerd's ttrpc socket (`TTRPC_ADDRESS`); without one (CRI-O) events are logged.
    pub fn start(_address: Option<&str>, _namespace: &str) -> Self {
        todo!()
    }

    /// Takes an event into the queue; never blocks, never reorders. When containerd was away so long that the queue is full, the
    /// oldest go, and that is logged.
    pub fn publish(&self, _event: Event) {
        todo!()
    }

    /// Waits until everything published so far was taken, at most `limit`.
    pub async fn flush(&self, _limit: std::time::Duration) {
        todo!()
    }
}
