//! The policy of a running sandbox: what the network map and the sandbox's flags allow together, changed in place when
//! a newer map says so.

use std::{
    net::IpAddr,
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use lattice_overlay::{Netns, link};
use lattice_policy::{
    Local, NamePattern, NameVerdict, Names, Pin, PinBook, Policy, PrivateNames, Refused, Table, effective_on,
    narrow::only_widens,
};
use lattice_wire::NetMap;
use tokio::sync::Notify;

use crate::{
    Failure, Kind,
    enforce::{self, Shared},
    failure::chain,
    generations::Generations,
    layers, overlay,
};

/// How soon an enforcer that did not take a pin is given another. An agent asks in a loop.
const PIN_RETRY: Duration = Duration::from_secs(1);

/// What is in force, and how to change it.
pub(crate) struct Live {
    local: Local,
    /// Where the host's way out leads nobody by the newest look. Of `local`'s the rest went since the last change.
    unreachable: Vec<IpNet>,
    /// Names of the map's layers, as far as they are in force.
    layers: Vec<String>,
    current: Arc<Policy>,
    /// Its rules by name.
    names: Names,
    /// What the resolver learned; it holds over changes of the policy.
    book: PinBook,
    /// When the enforcer did not take a pin: since then it may lack some of the book.
    unpinned: Option<Instant>,
    closed: Closed,
    generations: Generations,
    enforcer: Shared,
    /// Closes the ways that do not lead by the device's peers, for good.
    last_resort: Option<LastResort>,
    /// Rung when what the host says of the sandbox has changed: then the map must be applied again.
    again: Arc<Notify>,
}

/// What is left when an enforcer takes no policy any more, not even one that denies everything.
type LastResort = Box<dyn Fn() -> Result<(), Failure> + Send>;

/// Sets all of `links` of `netns` down.
pub(crate) fn closing(netns: Arc<Netns>, links: Vec<String>) -> LastResort {
    Box::new(move || {
        // Each of them, whatever becomes of the others.
        let closed: Vec<_> = links.iter().map(|link| link::set_down(&netns, link)).collect();
        closed
            .into_iter()
            .collect::<Result<(), _>>()
            .map_err(|error| Failure::new(Kind::Kernel, chain(&error)))
    })
}

/// What names may open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Closed {
    /// Nothing of these: the overlay, and this host.
    pub(crate) nets: Vec<IpNet>,
    /// What of private networks they may open nevertheless.
    pub(crate) private: PrivateNames,
}

impl Closed {
    fn names(&self, policy: &Policy, table: &Table) -> Names {
        Names::compiled(policy, table, &self.nets).with_private(&self.private)
    }
}

/// Another policy than the one in force.
#[derive(Debug)]
pub(crate) struct Change {
    policy: Policy,
    /// What [`Local::unreachable`] it was made with.
    unreachable: Vec<IpNet>,
    /// Whether it may forbid what is allowed now.
    pub(crate) narrows: bool,
}

/// A change that was not made.
#[derive(Debug)]
pub(crate) struct Stuck {
    pub(crate) failure: Failure,
    /// Whether more is allowed than should be.
    pub(crate) too_wide: bool,
}

/// The addresses of a name.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Those that the agent may use.
    pub(crate) admitted: Vec<IpAddr>,
    /// Those that it must not be told.
    pub(crate) refused: Vec<(IpAddr, Refused)>,
}

/// What `map` and `local` allow together at the time `now`.
pub(crate) fn wanted(generation: u32, local: &Local, map: &NetMap, now: i64) -> Result<Policy, Failure> {
    if map.is_over(now) {
        return Ok(Policy::new(generation));
    }
    let policy = effective_on(generation, &layers::read(map.policy.as_ref()), local, &overlay::of(map)?)
        .map_err(|error| Failure::new(Kind::Usage, error))?;
    let closes = !local.unreachable.is_empty() || !local.unrouted.is_empty();
    if local.most.is_none() && closes && !policy.is_closed() {
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            tracing::warn!("the policy has no room for this host's addresses: they are refused by the host, without a record");
        });
    }
    Ok(policy)
}

