//! Columns as values: what both databases can say (text, 64-bit integers, bytes) as what we mean.

use std::{
    collections::BTreeMap,
    error::Error,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use ipnet::Ipv6Net;
use lattice_wire::{message::PeerKind, netmap::MAX_ENDPOINTS};
use serde::de::DeserializeOwned;
use sqlx::{Row as _, any::AnyRow};

/// What an operator says of a peer, for policies to select by.
pub type Labels = BTreeMap<String, String>;

/// [`PeerKind`] as a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub PeerKind);

/// Endpoints as a column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints(pub Vec<SocketAddr>);

/// An address as a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub Ipv4Addr);

/// A workspace's IPv6 addresses as a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix(pub Ipv6Net);

/// A column that holds what this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("unknown {what} {value:?}")]
pub struct Unknown {
    pub(super) what: &'static str,
    pub(super) value: String,
}

/// A text column.
pub(super) fn text<T>(row: &AnyRow, column: &'static str) -> Result<T, sqlx::Error>
where
    T: TryFrom<String, Error: Error + Send + Sync + 'static>,
{
    row.try_get::<String, _>(column)?.try_into().map_err(|source| decode(column, source))
}

/// A text column that may be NULL.
pub(super) fn maybe<T>(row: &AnyRow, column: &'static str) -> Result<Option<T>, sqlx::Error>
where
    T: TryFrom<String, Error: Error + Send + Sync + 'static>,
{
    let text = row.try_get::<Option<String>, _>(column)?;
    text.map(T::try_from).transpose().map_err(|source| decode(column, source))
}

/// A column that is 0 or 1.
pub(super) fn flag(row: &AnyRow, column: &'static str) -> Result<bool, sqlx::Error> {
    Ok(row.try_get::<i64, _>(column)? != 0)
}

/// A column of JSON.
pub(super) fn json<T: DeserializeOwned>(row: &AnyRow, column: &'static str) -> Result<T, sqlx::Error> {
    serde_json::from_str(&row.try_get::<String, _>(column)?).map_err(|source| decode(column, source))
}

/// Labels for their column.
pub(super) fn labels(labels: &Labels) -> Result<String, sqlx::Error> {
    serde_json::to_string(labels).map_err(|source| sqlx::Error::Encode(source.into()))
}

fn decode(column: &'static str, source: impl Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(source) }
}

impl Kind {
    /// The column, and how people are told.
    pub fn as_str(self) -> &'static str {
        match self.0 {
            PeerKind::Sandbox => "sandbox",
            PeerKind::Node => "node",
        }
    }
}

impl TryFrom<String> for Kind {
    type Error = Unknown;
    fn try_from(value: String) -> Result<Self, Unknown> {
        match value.as_str() {
            "sandbox" => Ok(Self(PeerKind::Sandbox)),
            "node" => Ok(Self(PeerKind::Node)),
            _ => Err(Unknown { what: "peer kind", value }),
        }
    }
}

impl Address {
    pub(super) fn column(row: &AnyRow) -> Result<Self, sqlx::Error> {
        let bits = u32::try_from(row.try_get::<i64, _>("address")?).map_err(|e| decode("address", e))?;
        Ok(Self(Ipv4Addr::from_bits(bits)))
    }

    pub(super) fn bits(address: Ipv4Addr) -> i64 {
        address.to_bits().into()
    }
}

impl TryFrom<String> for Prefix {
    type Error = Unknown;
    fn try_from(value: String) -> Result<Self, Unknown> {
        value.parse().map(Self).map_err(|_| Unknown { what: "prefix of a workspace", value })
    }
}

impl Endpoints {
    /// The endpoints of a peer that others may be told: nothing that would send their packets to themselves, to
    /// everybody or nowhere. The first [`MAX_ENDPOINTS`], in the peer's order, each once.
    pub fn sanitized(reported: &[SocketAddr]) -> Self {
        let mut kept = Vec::new();
        for endpoint in reported {
            let endpoint = SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
            if kept.len() < MAX_ENDPOINTS && is_reachable(endpoint) && !kept.contains(&endpoint) {
                kept.push(endpoint);
            }
        }
        Self(kept)
    }

    pub(super) fn to_json(&self) -> String {
        let texts: Vec<_> = self.0.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
        format!("[{}]", texts.join(","))
    }
}

fn is_reachable(endpoint: SocketAddr) -> bool {
    let routed = match endpoint.ip() {
        IpAddr::V4(ip) => !ip.is_broadcast() && !ip.is_link_local() && ip.octets()[0] != 0,
        // A link-local address means nothing without the zone, which differs on every host.
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    let ip = endpoint.ip();
    routed && endpoint.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback()
}

impl TryFrom<String> for Endpoints {
    type Error = serde_json::Error;
    fn try_from(text: String) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(texts: &[&str]) -> Endpoints {
        Endpoints(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn keeps_only_endpoints_that_can_be_reached() {
        let good = ["192.0.2.1:51820", "10.0.0.1:1", "[2001:db8::1]:51820"];
        let bad = [
            "0.0.0.0:1",
            "192.0.2.1:0",
            "127.0.0.1:1",
            "127.9.9.9:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "0.1.2.3:1",
            "[::]:1",
            "[::1]:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
            "169.254.169.254:80",
            "[::ffff:127.0.0.1]:1",
        ];
        let reported = endpoints(&[&bad[..], &good, &good].concat());
        assert_eq!(Endpoints::sanitized(&reported.0), endpoints(&good));

        let many: Vec<_> = (1..1000).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect();
        assert_eq!(Endpoints::sanitized(&many).0, many[..MAX_ENDPOINTS]);
    }

    #[test]
    fn endpoints_survive_their_column() {
        let all = endpoints(&["192.0.2.1:51820", "[2001:db8::1]:51820"]);
        assert_eq!(Endpoints::try_from(all.to_json()).unwrap(), all);
    }
}
