//! Asking the resolver from within the process, as a proxy does for an agent that has no sockets of its own: the same verdicts, limits, pins
//! and records as over its sockets.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RData};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{Why, core::Told, limits::MAX_UNREAD, names::ZONE, question::Kind};

/// How much longer IPv6 addresses are waited for once there are IPv4 ones (RFC 8305 §3).
const PATIENCE: Duration = Duration::from_millis(50);

/// The way to a [`Resolver`](crate::Resolver). Cheap to clone, of any thread and any runtime. It does not keep the resolver running.
#[derive(Debug, Clone)]
pub struct Asker(mpsc::Sender<Asked>);

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

/// What comes of one question.
pub(crate) type Answer = Result<Vec<IpAddr>, NotResolved>;

/// One question on its way to the resolver's thread.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) client: SocketAddr,
    pub(crate) to: oneshot::Sender<Answer>,
}

impl Asker {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (sender, receiver) = mpsc::channel(MAX_UNREAD);
        (Self(sender), receiver)
    }

    /// The addresses of `name` that may be used: IPv4 before IPv6, pinned already. A name of one label is a peer's before it is anything
    /// else, as in a sandbox, whose search list is `lattice`. `client` is who is on record for a refusal.
    ///
    /// It takes no longer than [`DEADLINE`](crate::limits::DEADLINE) once the resolver has read it, which is at once.
    ///
    /// # Errors
    /// Why there are none. Where one kind of address is refused or cannot be had, those of the other kind are told.
    pub async fn addresses(&self, name: &str, client: SocketAddr) -> Answer {
        let name = name.strip_suffix('.').unwrap_or(name);
        if !name.contains('.') && !name.eq_ignore_ascii_case("localhost") {
            match self.both(&format!("{name}.{ZONE}"), client).await {
                Err(NotResolved::NoName) => {}
                told => return told,
            }
        }
        self.both(name, client).await
    }

    async fn both(&self, name: &str, client: SocketAddr) -> Answer {
        let (mut v4, mut v6) =
            (pin!(self.one(name, Kind::A, client)), pin!(self.one(name, Kind::Aaaa, client)));
        let mut early = None;
        let v4 = loop {
            tokio::select! {
                answer = &mut v4 => break answer,
                answer = &mut v6, if early.is_none() => early = Some(answer),
            }
        };
        let v6 = match early {
            Some(answer) => answer,
            // Its answer is remembered whenever it comes.
            None if v4.is_ok() => timeout(PATIENCE, v6).await.unwrap_or(Err(NotResolved::Failed)),
            None => v6.await,
        };
        match (v4, v6) {
            (Ok(v4), Ok(v6)) => Ok([v4, v6].concat()),
            (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
            (Err(refused @ NotResolved::Refused { .. }), _)
            | (_, Err(refused @ NotResolved::Refused { .. })) => Err(refused),
            (Err(NotResolved::NoName), Err(other)) | (Err(other), _) => Err(other),
        }
    }

    async fn one(&self, name: &str, kind: Kind, client: SocketAddr) -> Answer {
        let (to, answer) = oneshot::channel();
        let asked = Asked { name: name.to_owned(), kind, client, to };
        self.0.send(asked).await.map_err(|_| NotResolved::Failed)?;
        answer.await.unwrap_or(Err(NotResolved::Failed))
    }
}

/// What is told of one question.
pub(crate) fn answer(told: Told) -> Answer {
    if let Some((why, rule)) = told.refused {
        return Err(NotResolved::Refused { why, rule });
    }
    let address = |data: RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    let addresses: Vec<IpAddr> = told.data.into_iter().filter_map(address).collect();
    match told.code {
        ResponseCode::NoError if !addresses.is_empty() => Ok(addresses),
        ResponseCode::NoError | ResponseCode::NXDomain => Err(NotResolved::NoName),
        _ => Err(NotResolved::Failed),
    }
}
