//! `--forward [tcp:|udp:]PORT:ADDRESS:PORT`.

use std::{fmt, net::IpAddr, net::SocketAddr, num::NonZeroU16, str::FromStr};

use crate::limits::MAX_FORWARDS;

/// One port forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Forward {
    /// Of both sides.
    pub transport: Transport,
    /// The port at the agent's overlay address.
    pub port: NonZeroU16,
    /// The service of the host.
    pub to: SocketAddr,
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Why a text is no port forward.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// It does not have the parts.
    #[error(
        "--forward {0}: expected [tcp:|udp:]PORT:ADDRESS:PORT, such as 8080:127.0.0.1:8080 or udp:53:[::1]:5353"
    )]
    Form(Given),
    /// One of the ports is none.
    #[error("--forward {given}: {port} is not a port; give a number from 1 to 65535")]
    Port {
        /// The whole.
        given: Given,
        /// The part.
        port: Given,
    },
    /// The host is not an address.
    #[error("--forward {given}: {host} is not an address; give one such as 127.0.0.1, or [::1] in brackets")]
    Host {
        /// The whole.
        given: Given,
        /// The part.
        host: Given,
    },
    /// An address that is not a service's.
    #[error("--forward {given}: {address} is not the address of one service; give one such as 127.0.0.1")]
    Address {
        /// The whole.
        given: Given,
        /// The part.
        address: IpAddr,
    },
    /// Two for one port.
    #[error("--forward {0}: {1} port {2} is forwarded already; give each port once")]
    Twice(Given, Transport, NonZeroU16),
    /// More than there may be.
    #[error("--forward is given more than {MAX_FORWARDS} times; forward fewer ports")]
    TooMany,
}

/// What somebody gave us, as it may be shown: quoted, escaped, and cut when it is long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given(String);

/// Reads all port forwards.
///
/// # Errors
/// The first that is none, or is for a port that an earlier one has.
pub fn parse_forwards<T: AsRef<str>>(
    flags: impl IntoIterator<Item = T>,
) -> Result<Vec<Forward>, ForwardError> {
    let mut forwards: Vec<Forward> = Vec::new();
    for flag in flags {
        let forward: Forward = flag.as_ref().parse()?;
        if forwards.iter().any(|other| (other.transport, other.port) == (forward.transport, forward.port)) {
            return Err(ForwardError::Twice(Given::new(flag.as_ref()), forward.transport, forward.port));
        }
        if forwards.len() == MAX_FORWARDS {
            return Err(ForwardError::TooMany);
        }
        forwards.push(forward);
    }
    Ok(forwards)
}

// === impl Forward ===

impl FromStr for Forward {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let form = || ForwardError::Form(Given::new(text));
        let (transport, rest) = match text.split_once(':') {
            Some(("tcp", rest)) => (Transport::Tcp, rest),
            Some(("udp", rest)) => (Transport::Udp, rest),
            _ => (Transport::Tcp, text),
        };
        let (own, to) = rest.split_once(':').ok_or_else(form)?;
        let (host, port) = to.rsplit_once(':').ok_or_else(form)?;
        let own = self::port(own, text)?;
        let port = self::port(port, text)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) => v6.parse().map(IpAddr::V6),
            None => host.parse().map(IpAddr::V4),
        }
        .map_err(|_| ForwardError::Host { given: Given::new(text), host: Given::new(host) })?;
        let address = host.to_canonical();
        let broadcast = IpAddr::from([255, 255, 255, 255]);
        if address.is_unspecified() || address.is_multicast() || address == broadcast {
            return Err(ForwardError::Address { given: Given::new(text), address });
        }
        Ok(Self { transport, port: own, to: SocketAddr::new(address, port.get()) })
    }
}

/// A decimal number; Rust's own reader would take a plus sign.
fn port(part: &str, text: &str) -> Result<NonZeroU16, ForwardError> {
    let digits = part.bytes().all(|c| c.is_ascii_digit());
    part.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| ForwardError::Port { given: Given::new(text), port: Given::new(part) })
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.transport, self.port, self.to)
    }
}

// === impl Transport ===

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

// === impl Given ===

