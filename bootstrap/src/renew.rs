//! Renews the NATS JWT and the membership while the peer runs.

use std::time::Duration;

use async_nats::Client;
use lattice_wire::{
    Credentials,
    message::{Ack, RenewGrant},
    subject::{self, PeerVerb},
};

use crate::{
    Failure, Join,
    clock::now_unix,
    credentials, identity,
    jwt::{end_of, is_over},
    session::{self, Jwt},
};

/// A renewal is due after so many seconds at the latest.
const AT_LEAST_EVERY: i64 = 24 * 3600;
/// And at most: by a clock that is ahead, what was renewed just now may be over already.
const AT_MOST_EVERY: i64 = 10;
/// One that failed is tried again after so many seconds at the latest.
const RETRY: i64 = 60;

/// When to renew, and what is renewed.
pub(crate) struct Renewal {
    join: Join,
    jwt: Jwt,
    /// Of the JWT and of the membership, in Unix seconds.
    ends: [Option<i64>; 2],
    /// Unix seconds.
    due: i64,
    /// Peers that started together should not renew together: a share of the wait that is left out, in 1/256 of a quarter.
    jitter: u8,
}

impl Renewal {
    /// Of a peer that connects with what is in `jwt`.
    pub(crate) fn new(join: Join, jwt: Jwt, credentials: &Credentials, not_after: Option<i64>) -> Self {
        let mut jitter = [0];
        // Without randomness there is no jitter, and that is all.
        let _ = getrandom::fill(&mut jitter);
        let ends = [end_of(&credentials.nats_jwt), not_after];
        let due = due(ends, jitter[0], now_unix());
        Self { join: Join { token: None, ..join }, jwt, ends, due, jitter: jitter[0] }
    }

    /// How long to wait from `now` on, in Unix seconds.
    pub(crate) fn wait(&self, now: i64) -> Duration {
        Duration::from_secs(self.due.saturating_sub(now).max(0).unsigned_abs())
    }

    /// What a network map says of the membership.
    pub(crate) fn membership(&mut self, not_after: Option<i64>, now: i64) {
        if self.ends[1] != not_after {
            self.ends[1] = not_after;
            self.due = due(self.ends, self.jitter, now);
        }
    }

    /// Renews now. What fails is tried again soon.
    pub(crate) async fn run(&mut self, client: &Client, credentials: &mut Credentials) {
        match self.renew(client, credentials).await {
            Ok(not_after) => {
                self.jwt.replace(&credentials.nats_jwt);
                self.ends = [end_of(&credentials.nats_jwt), not_after];
                let now = now_unix();
                self.due = due(self.ends, self.jitter, now).max(now + AT_MOST_EVERY);
                match left(self.ends, now).filter(|left| *left <= 0) {
                    None => tracing::debug!(?not_after, "renewed"),
                    Some(left) => tracing::warn!(
                        "what was renewed ended {} s ago by the clock of this host: is it ahead?",
                        -left
                    ),
                }
            }
            Err(error) => {
                let now = now_unix();
                let soon = left(self.ends, now).filter(|left| *left > 0);
                self.due = now + soon.map_or(RETRY, |left| (left / 2).clamp(1, RETRY));
                tracing::warn!(%error, retry_in = self.due - now, "cannot renew the membership");
            }
        }
    }

    async fn renew(&self, client: &Client, credentials: &mut Credentials) -> Result<Option<i64>, Failure> {
        // NATS closed the connection when the JWT ended, and only the door for newcomers is still open.
        if is_over(&credentials.nats_jwt, now_unix()) {
            return identity::again(&self.join, credentials, Vec::new()).await;
        }
        let subject = subject::peer(&credentials.peer, PeerVerb::Renew);
        let grant: RenewGrant = session::request(client, subject, &Ack {}).await?;
        let mut renewed = credentials.clone();
        renewed.nats_jwt = grant.nats_jwt;
        credentials::store(&self.join.credentials, &renewed)?;
        *credentials = renewed;
        Ok(grant.not_after)
    }
}

/// Half of the shortest time that is left, a day at most, less the jitter; at least a second from now.
fn due(ends: [Option<i64>; 2], jitter: u8, now: i64) -> i64 {
    let half = left(ends, now).map_or(AT_LEAST_EVERY, |left| (left / 2).clamp(0, AT_LEAST_EVERY));
    let early = half / 4 * i64::from(jitter) / 256;
    now + (half - early).max(1)
}

