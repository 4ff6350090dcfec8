//! The relays that we are connected to, and which of them is best for a peer.

use std::{collections::BTreeMap, time::Duration};

use lattice_wire::reach::MAX_SERVERS;
use lattice_wireguard::RelayNumber;

#[derive(Debug)]
struct Relay {
    name: String,
    rtt: Option<Duration>,
}

/// Ours.
#[derive(Debug, Default)]
pub(crate) struct Relays(BTreeMap<RelayNumber, Relay>);

impl Relays {
    /// Says whether the order changed.
    pub(crate) fn set(&mut self, number: RelayNumber, name: &str, rtt: Option<Duration>) -> bool {
        let before = self.names();
        self.0.insert(number, Relay { name: name.to_owned(), rtt });
        self.names() != before
    }

    /// Says whether it was there.
    pub(crate) fn remove(&mut self, number: RelayNumber) -> bool {
        self.0.remove(&number).is_some()
    }

    pub(crate) fn rtt(&self, number: RelayNumber) -> Option<Duration> {
        self.0.get(&number)?.rtt
    }

    fn ordered(&self) -> Vec<(RelayNumber, &str)> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(_, relay)| (relay.rtt.unwrap_or(Duration::MAX), &relay.name));
        all.into_iter().map(|(number, relay)| (*number, relay.name.as_str())).collect()
    }

    /// Their names, the quickest first.
    pub(crate) fn names(&self) -> Vec<String> {
        self.ordered().into_iter().take(MAX_SERVERS).map(|(_, name)| name.to_owned()).collect()
    }

    /// The best for a peer that is connected to `theirs`, best first: that with the least sum of the two ranks. Both ends come to the
    /// same one where they know of the same.
    pub(crate) fn best(&self, theirs: &[String]) -> Option<RelayNumber> {
        let ranked = self.ordered().into_iter().enumerate().filter_map(|(rank, (number, name))| {
            let their_rank = theirs.iter().position(|theirs| theirs == name)?;
            Some((rank + their_rank, name, number))
        });
        ranked.min().map(|(_, _, number)| number)
    }

    /// The quickest.
    pub(crate) fn first(&self) -> Option<RelayNumber> {
        self.ordered().first().map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_choose_the_same_relay() {
        let relays = |rtts: [(&str, u64); 3]| {
            let mut relays = Relays::default();
            for (number, (name, ms)) in (1..).zip(rtts) {
                relays.set(number, name, Some(Duration::from_millis(ms)));
            }
            relays
        };
        let a = relays([("east", 10), ("middle", 40), ("west", 90)]);
        let b = relays([("west", 10), ("middle", 40), ("east", 90)]);
        // All sums are equal; the name decides.
        assert_eq!((a.best(&b.names()), b.best(&a.names())), (Some(1), Some(3)));
        let c = relays([("middle", 5), ("north", 6), ("west", 90)]);
        assert_eq!((a.best(&c.names()), c.best(&a.names())), (Some(2), Some(1)));
        assert_eq!(a.best(&["south".to_owned()]), None);
        assert_eq!(a.first(), Some(1));
    }
}
