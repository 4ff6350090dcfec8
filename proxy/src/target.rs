//! What a client asks for: a name or an address, and a port.
//!
//! A name goes to the policy as a name and to the resolver as that same name, so there must be one way only to read it. What is
//! spelled differently but means the same is brought into one form: lower case, without the last dot. What another program might read as
//! something else, above all as an address, is refused.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Longest name, in characters, without the last dot (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
/// Longest label, in characters.
const MAX_LABEL: usize = 63;

/// A host name in canonical form: lower case ASCII letters, digits, hyphens and underscores in labels of 1 to 63, at most 253
/// characters, no dot at the end, and nothing that `getaddrinfo` would take for an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostName(Box<str>);

/// A name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address. An IPv4-mapped one (`::ffff:192.0.2.1`) is the IPv4 address, which is what it reaches.
    Address(IpAddr),
    /// A name, not resolved.
    Name(HostName),
}

/// Where a client wants to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The name or address, as the client gave it.
    pub host: Host,
    /// The port; never 0.
    pub port: u16,
}

/// Why something is not a host that can be asked for. Never carries the text: it is the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or a label without characters.
    #[error("the name has an empty label")]
    Empty,
    /// Longer than DNS carries.
    #[error("the name is too long: 253 characters at most, 63 between dots")]
    Long,
    /// Letters of other scripts.
    #[error("the name is not ASCII: give its xn-- form")]
    NotAscii,
    /// A control character, a space, a NUL, a zone, a bracket ….
    #[error("the name has a character that host names do not have")]
    Character,
    /// `127.1`, `0x7f000001`, `010.0.0.1`: read differently by different programs.
    #[error("the name ends in a number: give an address as four decimal numbers or as IPv6")]
    Number,
    /// Port 0.
    #[error("port 0 is no port that can be reached")]
    Port,
}

// === impl HostName ===

impl HostName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn read(text: &str) -> Result<Self, NameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() > MAX_NAME {
            return Err(NameError::Long);
        }
        let mut last = "";
        for label in name.split('.') {
            if label.is_empty() {
                return Err(NameError::Empty);
            }
            if label.len() > MAX_LABEL {
                return Err(NameError::Long);
            }
            if !label.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_')) {
                return Err(NameError::Character);
            }
            last = label;
        }
        if is_number(last) {
            return Err(NameError::Number);
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }
}

/// Whether `inet_aton` would read a last part like this (decimal, octal, hexadecimal).
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    hex.map_or_else(
        || label.bytes().all(|c| c.is_ascii_digit()),
        |digits| digits.bytes().all(|c| c.is_ascii_hexdigit()),
    )
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Host ===

impl Host {
    /// Reads what a client put where a name belongs. A literal address is taken for what it is, so that no policy is asked about a
    /// name of which everybody knows the address.
    ///
    /// # Errors
    /// When it is neither.
    pub fn read(text: &[u8]) -> Result<Self, NameError> {
        if !text.is_ascii() {
            return Err(NameError::NotAscii);
        }
        let text = str::from_utf8(text).map_err(|_| NameError::NotAscii)?;
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self::Address(address.to_canonical())),
            Err(_) => HostName::read(text).map(Self::Name),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

// === impl Target ===

impl Target {
    /// A target, unless the port is none.
    pub(crate) fn new(host: Host, port: u16) -> Result<Self, NameError> {
        if port == 0 { Err(NameError::Port) } else { Ok(Self { host, port }) }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Address(address.ip().to_canonical()), port: address.port() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        for (given, name) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("a_b-c.xn--bcher-kva.example", "a_b-c.xn--bcher-kva.example"),
            ("localhost", "localhost"),
            ("1.2.3.example", "1.2.3.example"),
            ("0xcafe.example", "0xcafe.example"),
        ] {
            assert_eq!(Host::read(given.as_bytes()).unwrap().to_string(), name);
        }
    }

    #[test]
    fn literal_addresses_are_addresses() {
        for (given, address) in [
            ("127.0.0.1", "127.0.0.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::", "::"),
        ] {
            assert_eq!(Host::read(given.as_bytes()), Ok(Host::Address(address.parse().unwrap())), "{given}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let long_label = "a".repeat(64);
        let long = format!("{}.de", vec!["a".repeat(62); 4].join("."));
        for (given, error) in [
            ("", NameError::Empty),
            (".", NameError::Empty),
            ("a..b", NameError::Empty),
            (".a", NameError::Empty),
            ("example.com..", NameError::Empty),
            (long_label.as_str(), NameError::Long),
            (long.as_str(), NameError::Long),
            ("bücher.example", NameError::NotAscii),
            ("a\0.example", NameError::Character),
            ("example.com\0.evil.test", NameError::Character),
            ("a b", NameError::Character),
            ("a\r\nb", NameError::Character),
            ("*.example.com", NameError::Character),
            ("user@example.com", NameError::Character),
            ("example.com:80", NameError::Character),
            ("fe80::1%eth0", NameError::Character),
            ("[::1]", NameError::Character),
            ("127.1", NameError::Number),
            ("2130706433", NameError::Number),
            ("0x7f000001", NameError::Number),
            ("0x", NameError::Number),
            ("127.0.0.0x1", NameError::Number),
            ("0177.0.0.1", NameError::Number),
            ("127.0.0.1.", NameError::Number),
            ("1.2.3.4.5", NameError::Number),
            ("example.123", NameError::Number),
        ] {
            assert_eq!(Host::read(given.as_bytes()), Err(error), "{given:?}");
        }
        assert_eq!(Host::read(b"\xff\xfe.example"), Err(NameError::NotAscii));
    }

    #[test]
    fn the_longest_name_is_accepted() {
        let name = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        assert_eq!(name.len(), MAX_NAME);
        assert_eq!(Host::read(format!("{name}.").as_bytes()).unwrap().to_string(), name);
        assert_eq!(Host::read(format!("{name}x").as_bytes()), Err(NameError::Long));
    }
}
