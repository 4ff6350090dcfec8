//! A request for `http://…` (RFC 9112 §3.2.2), and what goes on to the server for it: one request, of which it is clear where it ends.
//!
//! A connection to a server carries one exchange, and says so: it is never shared, so nothing that follows a request is taken for another one's. Its
//! body has the length that it names, and none without; of chunks, which two programs could count differently, there is none. What concerns only
//! the connection to the proxy stays here (RFC 9110 §7.6.1).

use std::fmt::Write as _;

use super::{Head, Invalid, Version, authority};
use crate::{Host, Target};

/// The port of `http://` without one.
const PORT: u16 = 80;

/// Fields of one connection only, named by `Connection` or not, and those that are written anew.
const OURS: [&str; 10] = [
    "connection",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "via",
];

/// What a request is made of, whatever else `Connection` says of it.
const NEEDED: [&str; 4] = ["host", "content-length", "transfer-encoding", "via"];

/// One request to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exchange {
    pub(crate) target: Target,
    /// As the server is to read it, with the empty line behind it.
    pub(crate) head: Vec<u8>,
    /// Bytes of the body, which follow.
    pub(crate) body: u64,
}

/// Makes of a client's head the server's.
pub(super) fn exchange(head: &Head<'_>) -> Result<Exchange, Invalid> {
    let rest = head.target.strip_prefix("http://").ok_or(Invalid::Method)?;
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if path.contains('#') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Invalid::Malformed("its target is no URL"));
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let target = if has_port { authority(host)? } else { authority(&format!("{host}:{PORT}"))? };
    let named = named(head)?;
    let mut text = String::new();
    let slash = match (path.as_bytes().first(), head.method) {
        (None, "OPTIONS") => "*",
        (Some(b'/'), _) => "",
        _ => "/",
    };
    let version = if head.version == Version::Http11 { "1.1" } else { "1.0" };
    let _ = write!(text, "{} {slash}{path} HTTP/{version}\r\nHost: {}\r\n", head.method, written(&target));
    let mut body = None;
    for (name, value) in &head.fields {
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "content-length" if body.is_some() => {
                return Err(Invalid::Malformed("Content-Length is there twice"));
            }
            "content-length" => body = Some(length(value)?),
            "transfer-encoding" => return Err(Invalid::Chunked),
            _ => {}
        }
        if lower != "via" && (OURS.contains(&lower.as_str()) || named.contains(&lower)) {
            continue;
        }
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let _ = write!(text, "Via: {version} lattice\r\nConnection: close\r\n\r\n");
    Ok(Exchange { target, head: text.into_bytes(), body: body.unwrap_or(0) })
}

/// The fields that the client says are of its connection to us only.
fn named(head: &Head<'_>) -> Result<Vec<String>, Invalid> {
    let connection = head.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    let named = connection.flat_map(|(_, value)| value.split(','));
    let named: Vec<_> = named.map(|name| name.trim_matches([' ', '\t']).to_ascii_lowercase()).collect();
    if named.iter().any(|name| NEEDED.contains(&name.as_str())) {
        return Err(Invalid::Malformed("Connection names a field that the request needs"));
    }
    Ok(named)
}

fn length(value: &str) -> Result<u64, Invalid> {
    let is_number = !value.is_empty() && value.bytes().all(|digit| digit.is_ascii_digit());
    let number = value.parse().ok().filter(|_| is_number);
    number.ok_or(Invalid::Malformed("Content-Length is no number"))
}

/// As `Host` has it: what was judged, however the client wrote it.
fn written(target: &Target) -> String {
    let host = match &target.host {
        Host::Address(address) if address.is_ipv6() => format!("[{address}]"),
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.as_str().to_owned(),
    };
    if target.port == PORT { host } else { format!("{host}:{}", target.port) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Wants, request};

    fn made(line: &str, fields: &[&str]) -> Result<Exchange, Invalid> {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let head = format!("{line}\r\n{fields}\r\n");
        let (asked, length) = request(head.as_bytes())?.unwrap();
        assert_eq!(length, head.len());
        match asked.wants? {
            Wants::Exchange(exchange) => Ok(exchange),
            Wants::Tunnel(target) => panic!("a tunnel to {target}"),
        }
    }

    fn text(line: &str, fields: &[&str]) -> String {
        String::from_utf8(made(line, fields).unwrap().head).unwrap()
    }

    #[test]
    fn a_request_becomes_one_of_the_servers() {
        let fields = [
            "Host: other",
            "Accept: */*",
            "Proxy-Connection: keep-alive",
            "Connection: X-Hop, close",
            "x-hop: 1",
        ];
        assert_eq!(
            text("GET http://Example.com/a?b=c HTTP/1.1", &fields),
            "GET /a?b=c HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nVia: 1.1 lattice\r\nConnection: close\r\n\r\n"
        );
        for (line, wanted) in [
            ("GET http://a HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n"),
            ("GET http://a?q HTTP/1.0", "GET /?q HTTP/1.0\r\nHost: a\r\n"),
            ("OPTIONS http://a:81 HTTP/1.0", "OPTIONS * HTTP/1.0\r\nHost: a:81\r\n"),
            ("GET http://[2001:DB8::1]/ HTTP/1.0", "GET / HTTP/1.0\r\nHost: [2001:db8::1]\r\n"),
            ("GET http://[2001:db8::1]:8080/ HTTP/1.0", "GET / HTTP/1.0\r\nHost: [2001:db8::1]:8080\r\n"),
        ] {
            assert!(text(line, &[]).starts_with(wanted), "{line}: {}", text(line, &[]));
        }
        let post = made(
            "POST http://a/ HTTP/1.1",
            &["Host: a", "Content-Length: 5", "Proxy-Authorization: Basic eA=="],
        );
        let post = post.unwrap();
        assert_eq!((post.body, post.target.to_string()), (5, "a:80".into()));
        assert!(
            !String::from_utf8(post.head).unwrap().contains("Proxy-Authorization"),
            "it is the proxy's secret"
        );
    }

    #[test]
    fn what_two_programs_could_read_differently_is_refused() {
        let get = "GET http://a/ HTTP/1.1";
        for fields in [
            &["Host: a", "Content-Length: 1", "Content-Length: 1"][..],
            &["Host: a", "Content-Length: 1", "Transfer-Encoding: chunked"],
            &["Host: a", "Transfer-Encoding: chunked"],
            &["Host: a", "Content-Length: +1"],
            &["Host: a", "Content-Length: 1, 1"],
            &["Host: a", "Content-Length:"],
            &["Host: a", "Content-Length: 99999999999999999999"],
            &["Host: a", "Host: b"],
            &["Host: a", " folded"],
            &["Host: a", "X : y"],
            &["Host: a", "Connection: content-length", "Content-Length: 5"],
            &["Host: a", "Connection: close, Host"],
            &[],
        ] {
            assert!(made(get, fields).is_err(), "{fields:?}");
        }
        for target in [
            "http://",
            "http:///",
            "http://user@a/",
            "http://a:0/",
            "http://a:x/",
            "http://a:/",
            "http://a/#f",
            "http://127.1/",
            "http://a\\b/",
            "http://[::1/",
            "http://a/\u{e9}",
            "https://a/",
            "ftp://a/",
            "/",
            "*",
            "a:80",
        ] {
            assert!(made(&format!("GET {target} HTTP/1.0"), &[]).is_err(), "{target}");
        }
        assert_eq!(made(get, &["Host: a", "Transfer-Encoding: chunked"]), Err(Invalid::Chunked));
    }
}
