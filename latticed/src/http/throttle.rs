//! Slows down addresses and tokens that ask too much.

use std::{net::IpAddr, time::Instant};

use super::{Api, access::Caller, error::ApiError};
use crate::limit::{RateLimiter, remote_key};

/// What one address may ask without an API token, in a row and per second: room for a rack of hosts behind one NAT
/// that start together. The same for one token.
const BURST: u32 = 256;
const PER_SECOND: u32 = 20;
const KEYS: usize = 20_000;

/// Questions that are worked out from a whole workspace, of one API token. People ask them one by one.
const QUESTIONS_BURST: u32 = 30;
const QUESTIONS_PER_SECOND: u32 = 2;

/// The address at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remote(pub(super) IpAddr);

/// How often who has asked.
#[derive(Debug)]
pub(super) struct Limits {
    addresses: RateLimiter<IpAddr>,
    /// By token id, and whether the secret was right: who knows only the id of a token cannot use up what its holder may.
    tokens: RateLimiter<(String, bool)>,
    questions: RateLimiter<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            addresses: RateLimiter::new(BURST, PER_SECOND, KEYS),
            tokens: RateLimiter::new(BURST, PER_SECOND, KEYS),
            questions: RateLimiter::new(QUESTIONS_BURST, QUESTIONS_PER_SECOND, KEYS),
        }
    }
}

/// Counts one request of `remote`.
pub(super) fn address(api: &Api, remote: Remote) -> Result<(), ApiError> {
    api.limits.addresses.take(&remote_key(remote.0), Instant::now()).map_err(|wait| {
        api.app.metrics.limited("address");
        ApiError::rate_limited("from this address", wait)
    })
}

/// Counts one request with the token `id`, whose secret was right or wrong.
pub(super) fn token(api: &Api, id: &str, right: bool) -> Result<(), ApiError> {
    api.limits.tokens.take(&(id.to_owned(), right), Instant::now()).map_err(|wait| {
        api.app.metrics.limited("token");
        ApiError::rate_limited("with this token", wait)
    })
}

/// Counts one question of `caller` whose answer is dear.
pub(super) fn question(api: &Api, caller: &Caller) -> Result<(), ApiError> {
    api.limits.questions.take(&caller.actor(), Instant::now()).map_err(|wait| {
        api.app.metrics.limited("question");
        ApiError::rate_limited("with this token", wait)
    })
}
