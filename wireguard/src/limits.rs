//! The constants of section 6.1 of the paper, and the bounds of what waits.

use std::time::Duration;

/// Messages in one direction after which the initiator renews a session.
pub(crate) const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// Messages in one direction after which a session is dead: the replay window ends before the counter does.
pub(crate) const REJECT_AFTER_MESSAGES: u64 = u64::MAX - crate::replay::WINDOW;

/// A session's age at which its initiator renews it.
pub(crate) const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);

/// A session's age at which it is dead.
pub(crate) const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);

/// For how long a peer that does not answer is asked.
pub(crate) const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);

/// Between two initiations to a peer that does not answer; some jitter comes on top.
pub(crate) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest that a received packet stays without any answer.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bounds of the jitter, in milliseconds (section 6.1; the kernel has the same).
pub(crate) const MAX_JITTER_MS: u16 = 333;

/// After so long without a new session, all that is secret of the old ones is forgotten (section 6.3).
pub(crate) const FORGET_AFTER: Duration = Duration::from_secs(3 * 180);

/// The least time between two initiations taken from a peer, so that one with a valid key cannot keep us busy with
/// handshakes either. The kernel's WireGuard allows as many.
pub(crate) const INITIATION_INTERVAL: Duration = Duration::from_millis(20);

/// Packets that wait for one peer's session.
pub(crate) const MAX_QUEUED: usize = 256;

/// Bytes that wait for sessions of all peers: what an agent that writes to everybody can make us hold.
pub(crate) const MAX_QUEUED_BYTES: usize = 8 << 20;