impl Given {
    /// Most characters that are shown.
    const SHOWN: usize = 60;

    fn new(text: &str) -> Self {
        let mut shown: String = text.chars().take(Self::SHOWN).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Self(shown)
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_read_and_written() {
        for (given, written) in [
            ("8080:127.0.0.1:8080", "tcp:8080:127.0.0.1:8080"),
            ("tcp:80:10.0.0.1:8080", "tcp:80:10.0.0.1:8080"),
            ("udp:53:[::1]:5353", "udp:53:[::1]:5353"),
            ("65535:[::ffff:127.0.0.1]:1", "tcp:65535:127.0.0.1:1"),
        ] {
            let forward: Forward = given.parse().unwrap();
            assert_eq!(forward.to_string(), written);
            assert_eq!(written.parse(), Ok(forward));
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_to_do() {
        for (given, error) in [
            (
                "nonsense",
                "--forward 'nonsense': expected [tcp:|udp:]PORT:ADDRESS:PORT, such as 8080:127.0.0.1:8080 or udp:53:[::1]:5353",
            ),
            ("", "--forward '': expected"),
            ("8080", "--forward '8080': expected"),
            ("8080:8081", "--forward '8080:8081': expected"),
            ("udp:8080", "--forward 'udp:8080': expected"),
            ("8080::8080", "'' is not an address; give one such as 127.0.0.1"),
            ("8080:localhost:8080", "'localhost' is not an address"),
            ("8080:::1:8080", "'::1' is not an address; give one such as 127.0.0.1, or [::1] in brackets"),
            ("8080:[127.0.0.1]:8080", "'[127.0.0.1]' is not an address"),
            ("8080:[fe80::1%eth0]:1", "is not an address"),
            ("8080:127.1:8080", "'127.1' is not an address"),
            ("8080:0.0.0.0:8080", "0.0.0.0 is not the address of one service"),
            ("8080:[::]:8080", ":: is not the address of one service"),
            ("8080:[::ffff:0.0.0.0]:8080", "0.0.0.0 is not the address of one service"),
            ("8080:224.0.0.1:8080", "224.0.0.1 is not the address"),
            ("8080:255.255.255.255:8080", "255.255.255.255 is not the address"),
            ("0:127.0.0.1:8080", "'0' is not a port; give a number from 1 to 65535"),
            ("8080:127.0.0.1:0", "'0' is not a port"),
            ("8080:127.0.0.1:65536", "'65536' is not a port"),
            ("+8080:127.0.0.1:80", "'+8080' is not a port"),
            ("-1:127.0.0.1:80", "'-1' is not a port"),
            ("8080:127.0.0.1:", "'' is not a port"),
            ("http:8080:127.0.0.1:80", "'http' is not a port"),
            (" 8080:127.0.0.1:80", "' 8080' is not a port"),
            ("8080:127.0.0.1:80\n", "'80\\n' is not a port"),
        ] {
            let found = given.parse::<Forward>().unwrap_err().to_string();
            assert!(found.contains(error), "{given:?}: {found}");
            assert!(found.starts_with("--forward '") && !found.contains('\n'), "{found}");
        }
        let long = "é".repeat(500).parse::<Forward>().unwrap_err().to_string();
        assert!(long.len() < 300, "{long}");
    }

    #[test]
    fn each_port_once_and_not_too_many() {
        let one = "8080:127.0.0.1:1";
        assert_eq!(parse_forwards([one, "udp:8080:127.0.0.1:1", "8081:127.0.0.1:1"]).unwrap().len(), 3);
        let error = parse_forwards([one, "tcp:8080:127.0.0.1:2"]).unwrap_err().to_string();
        assert_eq!(
            error,
            "--forward 'tcp:8080:127.0.0.1:2': tcp port 8080 is forwarded already; give each port once"
        );
        let many = |count| (1..=count).map(|port| format!("{port}:127.0.0.1:1"));
        assert_eq!(parse_forwards(many(MAX_FORWARDS)).unwrap().len(), MAX_FORWARDS);
        assert_eq!(parse_forwards(many(MAX_FORWARDS + 1)), Err(ForwardError::TooMany));
    }
}
