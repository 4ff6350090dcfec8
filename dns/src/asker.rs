//! Asking the resolver from within the process, as a proxy does for an agent that has no sockets of its own: the same verdicts, limits, pins
//! and records as over its sockets.

use std::net::{IpAddr, SocketAddr};

use crate::Why;

/// The way to a [`Resolver`](crate::Resolver). Cheap to clone, of any thread.
#[derive(Debug, Clone)]
pub struct Asker;

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotResolved {
    /// The policy or a limit refuses it, and it is on record.
    #[error("refused ({})", why.as_str())]
    Refused {
        /// Why.
        why: Why,
        /// The rule that knows the name, when one does.
        rule: Option<u32>,
    },
    /// There is no such name, or it has no addresses.
    #[error("the name has no address")]
    NoName,
    /// The nameservers did not answer, or the resolver has ended.
    #[error("no nameserver answered")]
    Failed,
}

impl Asker {
    /// The addresses of `name` that may be used: IPv4 before IPv6, pinned already. `client` is who is on record for a refusal.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn addresses(&self, name: &str, client: SocketAddr) -> Result<Vec<IpAddr>, NotResolved> {
        let _ = (name, client);
        todo!()
    }
}
