//! The files that a nats-server reads: what we sign, and for the supervised one its certificate.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use serde_json::Value;

use super::{NatsError, config, issuer::Trust};
use crate::{
    data_dir::DataDir,
    tls::{Authority, NATS_NAME},
};

/// The configuration of the supervised server.
const CONFIG: &str = "nats-server.conf";
/// What an external server must include in its own.
const TRUST: &str = "nats-trust.conf";
pub(super) const PORTS_DIR: &str = "nats-ports";
const CERTIFICATE: &str = "nats-server.crt";
const KEY: &str = "nats-server.key";

/// The files of one server, in the data directory.
#[derive(Debug, Clone)]
pub struct Files {
    dir: Arc<DataDir>,
    /// Where the supervised server listens; none when the server is not ours.
    listen: Option<SocketAddr>,
}

impl Files {
    /// Those of a server that is not ours.
    pub fn external(dir: Arc<DataDir>) -> Self {
        Self { dir, listen: None }
    }

    /// Those of the supervised server, which listens on `listen`.
    pub(super) fn supervised(dir: Arc<DataDir>, listen: SocketAddr) -> Self {
        Self { dir, listen: Some(listen) }
    }

    /// The configuration, for who must be told of it.
    pub fn config(&self) -> PathBuf {
        self.dir.join(if self.listen.is_some() { CONFIG } else { TRUST })
    }

    /// Writes the configuration, so that a server that starts later knows what one that runs was told.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, trust: &Trust) -> Result<(), NatsError> {
        let join = |name| self.dir.join(name);
        let (name, config) = match self.listen {
            None => (TRUST, config::external(trust)),
            Some(listen) => {
                let tls = (join(CERTIFICATE), join(KEY));
                (CONFIG, config::server(trust, listen, &join(PORTS_DIR), &tls))
            }
        };
        self.dir.write(name, format!("{:#}\n", Value::Object(config)).as_bytes())?;
        Ok(())
    }

    /// Makes the supervised server's certificate anew.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn certify(&self, authority: &Authority, now: i64) -> Result<(), NatsError> {
        let made = authority.certify(vec![NATS_NAME.to_owned()], now)?;
        self.dir.write(KEY, made.key.as_bytes())?;
        self.dir.write(CERTIFICATE, made.certificate.as_bytes())?;
        Ok(())
    }
}
