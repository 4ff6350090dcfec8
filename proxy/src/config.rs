//! How a proxy is run.

use std::net::SocketAddr;

use crate::{Credentials, Limits};

/// Where a proxy listens, and whom it lets in. There is none that strangers can use.
#[derive(Debug, Clone)]
pub struct Config {
    listen: SocketAddr,
    credentials: Option<Credentials>,
    /// How much of everything.
    pub limits: Limits,
}

/// Why a proxy may not be run like that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Whoever reached the address could act as the agent.
    #[error(
        "the proxy must not listen on {0} without credentials, because others than the agent reach that address: \
         give it credentials, or listen on 127.0.0.1:{port}",
        port = .0.port()
    )]
    Open(SocketAddr),
}

impl Config {
    /// A proxy on `listen` for those who show `credentials`. With none, everybody who reaches the address is let in, so it must be
    /// a loopback address, in a network namespace that only the agent shares.
    ///
    /// # Errors
    /// When others could reach it, and there are no credentials.
    pub fn new(listen: SocketAddr, credentials: Option<Credentials>) -> Result<Self, ConfigError> {
        if credentials.is_none() && !listen.ip().to_canonical().is_loopback() {
            return Err(ConfigError::Open(listen));
        }
        Ok(Self { listen, credentials, limits: Limits::default() })
    }

    pub(crate) fn listen(&self) -> SocketAddr {
        self.listen
    }

    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_listens_openly_where_others_can_come() {
        for open in ["0.0.0.0:1080", "[::]:1080", "10.42.0.5:1080", "[::ffff:10.0.0.1]:1", "[fe80::1]:1"] {
            let address: SocketAddr = open.parse().unwrap();
            assert_eq!(Config::new(address, None).unwrap_err(), ConfigError::Open(address));
            let credentials = "merlin:0123456789abcdef".parse().unwrap();
            assert!(Config::new(address, Some(credentials)).is_ok());
        }
        for own in ["127.0.0.1:1080", "127.8.9.1:0", "[::1]:1080", "[::ffff:127.0.0.1]:1080"] {
            assert!(Config::new(own.parse().unwrap(), None).is_ok(), "{own}");
        }
        assert_eq!(
            ConfigError::Open("0.0.0.0:1080".parse().unwrap()).to_string(),
            "the proxy must not listen on 0.0.0.0:1080 without credentials, because others than the agent reach that \
             address: give it credentials, or listen on 127.0.0.1:1080"
        );
    }
}