impl Live {
    /// `current` is in force in `enforcer` and known to `generations`. Names open what `closed` leaves.
    pub(crate) fn new(
        local: Local,
        current: Arc<Policy>,
        generations: Generations,
        enforcer: Shared,
        closed: Closed,
    ) -> Self {
        let names = Names::new(&current, &closed.nets).with_private(&closed.private);
        let (layers, book) = (Vec::new(), PinBook::default());
        Self {
            unreachable: local.unreachable.clone(),
            local,
            layers,
            current,
            names,
            book,
            unpinned: None,
            closed,
            generations,
            enforcer,
            last_resort: None,
            again: Arc::default(),
        }
    }

    /// Ready when the newest map must be applied again, because of [`Live::set_unreachable`].
    pub(crate) fn again(&self) -> Arc<Notify> {
        self.again.clone()
    }

    /// Where the host's way out leads nobody. What is new is denied at once. What went of `nets`, only from the next other change on: every
    /// change judges all flows anew, and cuts those by name whose pin is over. Where there is a way again, flows may go at once.
    pub(crate) fn set_unreachable(&mut self, nets: Vec<IpNet>, unrouted: Vec<IpNet>) {
        let is_new = nets.iter().any(|net| !self.local.unreachable.contains(net));
        self.unreachable = nets;
        if is_new || unrouted != self.local.unrouted {
            self.local.unreachable.clone_from(&self.unreachable);
            self.local.unrouted = unrouted;
            self.again.notify_one();
        }
    }

    /// `close` is what [`Live::close`] does.
    pub(crate) fn close_by(&mut self, close: LastResort) {
        self.last_resort = Some(close);
    }

    /// Closes every way out that removing the device's peers does not. Opened again at the next start only.
    pub(crate) fn close(&self) {
        let Some(close) = &self.last_resort else { return };
        match close() {
            Ok(()) => tracing::error!(
                "no policy can be put in force: the way out of the overlay is closed until the next start"
            ),
            Err(error) => {
                tracing::error!(%error, "no policy can be put in force, and the way out of the overlay not be closed: END THIS SANDBOX")
            }
        }
    }

    /// What is in force.
    pub(crate) fn policy(&self) -> &Policy {
        &self.current
    }

    /// The layers behind it, for people.
    pub(crate) fn layers(&self) -> &[String] {
        &self.layers
    }

    /// Notes that `map` was applied.
    pub(crate) fn settled(&mut self, map: &NetMap, now: i64) {
        self.layers = if map.is_over(now) {
            vec!["membership is over".into()]
        } else {
            layers::names(map.policy.as_ref())
        };
    }

    /// What must change for `map` at the time `now`; `None` when nothing must.
    pub(crate) fn change(&self, map: &NetMap, now: i64) -> Option<Change> {
        let mut policy = self.wanted(&self.local, map, now);
        if policy.rules() == self.current.rules() {
            return None;
        }
        if self.local.unreachable != self.unreachable {
            let unreachable = self.unreachable.clone();
            policy = self.wanted(&Local { unreachable, ..self.local.clone() }, map, now);
        }
        let narrows = !only_widens(&self.current, &policy);
        Some(Change { policy, unreachable: self.unreachable.clone(), narrows })
    }

    fn wanted(&self, local: &Local, map: &NetMap, now: i64) -> Policy {
        wanted(self.next(), local, map, now).unwrap_or_else(|failure| {
            tracing::warn!(%failure, "everything is denied");
            Policy::new(self.next())
        })
    }

    /// Makes a change.
    ///
    /// # Errors
    /// When the enforcer does not take it. Then the policy in force stays, or, if the change would have forbidden
    /// something, everything is denied.
    pub(crate) fn put(&mut self, change: Change) -> Result<(), Stuck> {
        let rules = change.policy.rules().len();
        match self.load(change.policy) {
            Ok(()) => {
                // Unless there is more to deny by now: then the next change is due.
                if change.unreachable == self.unreachable {
                    self.local.unreachable = change.unreachable;
                }
                tracing::info!(generation = self.current.generation, rules, "the policy has changed");
                Ok(())
            }
            Err(failure) if !change.narrows => Err(Stuck { failure, too_wide: false }),
            Err(failure) => {
                let too_wide = self.load(Policy::new(self.next())).is_err();
                tracing::warn!("a narrower policy cannot be put in force: everything is denied until it can");
                Err(Stuck { failure, too_wide })
            }
        }
    }

