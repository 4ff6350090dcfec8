//! Mints the JWTs: the accounts that the server is started with, and the users that connect to it.

use std::fmt;

use lattice_wire::{PeerId, PeerName, message::BootstrapUser, subject};
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

/// Subscriptions that a user may hold: a peer its configuration and an inbox, and some room for both to overlap.
const BOOTSTRAP_SUBSCRIPTIONS: i64 = 4;
const PEER_SUBSCRIPTIONS: i64 = 16;

/// Signs for the operator and for the account.
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

    /// What a server must be configured with so that it lets our users in.
    ///
    /// # Errors
    /// When signing fails.
    pub fn trust(&self, now: i64) -> Result<Trust, JwtError> {
        let Keys { operator, system, account } = &self.keys;
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
        let account_jwt = |name, key: &KeyPair| {
            let subject = key.public_key();
            let claims =
                Claims { name, subject: &subject, issued_at: now, expires_at: None, nats: account_claims() };
            jwt::encode(operator, &claims).map(|jwt| (key.public_key(), jwt))
        };
        Ok(Trust {
            operator: operator_jwt,
            system_account: system.public_key(),
            accounts: vec![account_jwt("SYS", system)?, account_jwt("LATTICE", account)?],
        })
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

    /// The user of an admitted peer, for the key that it proved to hold. It does not expire: nothing renews it yet, so a
    /// peer that was away for longer would need a new token. What ends a membership is the removal of the peer: from then
    /// on latticed tells it nothing, and the others nothing of it.
    ///
    /// # Errors
    /// When signing fails.
    pub fn peer(&self, id: &PeerId, name: &PeerName, public_key: &str, now: i64) -> Result<String, JwtError> {
        let permissions = Permissions {
            publish: vec![format!("lattice.peer.{id}.>")],
            subscribe: vec![subject::config(id), format!("{}.>", subject::inbox(id))],
            subscriptions: PEER_SUBSCRIPTIONS,
        };
        self.user(name.as_str(), public_key, Some((permissions, None)), now)
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

fn account_claims() -> Value {
    json!({
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
        let jwt = issuer().peer(&id, &name, &KeyPair::new_user().public_key(), 0).unwrap();
        let claims = nats_claims(&jwt);
        assert_eq!(claims["pub"], json!({"allow": [format!("lattice.peer.{id}.>")]}));
        assert_eq!(
            claims["sub"],
            json!({"allow": [format!("lattice.config.{id}"), format!("_INBOX_{id}.>")]})
        );
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
