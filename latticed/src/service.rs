//! The NATS service: answers peers and those who want to become one.
//!
//! Two things are taken from NATS and nothing else: the subject of a peer's request names the peer, because the server
//! lets only that peer publish there; and the reply subject is *not* trusted, because the requester chooses it.

mod enroll;
mod peers;

use std::{future::Future, sync::Arc, time::Duration};

use async_nats::{Message, Subject, Subscriber};
use futures::StreamExt as _;
use lattice_wire::{
    message::{MAX_MESSAGE, Refusal, RefusalCode, Reply},
    subject::{self, PeerVerb},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{task::JoinSet, time::timeout};
use tracing::{debug, error};

use crate::{
    app::App,
    limit::RateLimiter,
    nats::{MAX_PEER_PAYLOAD, NatsError},
    store::StoreError,
};

/// Requests of one kind that are worked on at the same time.
const CONCURRENCY: usize = 32;
const DEADLINE: Duration = Duration::from_secs(15);
/// What one peer may ask in a row, and per second. Maps grow with the workspace, so they are dear.
const PEER_BURST: u32 = 40;
const PEER_PER_SECOND: u32 = 5;

/// Subscribes and answers in the background, until the set is dropped.
///
/// # Errors
/// When NATS takes no subscription.
pub async fn start(app: Arc<App>) -> Result<JoinSet<()>, NatsError> {
    let mut tasks = JoinSet::new();
    let enrolments = app.nats.queue_subscribe(subject::ENROLL, subject::QUEUE.into()).await?;
    let limits = Arc::new(enroll::Limits::default());
    tasks.spawn(answer_all(enrolments, Arc::clone(&app), move |app, message| {
        let limits = Arc::clone(&limits);
        async move { enroll::handle(&app, &limits, message).await }
    }));

    let limiter = Arc::new(RateLimiter::new(PEER_BURST, PEER_PER_SECOND, 20_000));
    for verb in PeerVerb::ALL {
        let requests = app.nats.queue_subscribe(subject::any_peer(verb), subject::QUEUE.into()).await?;
        let limiter = Arc::clone(&limiter);
        tasks.spawn(answer_all(requests, Arc::clone(&app), move |app, message| {
            let limiter = Arc::clone(&limiter);
            async move { peers::handle(&app, &limiter, message).await }
        }));
    }
    app.nats.flush().await.map_err(|e| NatsError::Flush(e.to_string()))?;
    Ok(tasks)
}

async fn answer_all<F, Fut>(requests: Subscriber, app: Arc<App>, handle: F)
where
    F: Fn(Arc<App>, Message) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    requests
        .for_each_concurrent(CONCURRENCY, |message| {
            let subject = message.subject.clone();
            // A task of its own, so that it goes on to its end: were it dropped after a commit, nobody would be told of the change.
            // What it waits for, the store, gives up by itself.
            let answered = timeout(DEADLINE, tokio::spawn(handle(Arc::clone(&app), message)));
            async move {
                match answered.await {
                    Ok(Ok(())) => {}
                    Ok(Err(failed)) => error!(%subject, %failed, "request not answered"),
                    Err(_) => error!(%subject, "request could not be answered in time"),
                }
            }
        })
        .await;
}

/// Parses a request.
fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Refusal> {
    if payload.len() > MAX_PEER_PAYLOAD {
        return Err(refusal(
            RefusalCode::Malformed,
            format!("request is bigger than {MAX_PEER_PAYLOAD} bytes"),
        ));
    }
    serde_json::from_slice(payload)
        .map_err(|e| refusal(RefusalCode::Malformed, format!("request cannot be read: {e}")))
}

/// Sends a reply to a subject that the caller has checked.
async fn reply<T: Serialize>(app: &App, to: Subject, result: Result<T, Refusal>) {
    let reply = match result {
        Ok(value) => Reply::Ok(value),
        Err(refusal) => Reply::Error(refusal),
    };
    let payload = match serde_json::to_vec(&reply) {
        Ok(payload) if payload.len() <= MAX_MESSAGE => payload,
        Ok(payload) => return error!(bytes = payload.len(), "reply is too big to send"),
        Err(error) => return error!(%error, "reply cannot be encoded"),
    };
    if let Err(error) = app.nats.publish(to, payload.into()).await {
        debug!(%error, "reply lost");
    }
}

fn refusal(code: RefusalCode, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into() }
}

/// What a requester is told of a failure of ours; the log gets the rest.
fn internal(error: &StoreError) -> Refusal {
    error!(%error, "request failed");
    match error {
        StoreError::Away(_) | StoreError::Full(_) => {
            refusal(RefusalCode::Unavailable, "latticed's database takes nothing for now: try again later")
        }
        _ => refusal(RefusalCode::Internal, "latticed failed; its log says how"),
    }
}
