//! The way to containerd: `containerd.services.events.ttrpc.v1.Events/Forward`.

use std::{sync::Arc, time::Duration};

use containerd_shim_protos::{
    protobuf::MessageField,
    shim::{event::Envelope, events::ForwardRequest},
    shim_async::{Client, EventsClient},
    ttrpc::{self, context},
};

use super::queue::Queue;

/// Of one try.
const TRY_LIMIT: Duration = Duration::from_secs(5);
/// After a failed try, doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often containerd may refuse one event before it is given up: it would hold up all later ones.
const MAX_REFUSALS: u32 = 5;

/// containerd, with a connection while there is one.
pub(super) struct Containerd {
    address: String,
    client: Option<EventsClient>,
}

/// Takes events from the queue one by one, for ever. Without a target they are logged.
pub(super) async fn run(queue: Arc<Queue>, mut target: Option<Containerd>) {
    loop {
        let (number, envelope) = queue.next().await;
        match &mut target {
            Some(containerd) => containerd.deliver(envelope).await,
            None => tracing::info!(topic = envelope.topic, "event"),
        }
        queue.done(number);
    }
}

impl Containerd {
    /// `address` is a path, or a URL of scheme `unix`.
    pub(super) fn at(address: &str) -> Self {
        let scheme = if address.contains("://") { "" } else { "unix://" };
        Self { address: format!("{scheme}{address}"), client: None }
    }

    /// Returns when containerd has it, or has refused it often enough.
    async fn deliver(&mut self, envelope: Envelope) {
        let topic = envelope.topic.clone();
        let request = ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() };
        let (mut pause, mut refusals) = (FIRST_PAUSE, 0);
        loop {
            let was_connected = self.client.is_some();
            let error = match tokio::time::timeout(TRY_LIMIT, self.forward(&request)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(_) => ttrpc::Error::Others(format!("no answer within {} s", TRY_LIMIT.as_secs())),
            };
            if matches!(error, ttrpc::Error::RpcStatus(_)) {
                refusals += 1;
                if refusals == MAX_REFUSALS {
                    return tracing::error!(topic, %error, "containerd refuses an event: it is lost");
                }
            } else {
                self.client = None;
                // A connection from before containerd's restart: the new one may well be there.
                if was_connected {
                    continue;
                }
            }
            tracing::debug!(topic, %error, "an event has to wait");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn forward(&mut self, request: &ForwardRequest) -> ttrpc::Result<()> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(EventsClient::new(Client::connect(&self.address).await?)),
        };
        client.forward(context::with_duration(TRY_LIMIT), request).await.map(drop)
    }
}
