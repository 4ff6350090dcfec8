//! Tells NATS which users are revoked, over a connection in the system account. A server that learns of it closes their
//! connections at once and refuses them from then on.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, Event};
use serde_json::Value;
use tokio::{
    sync::{Mutex, Notify},
    time::timeout,
};
use tracing::{debug, info};

use super::{
    Issuer, NatsError, NatsUrl,
    client::{self, User},
    files::Files,
    issuer::{self, Revoked, Trust},
};
use lattice_wire::message::TlsTrust;

const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// The way to every server's list of revoked users.
#[derive(Debug)]
pub struct Revoker {
    client: Client,
    subject: String,
    files: Files,
    /// What the servers were last told. Held while they are told, so that they hear it in order.
    told: Mutex<Told>,
    due: Arc<Notify>,
}

#[derive(Debug)]
struct Told {
    revoked: Revoked,
    trust: Trust,
    /// Whether it is in the files, too.
    written: bool,
}

impl Revoker {
    /// Connects. `revoked` and `trust` are what the server was started with, and `files` where that is kept.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn connect(
        issuer: &Issuer,
        url: &NatsUrl,
        tls: Option<&TlsTrust>,
        files: Files,
        (revoked, trust): (Revoked, Trust),
        now: i64,
    ) -> Result<Self, NatsError> {
        let key = issuer::new_user()?;
        let inbox = format!("_INBOX_{}", key.public_key());
        let jwt = issuer.system(&key, &inbox, now)?;
        let due = Arc::new(Notify::new());
        let connected = Arc::clone(&due);
        let user = User { name: "latticed-system", key, jwt };
        let options = client::options(user, tls)?.custom_inbox_prefix(inbox).event_callback(move |event| {
            if matches!(event, Event::Connected) {
                connected.notify_one();
            }
            async {}
        });
        let client = client::open(options, url, &files.config()).await?;
        let subject = issuer::claims_update(&issuer.account());
        Ok(Self { client, subject, files, told: Mutex::new(Told { revoked, trust, written: true }), due })
    }

    /// That somebody was removed: makes [`Revoker::due`] ready.
    pub fn changed(&self) {
        self.due.notify_one();
    }

    /// Ready when the servers should be told: after [`Revoker::changed`], and when the connection is a new one.
    pub async fn due(&self) {
        self.due.notified().await;
    }

    /// Makes every server refuse exactly `revoked`. The same again changes nothing, but is told once more: a server may have
    /// missed it.
    ///
    /// # Errors
    /// When no server took it, or, although they did, the configuration cannot be written.
    pub async fn set(&self, issuer: &Issuer, revoked: Revoked, now: i64) -> Result<(), NatsError> {
        let mut told = self.told.lock().await;
        if told.revoked != revoked {
            let trust = issuer.trust(&revoked, now)?;
            info!(users = revoked.len(), "NATS is told of the revoked users");
            *told = Told { revoked, trust, written: false };
        }
        // A full disk must not keep the servers that run from being told.
        let written = if told.written { Ok(()) } else { self.files.write(&told.trust) };
        told.written = written.is_ok();
        self.tell(issuer, &told).await?;
        written
    }

    async fn tell(&self, issuer: &Issuer, told: &Told) -> Result<(), NatsError> {
        let account = issuer.account();
        let jwt = told.trust.accounts.iter().find(|(key, _)| *key == account).map(|(_, jwt)| jwt.clone());
        let request = self.client.request(self.subject.clone(), jwt.unwrap_or_default().into());
        let reply = timeout(REPLY_TIMEOUT, request)
            .await
            .map_err(|_| NatsError::Revoke("no server answers".into()))?
            .map_err(|error| NatsError::Revoke(error.to_string()))?;
        let answer: Value = serde_json::from_slice(&reply.payload).unwrap_or_default();
        if answer["data"]["code"] != 200 {
            let answer: String = String::from_utf8_lossy(&reply.payload).chars().take(300).collect();
            return Err(NatsError::Revoke(answer.escape_debug().to_string()));
        }
        debug!(users = told.revoked.len(), "NATS knows the revoked users");
        Ok(())
    }
}