/// Seconds until the first of these ends.
fn left(ends: [Option<i64>; 2], now: i64) -> Option<i64> {
    ends.into_iter().flatten().min().map(|end| end.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use lattice_wire::message::RefusalCode;
    use serde_json::json;

    use super::*;
    use crate::fake::{self, Fake};

    const DAY: i64 = 24 * 3600;

    #[test]
    fn due_at_half_of_what_ends_first_and_once_a_day() {
        let now = 1_000_000;
        assert_eq!(due([None, None], 0, now), now + DAY);
        assert_eq!(due([Some(now + 30 * DAY), None], 0, now), now + DAY);
        assert_eq!(due([Some(now + 30 * DAY), Some(now + 600)], 0, now), now + 300);
        assert_eq!(due([Some(now + 400), Some(now + 600)], 0, now), now + 200);
        assert_eq!(due([Some(now + 1), None], 0, now), now + 1, "never without a pause");
        assert_eq!(due([Some(now - 50), None], 255, now), now + 1, "too late: at once");
        let spread = due([None, None], 255, now);
        assert!(spread < now + DAY && spread > now + DAY * 3 / 4 - 1, "{spread}");
        assert!(due([Some(i64::MAX), Some(i64::MIN)], 9, now) > now);
    }

    #[tokio::test]
    async fn a_renewal_is_stored_at_once_and_used_by_the_next_connection() {
        let fake = Fake::start().await;
        let now = now_unix();
        let fresh = fake::jwt(&json!({"exp": now + 4 * DAY}));
        let granted = RenewGrant { nats_jwt: fresh.clone(), not_after: Some(now + 600) };
        let join = fake.join();
        let mut credentials = fake.stored(&fake::jwt(&json!({"exp": now + 10})));
        let subject = subject::peer(&credentials.peer, PeerVerb::Renew);
        let asked = fake.answer(&subject, move |_| Ok(granted.clone())).await;
        let jwt = Jwt::new(&credentials.nats_jwt);
        let mut renewal = Renewal::new(join.clone(), jwt.clone(), &credentials, None);
        assert!(renewal.wait(now) <= Duration::from_secs(6), "half of ten seconds");
        renewal.run(&fake.client, &mut credentials).await;
        assert_eq!(asked.lock().unwrap().len(), 1);
        assert_eq!(credentials.nats_jwt, fresh);
        assert_eq!(jwt.get(), fresh);
        assert_eq!(credentials::load(&join.credentials, &join.name).unwrap(), Some(credentials.clone()));
        let wait = renewal.wait(now).as_secs();
        assert!((200..=305).contains(&wait), "{wait}: half of the membership, not of the JWT");
        renewal.membership(Some(now + 60), now);
        assert!(renewal.wait(now).as_secs() <= 31);
    }

    #[tokio::test]
    async fn a_clock_that_is_ahead_does_not_make_it_hurry() {
        let fake = Fake::start().await;
        let now = now_unix();
        let granted = fake::jwt(&json!({"exp": now - DAY}));
        let grant = RenewGrant { nats_jwt: granted, not_after: None };
        let mut credentials = fake.stored(&fake::jwt(&json!({"exp": now + 10})));
        let subject = subject::peer(&credentials.peer, PeerVerb::Renew);
        fake.answer(&subject, move |_| Ok(grant.clone())).await;
        let mut renewal = Renewal::new(fake.join(), Jwt::new(&credentials.nats_jwt), &credentials, None);
        renewal.run(&fake.client, &mut credentials).await;
        assert!(renewal.wait(now).as_secs() >= AT_MOST_EVERY.unsigned_abs());
    }

    #[tokio::test]
    async fn a_renewal_that_fails_changes_nothing_and_is_tried_again() {
        let fake = Fake::start().await;
        let now = now_unix();
        let mut credentials = fake.stored(&fake::jwt(&json!({"exp": now + 4 * DAY})));
        let before = credentials.clone();
        let subject = subject::peer(&credentials.peer, PeerVerb::Renew);
        fake.answer::<RenewGrant>(&subject, |_| Err(RefusalCode::Internal)).await;
        let jwt = Jwt::new(&credentials.nats_jwt);
        let mut renewal = Renewal::new(fake.join(), jwt.clone(), &credentials, None);
        renewal.run(&fake.client, &mut credentials).await;
        assert!(credentials == before && jwt.get() == before.nats_jwt);
        assert!((55..=65).contains(&renewal.wait(now).as_secs()));
        assert!(!fake.join().credentials.exists());
    }
}
