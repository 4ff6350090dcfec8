//! What peers are told of STUN servers and relays: the same for all, but for the token that says to the relays who each is.

use std::collections::BTreeSet;

use lattice_wire::{HostPort, Reach, RelayClaims, RelayServer, reach::MAX_SERVERS};

use crate::{
    nats::{Issuer, JwtError},
    store::peers::Member,
};

/// How long a relay token lives at most, in seconds: who is removed is on the relays no longer than that.
pub const TOKEN_TTL: i64 = 3600;

/// The servers of the command line.
#[derive(Debug, Clone, Default)]
pub struct Servers {
    stun: Vec<String>,
    relays: Vec<RelayServer>,
}

/// Why servers cannot be told to peers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServers {
    /// Peers ignore what is beyond [`MAX_SERVERS`].
    #[error("{option} names {count} servers: peers take at most {MAX_SERVERS}")]
    TooMany {
        /// Of which option.
        option: &'static str,
        /// How many it names.
        count: usize,
    },
    /// Peers tell each other by name which relays they are on.
    #[error("--relay names two relays {0:?}: give each a name of its own with name=")]
    SameName(String),
}

impl Servers {
    /// Of `--stun` and `--relay`.
    ///
    /// # Errors
    /// When they are too many, or two relays have one name.
    pub fn new(stun: &[HostPort], relays: &[RelayServer]) -> Result<Self, InvalidServers> {
        for (option, count) in [("--stun", stun.len()), ("--relay", relays.len())] {
            if count > MAX_SERVERS {
                return Err(InvalidServers::TooMany { option, count });
            }
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = relays.iter().find(|relay| !names.insert(&relay.name)) {
            return Err(InvalidServers::SameName(twice.name.clone()));
        }
        Ok(Self { stun: stun.iter().map(HostPort::to_string).collect(), relays: relays.to_vec() })
    }

    /// What `member` is told at `now`, in Unix seconds. Its token ends with its membership; without relays, or a NATS key to prove
    /// itself by, it gets none.
    ///
    /// # Errors
    /// When signing fails.
    pub fn reach(&self, member: &Member, issuer: &Issuer, now: i64) -> Result<Reach, JwtError> {
        let (stun, relays) = (self.stun.clone(), self.relays.clone());
        let key = member.nats_public_key.as_ref().filter(|_| !relays.is_empty());
        let Some(nats) = key else {
            return Ok(Reach { stun, relays, ..Reach::default() });
        };
        let latest = now.saturating_add(TOKEN_TTL);
        let claims = RelayClaims {
            workspace: member.workspace.clone(),
            wireguard: member.wireguard_public_key,
            nats: nats.clone(),
            not_after: member.not_after.map_or(latest, |end| end.min(latest)),
        };
        let token_not_after = Some(claims.not_after);
        Ok(Reach { stun, relays, relay_token: Some(issuer.relay_token(&claims)?), token_not_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(name: &str) -> RelayServer {
        format!("lrp://a:1?name={name}#sha256={}", "0".repeat(64)).parse().unwrap()
    }

    #[test]
    fn servers_are_few_and_have_names_of_their_own() {
        let stun = vec!["a:1".parse().unwrap(); MAX_SERVERS + 1];
        let relays: Vec<_> = (0..=MAX_SERVERS).map(|n| relay(&format!("r{n}"))).collect();
        assert!(Servers::new(&stun[1..], &relays[1..]).is_ok());
        let refused = Servers::new(&stun, &[]).unwrap_err().to_string();
        assert!(refused.contains("--stun names 9"), "{refused}");
        assert!(Servers::new(&[], &relays).unwrap_err().to_string().contains("--relay names 9"));
        let twice = Servers::new(&[], &[relay("a"), relay("b"), relay("a")]).unwrap_err();
        assert_eq!(twice, InvalidServers::SameName("a".into()));
    }
}
