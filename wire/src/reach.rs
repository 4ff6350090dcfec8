//! How peers reach each other where no address of their own will do: the STUN servers that say how the world sees a peer, and the
//! relays that carry what nothing else does.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest host name (RFC 1035 section 2.3.4) and longest name of a relay, in bytes.
const MAX_HOST: usize = 253;
const MAX_NAME: usize = 63;

/// Most STUN servers, and most relays, that a receiver takes; what is beyond is ignored.
pub const MAX_SERVERS: usize = 8;

/// What latticed tells a peer that asks.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// `host:port` of STUN servers (RFC 8489), over UDP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stun: Vec<String>,
    /// The relays, in no order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<RelayServer>,
    /// Proves to each of them who the receiver is; `None` without relays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_token: Option<String>,
    /// Unix seconds at which the token ends; ask for the next one at half of its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_not_after: Option<i64>,
}

/// One relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayServer {
    /// For people, and the same for all peers: what signals call it by.
    pub name: String,
    /// `host:port` of LRP over QUIC; at least one of the two is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic: Option<String>,
    /// `host:port` of LRP over TLS on TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// SHA-256 of its certificate in DER, in lower-case hex: nothing else proves a relay.
    pub fingerprint: String,
}

/// Where a server is: a DNS name, an IPv4 address or an IPv6 address in brackets, then a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// Why a string is no [`HostPort`] or no relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServer {
    /// Not `HOST:PORT`.
    #[error(
        "expected HOST:PORT: a DNS name, an IPv4 address or an IPv6 address in brackets, and a port from 1 to 65535"
    )]
    HostPort,
    /// Not the URL of a relay.
    #[error(
        "expected lrp://HOST[:PORT][?tcp=PORT][&name=NAME]#sha256=HEX, as `lattice start relay` prints it"
    )]
    Form,
    /// Neither a UDP nor a TCP port.
    #[error("a relay needs a port: lrp://HOST:PORT for QUIC, ?tcp=PORT for TLS on TCP, or both")]
    NoPort,
    /// A field of the query that is not known, or is there twice.
    #[error("a relay's URL takes ?tcp=PORT and &name=NAME, each once")]
    Field,
    /// The name.
    #[error(
        "a relay's name is 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-': give one with name= where the host is an IPv6 address"
    )]
    Name,
    /// The fingerprint.
    #[error(
        "a relay's URL ends with #sha256= and 64 hexadecimal digits: the fingerprint of its certificate, which alone proves it"
    )]
    Fingerprint,
}

// === impl HostPort ===

impl HostPort {
    /// The name or address, without brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn of(host: &str, port: &str) -> Result<Self, InvalidServer> {
        if !is_host(host) {
            return Err(InvalidServer::HostPort);
        }
        Ok(Self { host: host.to_owned(), port: read_port(port).ok_or(InvalidServer::HostPort)? })
    }
}

impl FromStr for HostPort {
    type Err = InvalidServer;
    fn from_str(text: &str) -> Result<Self, InvalidServer> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidServer::HostPort)?;
        Self::of(host, port)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// One way to write each: no sign, no leading zero.
fn read_port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port > 0 && port.to_string() == text).then_some(port)
}

fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
            && !label.starts_with('-')
    };
    text.len() <= MAX_HOST && text.split('.').all(is_label)
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

// === impl RelayServer ===

impl RelayServer {
    /// Whether every field has its form: what is told by others need not.
    pub fn is_sound(&self) -> bool {
        let is_place = |place: &String| place.parse::<HostPort>().is_ok();
        is_name(&self.name)
            && is_fingerprint(&self.fingerprint)
            && self.quic.iter().chain(&self.tcp).all(is_place)
            && (self.quic.is_some() || self.tcp.is_some())
    }
}

