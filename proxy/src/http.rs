//! The head of a request, CONNECT (RFC 9110 §9.3.6) or for `http://…` (RFC 9112 §3.2.2), and what is answered.
//!
//! One request is read, and with its answer the connection ends: what follows is never taken for another one. A head that two programs could read
//! differently is refused: line ends other than CRLF, folded lines, space before a colon, fields twice that may be there once, a body of which
//! the length is not told. `Host` must be there once where HTTP/1.1 says so; nothing is made of it, since the request's own target counts.

mod exchange;

use std::fmt::Display;

use crate::{
    Host, NameError, Target,
    limits::{MAX_FIELDS, MAX_HANDSHAKE},
    socks::Read,
};

pub(crate) use exchange::Exchange;

pub(crate) const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked<'a> {
    /// What for, or why not; for a client that has shown its credentials.
    pub(crate) wants: Result<Wants, Invalid>,
    /// The value of `Proxy-Authorization`.
    pub(crate) authorization: Option<&'a [u8]>,
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wants {
    /// A connection to there.
    Tunnel(Target),
    /// One request be made.
    Exchange(Exchange),
}

/// A head, read.
struct Head<'a> {
    method: &'a str,
    target: &'a str,
    version: Version,
    fields: Vec<(&'a str, &'a str)>,
}

/// Why a head is no such request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("not an HTTP request that can be read in one way only: {0}")]
    Malformed(&'static str),
    #[error(
        "only CONNECT and requests for http:// are served here: let the client open a tunnel for anything else, or use socks5h:// with this address"
    )]
    Method,
    #[error(
        "a body without Content-Length is not sent on: let the client say how long it is, or open a tunnel (curl --proxytunnel)"
    )]
    Chunked,
    #[error("CONNECT takes HOST:PORT: {0}")]
    Target(NameError),
    #[error("CONNECT takes HOST:PORT, an IPv6 address in brackets")]
    Form,
    #[error("only HTTP/1.1 and HTTP/1.0 are served here")]
    Version,
    #[error("the request's head is too long: 8192 bytes and 64 fields at most")]
    Long,
    #[error(
        "show credentials: http://USER:PASSWORD@ in front of the proxy's address, or Proxy-Authorization"
    )]
    Credentials,
    #[error(
        "this port speaks SOCKS5 and HTTP CONNECT without TLS: use http:// or socks5h:// with the proxy's address"
    )]
    Tls,
}

impl Invalid {
    fn status(self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Target(_) | Self::Form | Self::Tls => "400 Bad Request",
            // Whatever the method is: for another URL it would be served, so 405, which names methods, would not be true.
            Self::Method => "501 Not Implemented",
            Self::Chunked => "411 Length Required",
            Self::Version => "505 HTTP Version Not Supported",
            Self::Long => "431 Request Header Fields Too Large",
            Self::Credentials => {
                "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"lattice\"\r\n\
                 Proxy-Authenticate: Bearer realm=\"lattice\""
            }
        }
    }

    pub(crate) fn response(self) -> Vec<u8> {
        response(self.status(), &self)
    }
}

/// A response that ends the connection. `status` may bring fields along.
pub(crate) fn response(status: &str, because: &dyn Display) -> Vec<u8> {
    let body = format!("lattice: {because}\n");
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Reads the head at the beginning of `bytes`.
pub(crate) fn request(bytes: &[u8]) -> Read<Asked<'_>, Invalid> {
    let Some(length) = length(bytes)? else { return Ok(None) };
    // Without the two line ends at its end.
    let head = str::from_utf8(&bytes[..length - 4]).map_err(|_| Invalid::Malformed("it is not UTF-8"))?;
    let head = read(head)?;
    let mut authorization = None;
    let mut hosts = 0;
    for (name, value) in &head.fields {
        if name.eq_ignore_ascii_case("host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case("proxy-authorization")
            && authorization.replace(value.as_bytes()).is_some()
        {
            return Err(Invalid::Malformed("Proxy-Authorization is there twice"));
        }
    }
    // RFC 9112 §3.2
    if hosts > 1 || hosts == 0 && head.version == Version::Http11 {
        return Err(Invalid::Malformed("Host is not there exactly once"));
    }
    let wants = match head.method {
        "CONNECT" => tunnel(&head)?,
        _ => exchange::exchange(&head).map(Wants::Exchange),
    };
    Ok(Some((Asked { wants, authorization }, length)))
}

fn read(head: &str) -> Result<Head<'_>, Invalid> {
    let mut lines = head.split("\r\n");
    let (method, target, version) = request_line(lines.next().unwrap_or_default())?;
    let mut fields = Vec::new();
    for line in lines {
        if fields.len() == MAX_FIELDS {
            return Err(Invalid::Long);
        }
        fields.push(field(line)?);
    }
    Ok(Head { method, target, version, fields })
}

