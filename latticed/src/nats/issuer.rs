//! Mints the JWTs: the accounts that the server is started with, and the users that connect to it.

use std::{collections::BTreeMap, fmt};

use lattice_wire::{PeerId, PeerName, RelayClaims, message::BootstrapUser, relay_token, subject};
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::{
    MAX_PEER_PAYLOAD,
    bootstrap::Nonces,
    jwt::{self, Claims, JwtError},
};
use crate::keys::{Keys, random};

/// How long a bootstrap user lives, in seconds.
pub const BOOTSTRAP_TTL: i64 = 300;

/// How long a peer's JWT lives at most, in seconds; a running peer renews it at half of that.
pub const PEER_TTL: i64 = 30 * 24 * 3600;

/// Subscriptions that a user may hold: a peer its configuration, its signals and an inbox, and some room for all to overlap.
const BOOTSTRAP_SUBSCRIPTIONS: i64 = 4;
const PEER_SUBSCRIPTIONS: i64 = 16;

/// Signs for the operator, for the account and for relays.
pub struct Issuer {
    keys: Keys,
    nonces: Nonces,
}

/// What a server is configured with. All of it is public.
#[derive(Debug)]
pub struct Trust {
    /// JWT of the operator.
    pub operator: String,
    /// Public key of the system account.
    pub system_account: String,
    /// Public key and JWT of each account.
    pub accounts: Vec<(String, String)>,
}

/// What a user may do.
struct Permissions {
    publish: Vec<String>,
    subscribe: Vec<String>,
    subscriptions: i64,
}

/// Users that are refused although their JWTs are sound: each key with the Unix second up to which what was issued to it is void.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked(BTreeMap<String, i64>);

/// When a peer's JWT ends: with the membership, and after [`PEER_TTL`] at the latest. Unix seconds.
pub fn jwt_expiry(not_after: Option<i64>, now: i64) -> i64 {
    let latest = now.saturating_add(PEER_TTL);
    not_after.map_or(latest, |end| end.min(latest))
}

/// The subject on which servers take a new JWT of `account`.
pub(super) fn claims_update(account: &str) -> String {
    format!("$SYS.REQ.ACCOUNT.{account}.CLAIMS.UPDATE")
}

// === impl Revoked ===

impl Revoked {
    /// So many are kept, the newest: each is some 70 bytes of one message to every server. An older one is still refused
    /// by latticed, as an unknown peer.
    pub const MAX: usize = 20_000;
    /// A JWT is void when it was issued up to so many seconds after the removal: by another latticed, whose clock is ahead, or by
    /// this one before its clock was set back. Who is admitted once more has a new key, or waits for that long.
    const SKEW: i64 = 60;

