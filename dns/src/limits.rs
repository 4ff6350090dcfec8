//! Every limit of the resolver. What goes beyond one is refused and counted ([`Why`](crate::Why)), or malformed.

use std::time::Duration;

/// Longest query of an agent, in octets. A real one has a name of at most 255 and an OPT record.
pub const MAX_QUERY: usize = 4096;
/// Largest reply by UDP that an agent can ask for by EDNS, in octets. The smallest is 512 (RFC 6891 §6.2.3).
pub const MAX_UDP_REPLY: usize = 4096;
/// What we tell nameservers to send by UDP at most, in octets: no fragments on any path (DNS flag day 2020).
pub const UPSTREAM_PAYLOAD: u16 = 1232;
/// Longest answer of a nameserver, in octets.
pub const MAX_ANSWER: usize = 16 * 1024;
/// Most CNAMEs between the name that was asked for and an address.
pub const MAX_CHAIN: usize = 8;
/// Most addresses of one answer; the rest of it is not read.
pub const MAX_ADDRESSES: usize = 32;

/// Most queries that wait for a nameserver; one more, and the oldest is refused.
pub const MAX_OUTSTANDING: usize = 512;
/// The longest a query waits, over all nameservers and attempts.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Answers by UDP that are not to our question before we ask by TCP, where nobody can guess.
pub const MAX_WRONG_ANSWERS: usize = 8;

/// Questions from within the process that were not read yet; who has one more waits.
pub const MAX_UNREAD: usize = 64;

/// Most names asked of nameservers in one second, in the long run.
pub const QUERIES_PER_SECOND: u32 = 50;
/// Most names asked of nameservers at once. With [`DEADLINE`] it also bounds the sockets: 100 + 5 × 50.
pub const QUERIES_BURST: u32 = 100;
/// How often one name may be asked in a second, in the long run; its A and its AAAA count.
pub const NAME_PER_SECOND: u32 = 2;
/// How often one name may be asked at once.
pub const NAME_BURST: u32 = 10;
/// Names whose rate is remembered. A new one is refused when all of them are in use.
pub const MAX_NAMES: usize = 4096;

/// Longest name under a wildcard, in characters. What the owner of a domain reads in its names is data.
pub const MAX_WILDCARD_OCTETS: usize = 128;
/// Most labels of a name under a wildcard.
pub const MAX_WILDCARD_LABELS: usize = 10;
/// Most different names under one wildcard rule in a [`WILDCARD_WINDOW`]: at most 128 octets a second go to the owner of the
/// domain that way.
pub const WILDCARD_NAMES: usize = 60;
/// See [`WILDCARD_NAMES`].
pub const WILDCARD_WINDOW: Duration = Duration::from_secs(60);
/// Wildcard rules in use within one window. A name of one more is refused.
pub const MAX_WILDCARD_RULES: usize = 1024;

/// Most TCP connections of an agent.
pub const MAX_CONNECTIONS: usize = 16;
/// How long a TCP connection may be silent, take for one query, or not read its replies.
pub const TCP_IDLE: Duration = Duration::from_secs(10);
/// Unread replies of one TCP connection; until one is read, no further query of it is.
pub const TCP_PIPELINE: usize = 32;

/// Answers that are remembered.
pub const MAX_CACHE: usize = 1024;
/// The longest an answer with addresses is remembered.
pub const POSITIVE_CACHE: Duration = Duration::from_secs(300);
/// How long it is remembered that there is nothing.
pub const NEGATIVE_CACHE: Duration = Duration::from_secs(5);
/// The time to live of the overlay's own names: a peer that was removed is soon forgotten.
pub const LOCAL_TTL: Duration = Duration::from_secs(5);

/// The same refusal is told once in this time.
pub const REFUSAL_QUIET: Duration = Duration::from_secs(1);
/// Most refusals told in [`REFUSAL_QUIET`]; further ones are counted only.
pub const MAX_REFUSALS: usize = 256;
