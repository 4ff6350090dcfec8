use std::sync::Mutex;

use async_trait::async_trait;
use containerd_shim_protos::{
    protobuf::{Message, well_known_types::empty::Empty},
    shim::events::ForwardRequest,
    shim_async::{Events, create_events},
    ttrpc::{self, r#async::TtrpcContext, asynchronous::Server},
};

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

/// containerd's side: keeps what it is told, and refuses what it is told to refuse.
#[derive(Default)]
struct Log {
    taken: Mutex<Vec<Envelope>>,
    refuse: Mutex<Option<u32>>,
}

struct Sink(Arc<Log>);

#[async_trait]
impl Events for Sink {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let envelope = request.envelope.unwrap();
        if *self.0.refuse.lock().unwrap() == Some(pid_of(&envelope)) {
            return Err(ttrpc::Error::RpcStatus(ttrpc::get_status(ttrpc::Code::INVALID_ARGUMENT, "no")));
        }
        self.0.taken.lock().unwrap().push(envelope);
        Ok(Empty::new())
    }
}

async fn serve(dir: &tempfile::TempDir, log: &Arc<Log>) -> Server {
    let address = socket(dir);
    let _ = std::fs::remove_file(address.trim_start_matches("unix://"));
    let sink = create_events(Arc::new(Sink(Arc::clone(log))));
    let mut server = Server::new().bind(&address).unwrap().register_service(sink);
    server.start().await.unwrap();
    server
}

fn socket(dir: &tempfile::TempDir) -> String {
    format!("unix://{}/c.sock", dir.path().display())
}

fn start(pid: u32) -> Event {
    Event::Start(events::task::TaskStart { container_id: "a".into(), pid, ..Default::default() })
}

fn pid_of(envelope: &Envelope) -> u32 {
    events::task::TaskStart::parse_from_bytes(&envelope.event.value).unwrap().pid
}

fn pids(log: &Log) -> Vec<u32> {
    log.taken.lock().unwrap().iter().map(pid_of).collect()
}

#[tokio::test]
async fn containerd_reads_what_was_published() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Arc::new(Log::default()));
    let _server = serve(&dir, &log).await;
    let publisher = Publisher::start(Some(socket(&dir).trim_start_matches("unix://")), "k8s.io");
    publisher.publish(start(7));
    publisher.flush(LIMIT).await;
    let taken = log.taken.lock().unwrap();
    let [envelope] = taken.as_slice() else { panic!("{taken:?}") };
    assert_eq!(envelope.namespace, "k8s.io");
    assert_eq!(envelope.topic, "/tasks/start");
    assert_eq!(envelope.event.type_url, "containerd.events.TaskStart");
    assert_eq!(pid_of(envelope), 7);
    assert!(envelope.timestamp.seconds > 0);
}

#[tokio::test]
async fn nothing_is_lost_or_reordered_while_containerd_is_away() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Arc::new(Log::default()));
    let publisher = Publisher::start(Some(&socket(&dir)), "default");
    (0..100).for_each(|pid| publisher.publish(start(pid)));
    publisher.flush(Duration::from_millis(200)).await;
    assert!(pids(&log).is_empty());
    let mut server = serve(&dir, &log).await;
    publisher.flush(LIMIT).await;

    // Restarted: the connection that the publisher has is a dead one.
    server.shutdown().await.unwrap();
    drop(server);
    (100..200).for_each(|pid| publisher.publish(start(pid)));
    publisher.flush(Duration::from_millis(50)).await;
    let _server = serve(&dir, &log).await;
    (200..300).for_each(|pid| publisher.publish(start(pid)));
    publisher.flush(LIMIT).await;
    assert_eq!(pids(&log), (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_queue_loses_the_oldest() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Arc::new(Log::default()));
    let publisher = Publisher::start(Some(&socket(&dir)), "default");
    let most = u32::try_from(queue::MOST).unwrap();
    (0..most + 10).for_each(|pid| publisher.publish(start(pid)));
    let _server = serve(&dir, &log).await;
    publisher.flush(LIMIT).await;
    assert_eq!(pids(&log), (10..most + 10).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_event_that_containerd_refuses_does_not_hold_up_the_others() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Arc::new(Log::default()));
    *log.refuse.lock().unwrap() = Some(1);
    let _server = serve(&dir, &log).await;
    let publisher = Publisher::start(Some(&socket(&dir)), "default");
    (0..3).for_each(|pid| publisher.publish(start(pid)));
    publisher.flush(LIMIT).await;
    assert_eq!(pids(&log), [0, 2]);
}

#[tokio::test]
async fn without_containerd_s_socket_events_are_logged_and_done() {
    let publisher = Publisher::start(None, "default");
    publisher.publish(start(1));
    let done = tokio::time::timeout(LIMIT, publisher.flush(2 * LIMIT)).await;
    assert!(done.is_ok());
}

#[test]
fn topics_are_containerd_s() {
    let exit = Event::Exit(events::task::TaskExit::default());
    assert_eq!(exit.topic(), "/tasks/exit");
    assert_eq!(exit.body().descriptor_dyn().full_name(), "containerd.events.TaskExit");
    assert_eq!(Event::Oom(events::task::TaskOOM::default()).topic(), "/tasks/oom");
}