    /// Of public user keys and the Unix seconds of their peers' removal.
    pub fn new(mut users: Vec<(String, i64)>) -> Self {
        users.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
        users.truncate(Self::MAX);
        // Oldest first: of two with one key, the newer stays.
        Self(users.into_iter().rev().map(|(key, at)| (key, at.saturating_add(Self::SKEW))).collect())
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

// === impl Issuer ===

impl Issuer {
    /// An issuer with these keys.
    ///
    /// # Errors
    /// When the account's key has no seed.
    pub fn new(keys: Keys) -> Result<Self, JwtError> {
        let nonces = Nonces::of(&keys.account)?;
        Ok(Self { keys, nonces })
    }

    /// The public keys of operator, system account, account and for relays.
    pub fn keys(&self) -> [String; 4] {
        let Keys { operator, system, account, relay } = &self.keys;
        [operator, system, account, relay].map(KeyPair::public_key)
    }

    /// The public key by which relays know what [`Issuer::relay_token`] signed.
    pub fn relay_key(&self) -> String {
        self.keys.relay.public_key()
    }

    /// Says to relays who a peer is.
    ///
    /// # Errors
    /// When signing fails.
    pub fn relay_token(&self, claims: &RelayClaims) -> Result<String, JwtError> {
        Ok(relay_token::issue(claims, &self.keys.relay)?)
    }

    /// Public key of the account that latticed and every peer live in.
    pub fn account(&self) -> String {
        self.keys.account.public_key()
    }

    /// What a server must be configured with so that it lets our users in, but none of `revoked`.
    ///
    /// # Errors
    /// When signing fails.
    pub fn trust(&self, revoked: &Revoked, now: i64) -> Result<Trust, JwtError> {
        let Keys { operator, system, account, .. } = &self.keys;
        let operator_jwt = jwt::encode(
            operator,
            &Claims {
                name: "lattice",
                subject: &operator.public_key(),
                issued_at: now,
                expires_at: None,
                nats: json!({"system_account": system.public_key(), "type": "operator", "version": 2}),
            },
        )?;
        let nats = account_claims(json!({}));
        let subject = system.public_key();
        let claims = Claims { name: "SYS", subject: &subject, issued_at: now, expires_at: None, nats };
        let system_jwt = jwt::encode(operator, &claims)?;
        Ok(Trust {
            operator: operator_jwt,
            system_account: system.public_key(),
            accounts: vec![
                (system.public_key(), system_jwt),
                (account.public_key(), self.account_jwt(revoked, now)?),
            ],
        })
    }

    /// The JWT of the account that latticed and every peer live in. A server closes the connections of `revoked` users when
    /// it learns of it.
    ///
    /// # Errors
    /// When signing fails.
    pub fn account_jwt(&self, revoked: &Revoked, now: i64) -> Result<String, JwtError> {
        let Keys { operator, account, .. } = &self.keys;
        let nats = account_claims(json!(revoked.0));
        let subject = account.public_key();
        let claims = Claims { name: "LATTICE", subject: &subject, issued_at: now, expires_at: None, nats };
        jwt::encode(operator, &claims)
    }

    /// The user of the system account that tells servers of revocations, and can do nothing else.
    ///
    /// # Errors
    /// When signing fails.
    pub fn system(&self, key: &KeyPair, inbox: &str, now: i64) -> Result<String, JwtError> {
        let publish = json!({"allow": [claims_update(&self.account())]});
        let nats = user_claims(publish, json!({"allow": [format!("{inbox}.>")]}), -1, -1);
        let subject = key.public_key();
        let claims =
            Claims { name: "latticed-system", subject: &subject, issued_at: now, expires_at: None, nats };
        jwt::encode(&self.keys.system, &claims)
    }

    /// The user that latticed connects as: everything within the account.
    ///
    /// # Errors
    /// When signing fails.
    pub fn service(&self, key: &KeyPair, now: i64) -> Result<String, JwtError> {
        self.user("latticed", &key.public_key(), None, now)
    }

    /// A new user for one enrolment.
    ///
    /// # Errors
    /// When signing fails.
    pub fn bootstrap(&self, now: i64) -> Result<BootstrapUser, JwtError> {
        let key = new_user()?;
        let inbox = subject::bootstrap_inbox(&self.nonces.make(random(), now + BOOTSTRAP_TTL));
        let permissions = Permissions {
            publish: vec![subject::ENROLL.into()],
            subscribe: vec![format!("{inbox}.>")],
            subscriptions: BOOTSTRAP_SUBSCRIPTIONS,
        };
        let grant = (permissions, Some(now + BOOTSTRAP_TTL));
        let jwt = self.user("bootstrap", &key.public_key(), Some(grant), now)?;
        Ok(BootstrapUser { jwt, seed: key.seed()?, inbox })
    }

    /// Whether a living bootstrap user has this nonce in the name of its inbox.
    pub fn is_nonce(&self, nonce: &str, now: i64) -> bool {
        self.nonces.is_living(nonce, now)
    }

    /// The user of an admitted peer, for the key that it proved to hold, until `expires_at` (see [`jwt_expiry`]).
    ///
    /// # Errors
    /// When signing fails.
    pub fn peer(
        &self,
        id: &PeerId,
        name: &PeerName,
        public_key: &str,
        expires_at: i64,
        now: i64,
    ) -> Result<String, JwtError> {
        let permissions = Permissions {
            publish: vec![format!("lattice.peer.{id}.>"), format!("lattice.signal.*.{id}")],
            subscribe: vec![
                subject::config(id),
                format!("lattice.signal.{id}.*"),
                format!("{}.>", subject::inbox(id)),
            ],
            subscriptions: PEER_SUBSCRIPTIONS,
        };
        self.user(name.as_str(), public_key, Some((permissions, Some(expires_at))), now)
    }

    fn user(
        &self,
        name: &str,
        subject: &str,
        grant: Option<(Permissions, Option<i64>)>,
        now: i64,
    ) -> Result<String, JwtError> {
        let (nats, expires_at) = match grant {
            Some((permissions, expires_at)) => (permissions.claims(), expires_at),
            None => (user_claims(json!({}), json!({}), -1, -1), None),
        };
        jwt::encode(&self.keys.account, &Claims { name, subject, issued_at: now, expires_at, nats })
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("account", &self.keys.account.public_key()).finish_non_exhaustive()
    }
}

/// A user key from the kernel's randomness.
///
/// # Errors
/// When the key cannot be made.
pub(super) fn new_user() -> Result<KeyPair, JwtError> {
    Ok(KeyPair::new_from_raw(nkeys::KeyPairType::User, random())?)
}

// === impl Permissions ===

impl Permissions {
    fn claims(&self) -> Value {
        user_claims(
            json!({"allow": self.publish}),
            json!({"allow": self.subscribe}),
            self.subscriptions,
            MAX_PEER_PAYLOAD as i64,
        )
    }
}

/// A limit of -1 is none. An absent one would be zero.
fn user_claims(publish: Value, subscribe: Value, subscriptions: i64, payload: i64) -> Value {
    json!({
        "pub": publish,
        "sub": subscribe,
        "subs": subscriptions,
        "data": -1,
        "payload": payload,
        "allowed_connection_types": ["STANDARD"],
        "type": "user",
        "version": 2,
    })
}

fn account_claims(revocations: Value) -> Value {
    json!({
        "revocations": revocations,
        "limits": {
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": 0,
        },
        "default_permissions": {"pub": {}, "sub": {}},
        "type": "account",
        "version": 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer() -> Issuer {
        Issuer::new(Keys {
            operator: KeyPair::new_operator(),
            system: KeyPair::new_account(),
            account: KeyPair::new_account(),
            relay: KeyPair::new_account(),
        })
        .unwrap()
    }

    fn nats_claims(text: &str) -> Value {
        jwt::tests::claims(text)["nats"].clone()
    }

    #[test]
    fn a_peer_may_touch_only_its_own_subjects() {
        let id = PeerId::from_random([5; 10]);
        let name = "demo".parse().unwrap();
        let jwt = issuer().peer(&id, &name, &KeyPair::new_user().public_key(), 100, 0).unwrap();
        let claims = nats_claims(&jwt);
        let publish = [format!("lattice.peer.{id}.>"), format!("lattice.signal.*.{id}")];
        let subscribe =
            [format!("lattice.config.{id}"), format!("lattice.signal.{id}.*"), format!("_INBOX_{id}.>")];
        assert_eq!(claims["pub"], json!({"allow": publish}));
        assert_eq!(claims["sub"], json!({"allow": subscribe}));
        assert_eq!(jwt::tests::claims(&jwt)["exp"], 100);
    }

    #[test]
    fn a_jwt_ends_with_the_membership_and_after_thirty_days_at_the_latest() {
        let now = 1_000;
        assert_eq!(jwt_expiry(None, now), now + PEER_TTL);
        assert_eq!(jwt_expiry(Some(now + 60), now), now + 60);
        assert_eq!(jwt_expiry(Some(now + PEER_TTL + 1), now), now + PEER_TTL);
        assert_eq!(jwt_expiry(Some(now - 1), now), now - 1);
        assert_eq!(jwt_expiry(Some(i64::MAX), i64::MAX), i64::MAX);
    }

    #[test]
    fn revocations_have_one_order_and_a_bound() {
        let users = |n: usize| (0..n).map(|i| (format!("U{i}"), i as i64)).collect::<Vec<_>>();
        let mut mixed = users(9);
        mixed.reverse();
        mixed.push(("U3".into(), 1));
        assert_eq!(Revoked::new(mixed), Revoked::new(users(9)), "sorted; of one key the newest counts");
        let many = Revoked::new(users(Revoked::MAX + 5));
        assert_eq!(many.len(), Revoked::MAX);
        assert!(!many.0.contains_key("U4") && many.0.contains_key("U5"), "the oldest go first");
        let issuer = issuer();
        let jwt = issuer.account_jwt(&many, 7).unwrap();
        assert!(jwt.len() < lattice_wire::message::MAX_MESSAGE, "{} bytes: NATS would refuse it", jwt.len());
        assert_eq!(nats_claims(&jwt)["revocations"]["U5"], 5 + Revoked::SKEW);
        assert_eq!(jwt, issuer.account_jwt(&many, 7).unwrap());
    }

    #[test]
    fn the_system_user_can_update_one_account_only() {
        let issuer = issuer();
        let claims = nats_claims(&issuer.system(&KeyPair::new_user(), "_INBOX_s", 0).unwrap());
        let subject = format!("$SYS.REQ.ACCOUNT.{}.CLAIMS.UPDATE", issuer.account());
        assert_eq!(claims["pub"], json!({"allow": [subject]}));
        assert_eq!(claims["sub"], json!({"allow": ["_INBOX_s.>"]}));
    }

    #[test]
    fn a_bootstrap_user_may_enroll_and_dies_soon() {
        let (issuer, now) = (issuer(), 1_700_000_000);
        let (a, b) = (issuer.bootstrap(now).unwrap(), issuer.bootstrap(now).unwrap());
        assert_ne!(a.inbox, b.inbox);
        assert_ne!(a.seed, b.seed);
        let reply = format!("{}.1", a.inbox);
        let nonce = subject::enroll_nonce(&reply).unwrap();
        assert!(issuer.is_nonce(nonce, now) && !issuer.is_nonce(nonce, now + BOOTSTRAP_TTL));
        let claims = nats_claims(&a.jwt);
        assert_eq!(claims["pub"], json!({"allow": ["lattice.enroll"]}));
        assert_eq!(claims["sub"], json!({"allow": [format!("{}.>", a.inbox)]}));
        assert_eq!(jwt::tests::claims(&a.jwt)["exp"], now + BOOTSTRAP_TTL);
    }
}