    fn load(&mut self, policy: Policy) -> Result<(), Failure> {
        let policy = Arc::new(policy);
        self.generations.add(policy.clone());
        let table = policy.compile();
        let names = self.closed.names(&policy, &table);
        let pins = self.book.pins(&names);
        match enforce::lock(&self.enforcer).apply(&policy, &table, &pins) {
            Ok(()) => (self.current, self.names, self.unpinned) = (policy, names, None),
            Err(failure) => {
                self.generations.forget_newest();
                return Err(failure);
            }
        }
        Ok(())
    }

    /// What the policy says of a name: the rule, and whether it is a wildcard.
    pub(crate) fn query(&self, name: &str) -> (NameVerdict, bool) {
        let verdict = self.names.query(name);
        let wildcard = match verdict {
            NameVerdict::Allowed(rule) => self.current.rule(rule).and_then(|rule| rule.name.as_ref()),
            _ => None,
        };
        (verdict, wildcard.is_some_and(NamePattern::is_wildcard))
    }

    /// Pins what of an answer the agent may be told, before it is. What holds until `until_ns` already costs the enforcer
    /// nothing: an agent may ask as often as it likes, and changes of the policy wait for the same lock.
    ///
    /// # Errors
    /// When the enforcer takes no pins: then none of them may be told.
    pub(crate) fn learn(&mut self, name: &str, answers: &[IpAddr], until_ns: u64) -> Result<Answer, Failure> {
        let mut pins: Vec<Pin> = Vec::new();
        let mut answer = Answer::default();
        let mut left_out = None;
        for &address in answers {
            let learned = match self.book.learn(&self.names, name, address, until_ns) {
                Ok(learned) => learned,
                Err(refused) => {
                    answer.refused.push((address, refused));
                    continue;
                }
            };
            if !learned.left_out.is_empty() {
                left_out = Some(address);
            }
            answer.admitted.push(address);
            pins.extend(learned.pins);
        }
        if let Some(address) = left_out {
            tracing::warn!(name, %address, "more rules name this address than one can hold: the widest are in force");
        }
        if self.unpinned.is_some_and(|at| at.elapsed() < PIN_RETRY) {
            return Err(Failure::new(Kind::Kernel, "the enforcer has not taken a pin just now"));
        }
        if self.unpinned.is_some() || !pins.is_empty() {
            self.pin(pins)?;
        }
        Ok(answer)
    }

    fn pin(&mut self, mut pins: Vec<Pin>) -> Result<(), Failure> {
        if self.unpinned.is_some() {
            pins.extend(self.book.pins(&self.names));
        }
        let pinned = enforce::lock(&self.enforcer).pin(&pins);
        self.unpinned = pinned.is_err().then(Instant::now);
        pinned.inspect_err(
            |error| tracing::warn!(%error, "names' addresses cannot be pinned: the agent is not told them"),
        )
    }

    /// What names open at the moment: name, address, and its end in nanoseconds of `CLOCK_BOOTTIME`.
    pub(crate) fn pinned(&self) -> impl Iterator<Item = (&str, IpAddr, u64)> {
        self.book.open(&self.names)
    }

    /// Forgets pins that end by `now_ns`, and lets what others hold of their addresses live on.
    pub(crate) fn expire_pins(&mut self, now_ns: u64) {
        let pins = self.book.expire(&self.names, now_ns);
        // Without any too: the clock of nftables stands still while the host sleeps, and each call ends what is over.
        let _told = self.pin(pins);
    }

    /// 0 is "no policy" in events, also after 2³² changes.
    fn next(&self) -> u32 {
        self.current.generation.wrapping_add(1).max(1)
    }
}

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
pub(crate) mod tests;