/// Where CONNECT leads. A body is an error of the head's.
fn tunnel(head: &Head<'_>) -> Result<Result<Wants, Invalid>, Invalid> {
    let has_body = |(name, value): &(&str, &str)| {
        name.eq_ignore_ascii_case("transfer-encoding")
            || name.eq_ignore_ascii_case("content-length") && *value != "0"
    };
    if head.fields.iter().any(has_body) {
        return Err(Invalid::Malformed("CONNECT has no body"));
    }
    Ok(authority(head.target).map(Wants::Tunnel))
}

/// How long the head is, with the empty line behind it.
fn length(bytes: &[u8]) -> Result<Option<usize>, Invalid> {
    let bytes = &bytes[..bytes.len().min(MAX_HANDSHAKE)];
    for (at, byte) in bytes.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        if (*byte == b'\n') != (before == Some(b'\r')) {
            return Err(Invalid::Malformed("a line end is not CRLF"));
        }
        if byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t') {
            return Err(Invalid::Malformed("it has a control character"));
        }
        if bytes[..=at].ends_with(b"\r\n\r\n") {
            return Ok(Some(at + 1));
        }
    }
    if bytes.len() == MAX_HANDSHAKE { Err(Invalid::Long) } else { Ok(None) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

fn request_line(line: &str) -> Result<(&str, &str, Version), Invalid> {
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Invalid::Malformed("its first line is not METHOD TARGET VERSION"));
    };
    let version = match version {
        "HTTP/1.1" => Version::Http11,
        "HTTP/1.0" => Version::Http10,
        _ if version.starts_with("HTTP/") => return Err(Invalid::Version),
        _ => return Err(Invalid::Malformed("its first line is not METHOD TARGET VERSION")),
    };
    if !is_token(method) {
        return Err(Invalid::Malformed("its method is none"));
    }
    Ok((method, target, version))
}

/// RFC 9110 §5.6.2
fn is_token(text: &str) -> bool {
    let token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    !text.is_empty() && text.bytes().all(token)
}

/// One header field (RFC 9112 §5).
fn field(line: &str) -> Result<(&str, &str), Invalid> {
    let (name, value) = line.split_once(':').ok_or(Invalid::Malformed("a field has no colon"))?;
    if !is_token(name) {
        return Err(Invalid::Malformed("a field's name is none"));
    }
    Ok((name, value.trim_matches([' ', '\t'])))
}

/// HOST:PORT, the only form that CONNECT takes (RFC 9110 §7.1).
fn authority(text: &str) -> Result<Target, Invalid> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once("]:").ok_or(Invalid::Form)?;
            if !host.contains(':') {
                return Err(Invalid::Form);
            }
            (host, port)
        }
        None => text.split_once(':').ok_or(Invalid::Form)?,
    };
    if port.is_empty() || port.len() > 5 || !port.bytes().all(|c| c.is_ascii_digit()) {
        return Err(Invalid::Form);
    }
    let port = port.parse().map_err(|_| Invalid::Form)?;
    let host = Host::read(host.as_bytes()).map_err(Invalid::Target)?;
    Target::new(host, port).map_err(Invalid::Target)
}

#[cfg(test)]
mod tests;