fn is_fingerprint(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// Reads `lrp://HOST[:PORT][?tcp=PORT][&name=NAME]#sha256=HEX`: the port is that of QUIC, the name that of the host unless it is given.
impl FromStr for RelayServer {
    type Err = InvalidServer;
    fn from_str(text: &str) -> Result<Self, InvalidServer> {
        let rest = text.strip_prefix("lrp://").ok_or(InvalidServer::Form)?;
        let (rest, proof) = rest.split_once('#').ok_or(InvalidServer::Fingerprint)?;
        let fingerprint = proof.strip_prefix("sha256=").map(str::to_ascii_lowercase);
        let fingerprint = fingerprint.filter(|hex| is_fingerprint(hex)).ok_or(InvalidServer::Fingerprint)?;
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        let (host, port) = match place.rsplit_once(':') {
            // Colons within brackets are those of an address.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (place, None),
        };
        if !is_host(host) {
            return Err(InvalidServer::Form);
        }
        let (mut tcp, mut name) = (None, None);
        for field in query.into_iter().flat_map(|query| query.split('&')) {
            let (slot, value) = match field.split_once('=') {
                Some(("tcp", port)) => (&mut tcp, port),
                Some(("name", text)) => (&mut name, text),
                _ => return Err(InvalidServer::Field),
            };
            if slot.replace(value).is_some() {
                return Err(InvalidServer::Field);
            }
        }
        let name = name.unwrap_or(host);
        if !is_name(name) {
            return Err(InvalidServer::Name);
        }
        let at = |port: Option<&str>| port.map(|port| Ok(HostPort::of(host, port)?.to_string())).transpose();
        let (quic, tcp) = (at(port)?, at(tcp)?);
        if quic.is_none() && tcp.is_none() {
            return Err(InvalidServer::NoPort);
        }
        Ok(Self { name: name.to_owned(), quic, tcp, fingerprint })
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach")
            .field("stun", &self.stun)
            .field("relays", &self.relays)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn relay(rest: &str) -> Result<RelayServer, InvalidServer> {
        format!("lrp://{rest}#sha256={HEX}").parse()
    }

    #[test]
    fn a_relay_is_read_in_every_form() {
        let read = |rest: &str| {
            let relay = relay(rest).unwrap();
            assert!(relay.is_sound(), "{rest}");
            (relay.name, relay.quic, relay.tcp)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            read("r.example:6267?tcp=6266&name=eu1"),
            ("eu1".into(), some("r.example:6267"), some("r.example:6266"))
        );
        assert_eq!(read("r.example:6267"), ("r.example".into(), some("r.example:6267"), None));
        assert_eq!(read("r.example?tcp=443"), ("r.example".into(), None, some("r.example:443")));
        assert_eq!(
            read("[2001:db8::1]:1?name=a&tcp=2"),
            ("a".into(), some("[2001:db8::1]:1"), some("[2001:db8::1]:2"))
        );
        assert_eq!(read("[2001:db8::1]?name=a&tcp=2").1, None);
        let upper = format!("lrp://a:1#sha256={}", HEX.to_uppercase());
        assert_eq!(upper.parse::<RelayServer>().unwrap().fingerprint, HEX);
    }

    #[test]
    fn what_is_wrong_with_a_relay_is_said() {
        use InvalidServer as E;
        for (rest, wrong) in [
            ("", E::Form),
            ("a b:1", E::Form),
            ("user@a:1", E::Form),
            ("[::1:1", E::Form),
            ("a/b:1", E::Form),
            (":1", E::Form),
            ("a", E::NoPort),
            ("a?name=x", E::NoPort),
            ("a:0", E::HostPort),
            ("a:01", E::HostPort),
            ("a:+1", E::HostPort),
            ("a:65536", E::HostPort),
            ("a:1?tcp=", E::HostPort),
            ("a:1?tcp=1&tcp=2", E::Field),
            ("a:1?", E::Field),
            ("a:1?udp=3", E::Field),
            ("a:1?name=", E::Name),
            ("a:1?name=a%20b", E::Name),
            ("[::1]:1", E::Name),
        ] {
            assert_eq!(relay(rest), Err(wrong), "{rest}");
        }
        for bad in
            ["lrp://a:1", "lrp://a:1#sha256=00", &format!("lrp://a:1#md5={HEX}"), &format!("lrp://a:1#{HEX}")]
        {
            assert_eq!(bad.parse::<RelayServer>(), Err(E::Fingerprint), "{bad}");
        }
        assert_eq!(format!("https://a:1#sha256={HEX}").parse::<RelayServer>(), Err(E::Form));
    }

    #[test]
    fn a_place_is_a_host_and_a_port() {
        let long = format!("{}.example:1", "a".repeat(64));
        for bad in
            ["", "a", "a:", ":1", "a:0", "::1:1", "[a]:1", "-a:1", "a..b:1", "a.:1", "a:1 ", "a\n:1", &long]
        {
            assert_eq!(bad.parse::<HostPort>(), Err(InvalidServer::HostPort), "{bad}");
        }
        let place: HostPort = "[2001:db8::1]:3478".parse().unwrap();
        assert_eq!((place.host(), place.port()), ("2001:db8::1", 3478));
    }

    proptest! {
        #[test]
        fn what_is_read_is_sound_and_written_the_same(
            text in "(lrp://)?[a-z\\[\\]:.]{0,12}(:[0-9]{1,6})?(\\?(tcp|name)=[0-9a-z]{0,6})?(&(tcp|name)=[0-9]{0,6})?",
            any in ".{0,60}",
        ) {
            for text in [text.clone(), format!("{text}#sha256={HEX}"), any] {
                if let Ok(relay) = text.parse::<RelayServer>() {
                    prop_assert!(relay.is_sound());
                }
                if let Ok(place) = text.parse::<HostPort>() {
                    prop_assert_eq!(place.to_string(), text);
                }
            }
        }
    }
}
