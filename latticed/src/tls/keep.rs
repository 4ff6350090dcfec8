//! Makes the certificates anew while latticed runs.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::sleep};
use tracing::warn;

use super::{Authority, Https};
use crate::{app::now, nats::Files};

const EVERY: Duration = Duration::from_secs(24 * 3600);

/// What is to be renewed.
pub struct Certificates {
    /// Who signs.
    pub authority: Arc<Authority>,
    /// That of the HTTP API.
    pub https: Option<Arc<Https>>,
    /// That of the supervised nats-server, and how it is told.
    pub nats: Option<(Files, Arc<Notify>)>,
}

impl Certificates {
    /// Runs until it is dropped.
    pub async fn keep(self) {
        loop {
            sleep(EVERY).await;
            if let Some(https) = &self.https
                && let Err(error) = https.renew(&self.authority, now())
            {
                warn!(%error, "the certificate for HTTPS is not renewed; tried again in a day");
            }
            if let Some((files, reload)) = &self.nats {
                match files.certify(&self.authority, now()) {
                    Ok(()) => reload.notify_one(),
                    Err(error) => {
                        warn!(%error, "the certificate of nats-server is not renewed; tried again in a day");
                    }
                }
            }
        }
    }
}
