//! NATS subjects and the permissions that go with them. A peer's subject *is* its identity: the server lets a user
//! touch only subjects that carry its own id, so a handler may take the id from the subject.

use crate::PeerId;

/// The queue group in which every latticed of a control plane answers.
pub const QUEUE: &str = "latticed";

/// Enrolment requests, from a bootstrap user to latticed.
pub const ENROLL: &str = "lattice.enroll";

/// What a peer may ask latticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerVerb {
    /// The network map.
    Netmap,
    /// I am alive; these are my endpoints.
    Heartbeat,
    /// Give me a new NATS JWT, and more time to live when my membership is limited.
    Renew,
    /// I am going: show me offline until my next heartbeat. Identity and address stay mine.
    Leave,
    /// STUN servers, relays and a token for these ([`crate::Reach`]).
    Reach,
}

impl PeerVerb {
    /// Every verb.
    pub const ALL: [Self; 5] = [Self::Netmap, Self::Heartbeat, Self::Renew, Self::Leave, Self::Reach];

    /// The last token of the subject.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Netmap => "netmap",
            Self::Heartbeat => "heartbeat",
            Self::Renew => "renew",
            Self::Leave => "leave",
            Self::Reach => "reach",
        }
    }
}

/// The subject on which `peer` asks `verb`.
pub fn peer(peer: &PeerId, verb: PeerVerb) -> String {
    format!("lattice.peer.{peer}.{}", verb.as_str())
}

/// What latticed subscribes to for `verb`, from every peer.
pub fn any_peer(verb: PeerVerb) -> String {
    format!("lattice.peer.*.{}", verb.as_str())
}

/// Takes a request subject apart.
pub fn parse_peer(subject: &str) -> Option<(PeerId, PeerVerb)> {
    let (id, verb) = subject.strip_prefix("lattice.peer.")?.split_once('.')?;
    let verb = PeerVerb::ALL.into_iter().find(|v| v.as_str() == verb)?;
    Some((id.parse().ok()?, verb))
}

/// Where latticed pushes the network map of `peer`.
pub fn config(peer: &PeerId) -> String {
    format!("lattice.config.{peer}")
}

/// Where `from` leaves a sealed signal for `to`. A peer may publish only with its own id at the end, and read only with its
/// own id before it, so the sender is proven by the server.
pub fn signal(to: &PeerId, from: &PeerId) -> String {
    format!("lattice.signal.{to}.{from}")
}

/// What `to` subscribes to for the signals of everybody.
pub fn signals(to: &PeerId) -> String {
    format!("lattice.signal.{to}.*")
}

/// Takes the subject of a signal apart: to whom, from whom.
pub fn parse_signal(subject: &str) -> Option<(PeerId, PeerId)> {
    let (to, from) = subject.strip_prefix("lattice.signal.")?.split_once('.')?;
    Some((to.parse().ok()?, from.parse().ok()?))
}

/// The private inbox prefix of `peer`. A shared `_INBOX` would let any peer read every reply.
pub fn inbox(peer: &PeerId) -> String {
    format!("_INBOX_{peer}")
}

/// The private inbox prefix of a bootstrap user, by the nonce that latticed gave it.
pub fn bootstrap_inbox(nonce: &str) -> String {
    format!("_INBOX_enroll-{nonce}")
}

/// Whether `reply` is a place where latticed may answer `peer`. A reply subject is chosen by the requester and not
/// checked by the NATS server: without this, a peer could make latticed publish to another peer's subjects.
pub fn is_reply_of(peer: &PeerId, reply: &str) -> bool {
    within(&inbox(peer), reply)
}

/// The nonce of the bootstrap user whose inbox `reply` lies in; `None` when it is no place where latticed may answer an
/// enrolment. Chosen by the requester too: what it names is not proven.
pub fn enroll_nonce(reply: &str) -> Option<&str> {
    let (prefix, _) = reply.split_once('.')?;
    let nonce = prefix.strip_prefix("_INBOX_enroll-")?;
    let is_plain = !nonce.is_empty() && nonce.bytes().all(|c| c.is_ascii_alphanumeric());
    (is_plain && within(prefix, reply)).then_some(nonce)
}

fn within(prefix: &str, reply: &str) -> bool {
    reply.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| {
        !rest.is_empty()
            && rest.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'.' || c == b'-' || c == b'_')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn request_subjects_round_trip() {
        let id = PeerId::from_random([1; 10]);
        for verb in PeerVerb::ALL {
            assert_eq!(parse_peer(&peer(&id, verb)), Some((id.clone(), verb)));
        }
        let other = PeerId::from_random([2; 10]);
        assert_eq!(parse_signal(&signal(&id, &other)), Some((id.clone(), other)));
        assert_eq!(parse_signal(&signals(&id)), None);
        assert_eq!(parse_peer("lattice.peer.*.netmap"), None);
        assert_eq!(parse_peer(&format!("lattice.peer.{id}.netmap.x")), None);
    }

    #[test]
    fn replies_stay_in_their_inbox() {
        let (a, b) = (PeerId::from_random([1; 10]), PeerId::from_random([2; 10]));
        assert!(is_reply_of(&a, &format!("{}.x9", inbox(&a))));
        for bad in [
            config(&b),
            inbox(&a),
            format!("{}.", inbox(&a)),
            format!("{}.x", inbox(&b)),
            format!("{}.*", inbox(&a)),
            format!("{}x.y", inbox(&a)),
        ] {
            assert!(!is_reply_of(&a, &bad), "{bad}");
        }
        assert_eq!(enroll_nonce(&format!("{}.1", bootstrap_inbox("abc"))), Some("abc"));
        for bad in [
            config(&b),
            format!("{}.1", inbox(&a)),
            bootstrap_inbox("abc"),
            format!("{}.>", bootstrap_inbox("a")),
            format!("{}.x", bootstrap_inbox("\r\nPUB a")),
            format!("{}.x", bootstrap_inbox("*")),
            format!("{}.x", bootstrap_inbox("")),
        ] {
            assert_eq!(enroll_nonce(&bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_a_peer_sends_leads_to_itself_or_nowhere(text in ".{0,60}", other: [u8; 10]) {
            let (a, b) = (PeerId::from_random([1; 10]), PeerId::from_random(other));
            for verb in PeerVerb::ALL {
                prop_assert_eq!(parse_peer(&peer(&b, verb)), Some((b.clone(), verb)));
            }
            for subject in [text.clone(), format!("lattice.peer.{text}"), format!("lattice.peer.{b}.{text}")] {
                if let Some((id, verb)) = parse_peer(&subject) {
                    prop_assert_eq!(peer(&id, verb), subject);
                }
            }
            for reply in [text.clone(), format!("{}{text}", inbox(&a)), format!("{}.{text}", inbox(&b))] {
                if is_reply_of(&a, &reply) {
                    let own = inbox(&a) + ".";
                    prop_assert!(reply.starts_with(&own));
                    prop_assert!(!reply.contains(['*', '>', ' ', '\r', '\n']));
                }
            }
            let reply = format!("{}{text}", bootstrap_inbox("n"));
            if let Some(nonce) = enroll_nonce(&reply) {
                prop_assert!(nonce.starts_with('n') && !reply.contains(['*', '>', ' ', '\r', '\n']));
            }
        }
    }
}
