//! The way from a client's first byte to its request, without I/O: bytes go in, steps come out.
//!
//! Whoever drives it keeps the bytes that were not consumed, at most [`MAX_HANDSHAKE`], and calls again when there are more. However the
//! bytes are cut, the steps are the same.

use std::net::SocketAddr;

use crate::{
    Credentials, Protocol, Refusal, Target,
    http::{self, Invalid, Wants},
    limits::MAX_HANDSHAKE,
    socks::{self, Malformed, Request},
};

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read more.
    More,
    /// Send this, and call again.
    Send(Vec<u8>),
    /// The request; what was not consumed belongs to what follows.
    Done(Protocol, Request),
    /// Send this, if anything, and end the connection.
    End(Ending, Vec<u8>),
}

/// Why there is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The credentials are wrong, or there are none.
    Credentials,
    /// It is not what is spoken here.
    Malformed,
}

/// One client's handshake.
#[derive(Debug)]
pub(crate) struct Handshake<'a> {
    credentials: Option<&'a Credentials>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Start,
    SocksPassword,
    SocksRequest,
}

impl<'a> Handshake<'a> {
    pub(crate) fn new(credentials: Option<&'a Credentials>) -> Self {
        Self { credentials, state: State::Start }
    }

    /// The next step, and how many of `bytes` are done with.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> (usize, Step) {
        debug_assert!(bytes.len() <= MAX_HANDSHAKE);
        match (self.state, bytes.first()) {
            (_, None) => (0, Step::More),
            (State::SocksPassword, _) => self.password(bytes),
            (State::SocksRequest, _) => request(bytes),
            (State::Start, Some(&socks::VERSION)) => self.greeting(bytes),
            (State::Start, Some(4)) => end(Ending::Malformed, socks::VERSION_4_REFUSED.into()),
            (State::Start, Some(b'A'..=b'Z' | b'a'..=b'z')) => self.http(bytes),
            // A TLS record with a ClientHello (RFC 8446 §5.1).
            (State::Start, Some(0x16)) => end(Ending::Malformed, Invalid::Tls.response()),
            (State::Start, Some(_)) => end(Ending::Malformed, Vec::new()),
        }
    }

    fn greeting(&mut self, bytes: &[u8]) -> (usize, Step) {
        let (method, next) = match self.credentials {
            Some(_) => (socks::PASSWORD, State::SocksPassword),
            None => (socks::NO_AUTHENTICATION, State::SocksRequest),
        };
        match socks::greeting(bytes, method) {
            Ok(None) => (0, Step::More),
            Ok(Some((true, length))) => {
                self.state = next;
                (length, Step::Send(vec![socks::VERSION, method]))
            }
            Ok(Some((false, _))) => end(Ending::Credentials, vec![socks::VERSION, socks::NOT_ACCEPTABLE]),
            Err(Malformed) => end(Ending::Malformed, Vec::new()),
        }
    }

    fn password(&mut self, bytes: &[u8]) -> (usize, Step) {
        match socks::password(bytes) {
            Ok(None) => (0, Step::More),
            Ok(Some(((user, password), length))) => {
                if !self.credentials.is_some_and(|ours| ours.admit(user, password)) {
                    return end(Ending::Credentials, socks::password_status(false).into());
                }
                self.state = State::SocksRequest;
                (length, Step::Send(socks::password_status(true).into()))
            }
            Err(Malformed) => end(Ending::Malformed, socks::password_status(false).into()),
        }
    }

    fn http(&self, bytes: &[u8]) -> (usize, Step) {
        let (request, length) = match http::request(bytes) {
            Ok(None) => return (0, Step::More),
            Ok(Some(request)) => request,
            Err(invalid) => return end(Ending::Malformed, invalid.response()),
        };
        if let Some(ours) = self.credentials
            && !request.authorization.is_some_and(|shown| ours.admit_field(shown))
        {
            return end(Ending::Credentials, Invalid::Credentials.response());
        }
        match request.wants {
            Ok(Wants::Tunnel(target)) => {
                (length, Step::Done(Protocol::HttpConnect, Request::Connect(target)))
            }
            Ok(Wants::Exchange(exchange)) => {
                (length, Step::Done(Protocol::HttpRequest, Request::Exchange(exchange)))
            }
            Err(invalid) => end(Ending::Malformed, invalid.response()),
        }
    }
}

fn request(bytes: &[u8]) -> (usize, Step) {
    match socks::request(bytes) {
        Ok(None) => (0, Step::More),
        Ok(Some((request, length))) => (length, Step::Done(Protocol::Socks5, request)),
        Err(code) => end(Ending::Malformed, socks::reply(code, None)),
    }
}

fn end(ending: Ending, farewell: Vec<u8>) -> (usize, Step) {
    (0, Step::End(ending, farewell))
}

// === impl Protocol ===

impl Protocol {
    /// What tells the client that it has what it asked for. `bound` is where datagrams go.
    pub(crate) fn granted(self, bound: Option<SocketAddr>) -> Vec<u8> {
        match self {
            Self::Socks5 => socks::reply(0, bound),
            Self::HttpConnect => http::ESTABLISHED.into(),
            // The server itself answers.
            Self::HttpRequest => Vec::new(),
        }
    }

    /// What tells it that it has not. `target` is named where there is one.
    pub(crate) fn refused(self, target: Option<&Target>, refusal: &Refusal) -> Vec<u8> {
        match self {
            Self::Socks5 => socks::reply(refusal.socks(), None),
            Self::HttpConnect | Self::HttpRequest => {
                let (status, error) = refusal.http();
                let status = format!("{status}\r\nProxy-Status: lattice; error={error}");
                match target {
                    Some(target) => http::response(&status, &format_args!("{target}: {refusal}")),
                    None => http::response(&status, refusal),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
