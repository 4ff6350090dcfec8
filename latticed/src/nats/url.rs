//! Where NATS is, as given on the command line: one server, or several of a cluster.

use std::{fmt, net::SocketAddr, str::FromStr};

use async_nats::ServerAddr;

/// Why a string is not the URL of a NATS server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNatsUrl {
    /// It does not parse.
    #[error("expected nats://host[:port] or tls://host[:port], or several of them separated by commas")]
    Form,
    /// It holds a secret.
    #[error("must not carry a user or a password: latticed has keys of its own, and hands this URL to peers")]
    Secret,
}

/// The URLs of a NATS server or of several of one cluster, without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsUrl {
    text: String,
    addresses: Vec<ServerAddr>,
}

impl NatsUrl {
    /// The server that listens on `address`.
    ///
    /// # Errors
    /// Never for an address that a server can listen on.
    pub fn of(address: SocketAddr) -> Result<Self, InvalidNatsUrl> {
        format!("nats://{address}").parse()
    }

    /// For the client, which tries them all.
    pub fn addresses(&self) -> Vec<ServerAddr> {
        self.addresses.clone()
    }
}

impl FromStr for NatsUrl {
    type Err = InvalidNatsUrl;
    fn from_str(text: &str) -> Result<Self, InvalidNatsUrl> {
        Ok(Self { text: text.to_owned(), addresses: text.split(',').map(server).collect::<Result<_, _>>()? })
    }
}

fn server(text: &str) -> Result<ServerAddr, InvalidNatsUrl> {
    if !text.starts_with("nats://") && !text.starts_with("tls://") {
        return Err(InvalidNatsUrl::Form);
    }
    let address: ServerAddr = text.parse().map_err(|_| InvalidNatsUrl::Form)?;
    if address.host().is_empty() {
        return Err(InvalidNatsUrl::Form);
    }
    if address.has_user_pass() {
        return Err(InvalidNatsUrl::Secret);
    }
    Ok(address)
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_accepted_holds_no_secret(text in "(nats|tls)?(://)?\\PC{0,30}(:\\PC{0,10}@)?\\PC{0,20}") {
            if let Ok(url) = text.parse::<NatsUrl>() {
                for address in url.addresses() {
                    prop_assert!(!address.has_user_pass() && !address.host().is_empty());
                }
                prop_assert_eq!(url.to_string(), text);
            }
        }
    }

    #[test]
    fn accepts_servers_and_refuses_secrets() {
        for good in
            ["nats://nats.example.com", "nats://[::1]:4222", "tls://192.0.2.1:4222", "tls://a:1,nats://b"]
        {
            assert_eq!(good.parse::<NatsUrl>().unwrap().to_string(), good);
        }
        assert_eq!("nats://a:b@host".parse::<NatsUrl>(), Err(InvalidNatsUrl::Secret));
        assert_eq!("nats://token@host".parse::<NatsUrl>(), Err(InvalidNatsUrl::Secret));
        assert_eq!("nats://host,nats://a:b@host".parse::<NatsUrl>(), Err(InvalidNatsUrl::Secret));
        for bad in ["", "host:4222", "http://host", "nats://", "nats://a,", "nats://a,b"] {
            assert_eq!(bad.parse::<NatsUrl>(), Err(InvalidNatsUrl::Form), "{bad}");
        }
    }
}
