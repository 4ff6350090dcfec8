//! The resolver without its sockets: messages in, what is to be done out.
//!
//! A question that is on its way to a nameserver is a *flight*; equal questions that come meanwhile wait for the same one.
//! `W` is whatever the shell needs to send a reply to who waits.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::{op::ResponseCode, rr::RData};

use crate::{
    Gate, Names, Refusal, Why,
    answer::Outcome,
    cache::Cache,
    counters::Tally,
    decide::{Decision, decide},
    gate::type_text,
    limits::{LOCAL_TTL, MAX_OUTSTANDING},
    local::{self, Local},
    query::{Client, Query, Unfit},
    question::{Question, printable},
    quiet::{Quiet, Tell},
    throttle::Throttle,
};

/// What the shell is to do.
#[derive(Debug)]
pub(crate) enum Action<W> {
    /// Send it.
    Reply { to: W, message: Vec<u8> },
    /// Ask the nameservers, and tell [`Core::answered`] how it ended, within the deadline.
    Ask(Question),
}

/// All state of the resolver.
pub(crate) struct Core<W> {
    gate: Arc<dyn Gate>,
    names: Names,
    tally: Arc<Tally>,
    throttle: Throttle,
    cache: Cache,
    quiet: Quiet,
    /// Who waits, the oldest first.
    waiting: BTreeMap<u64, Waiting<W>>,
    flights: HashMap<Question, BTreeSet<u64>>,
    next: u64,
}

struct Waiting<W> {
    query: Query,
    question: Question,
    rule: u32,
    to: W,
}

/// What is told of an outcome.
struct Told {
    code: ResponseCode,
    data: Vec<RData>,
    ttl: Duration,
    why: Option<Why>,
}

impl<W> Core<W> {
    pub(crate) fn new(gate: Arc<dyn Gate>, names: Names, tally: Arc<Tally>, now: Instant) -> Self {
        Self {
            gate,
            names,
            tally,
            throttle: Throttle::new(now),
            cache: Cache::default(),
            quiet: Quiet::new(now),
            waiting: BTreeMap::new(),
            flights: HashMap::new(),
            next: 0,
        }
    }

    /// A message of the agent.
    pub(crate) fn receive(&mut self, message: &[u8], client: Client, to: W, now: Instant) -> Vec<Action<W>> {
        self.tally.queries.add();
        let query = match Query::parse(message, client) {
            Ok(query) => query,
            Err(unfit) => return self.unfit(unfit, client, to, now),
        };
        match decide(&query, &self.names.table(), self.gate.as_ref()) {
            Decision::Local(local) => {
                self.tally.local.add();
                let message = match local {
                    Local::Found(data) => query.reply(ResponseCode::NoError, &data, LOCAL_TTL),
                    Local::None => query.reply(ResponseCode::NXDomain, &[], LOCAL_TTL),
                };
                vec![Action::Reply { to, message }]
            }
            Decision::Refuse { why, rule } => vec![self.refuse(&query, to, why, rule, now)],
            Decision::Forward { question, rule, wildcard } => {
                let waiting = Waiting { query, question, rule, to };
                self.forward(waiting, wildcard, now)
            }
        }
    }

    /// The nameservers' last word on `question`.
    pub(crate) fn answered(
        &mut self,
        question: &Question,
        outcome: &Outcome,
        now: Instant,
    ) -> Vec<Action<W>> {
        if *outcome == Outcome::Failed {
            self.tally.failed.add();
        }
        self.cache.put(question, outcome, now);
        let waiting: Vec<_> = self
            .flights
            .remove(question)
            .into_iter()
            .flatten()
            .filter_map(|index| self.waiting.remove(&index))
            .collect();
        if waiting.is_empty() {
            return Vec::new();
        }
        let told = self.admit(question, outcome);
        waiting.into_iter().map(|waiting| self.tell(waiting, &told, now)).collect()
    }

    fn unfit(&mut self, unfit: Unfit, client: Client, to: W, now: Instant) -> Vec<Action<W>> {
        let message = match unfit {
            Unfit::Ignored => {
                self.tally.malformed.add();
                return Vec::new();
            }
            Unfit::Malformed(message) => {
                self.tally.malformed.add();
                message
            }
            Unfit::Opcode(message) => {
                let Client { address: client, transport } = client;
                let (name, qtype, why) = (String::new(), String::new(), Why::Opcode);
                self.report(&Refusal { name, qtype, client, transport, why, rule: None }, now);
                message
            }
        };
        vec![Action::Reply { to, message }]
    }

    fn forward(&mut self, waiting: Waiting<W>, wildcard: bool, now: Instant) -> Vec<Action<W>> {
        let Waiting { question, rule, .. } = &waiting;
        if let Some(outcome) = self.cache.get(question, now) {
            self.tally.cached.add();
            let told = self.admit(question, &outcome);
            return vec![self.tell(waiting, &told, now)];
        }
        let mut actions = Vec::new();
        if !self.flights.contains_key(question) {
            if let Err(why) = self.throttle.take(&question.name, wildcard.then_some(*rule), now) {
                let rule = Some(*rule);
                return vec![self.refuse(&waiting.query, waiting.to, why, rule, now)];
            }
            self.tally.forwarded.add();
            actions.push(Action::Ask(question.clone()));
        }
        if self.waiting.len() >= MAX_OUTSTANDING
            && let Some((index, oldest)) = self.waiting.pop_first()
        {
            if let Some(flight) = self.flights.get_mut(&oldest.question) {
                flight.remove(&index);
            }
            let rule = Some(oldest.rule);
            actions.push(self.refuse(&oldest.query, oldest.to, Why::Outstanding, rule, now));
        }
        self.flights.entry(question.clone()).or_default().insert(self.next);
        self.waiting.insert(self.next, waiting);
        self.next += 1;
        actions
    }

    /// Asks the gate what of an outcome may be told, which pins it.
    fn admit(&self, question: &Question, outcome: &Outcome) -> Told {
        let told = |code, why| Told { code, data: Vec::new(), ttl: Duration::ZERO, why };
        match outcome {
            Outcome::Nothing => told(ResponseCode::NoError, None),
            Outcome::NoName => told(ResponseCode::NXDomain, None),
            Outcome::Failed => told(ResponseCode::ServFail, None),
            Outcome::Addresses { addresses, ttl } => {
                let mut admitted = self.gate.answer(&question.name, addresses, *ttl);
                admitted.addresses.retain(|address| addresses.contains(address));
                let data = local::data(&admitted.addresses, Some(question.kind));
                if data.is_empty() {
                    return told(ResponseCode::Refused, Some(Why::Answer));
                }
                Told { code: ResponseCode::NoError, data, ttl: admitted.ttl, why: None }
            }
        }
    }

    fn tell(&mut self, waiting: Waiting<W>, told: &Told, now: Instant) -> Action<W> {
        let Waiting { query, rule, to, .. } = waiting;
        match told.why {
            Some(why) => self.refuse(&query, to, why, Some(rule), now),
            None => Action::Reply { to, message: query.reply(told.code, &told.data, told.ttl) },
        }
    }

    fn refuse(&mut self, query: &Query, to: W, why: Why, rule: Option<u32>, now: Instant) -> Action<W> {
        let Client { address: client, transport } = query.client;
        let (name, qtype) = (printable(&query.asked.name), type_text(query.asked.query_type));
        self.report(&Refusal { name, qtype, client, transport, why, rule }, now);
        let code = if why == Why::Searched { ResponseCode::NXDomain } else { ResponseCode::Refused };
        Action::Reply { to, message: query.reply(code, &[], Duration::ZERO) }
    }

    fn report(&mut self, refusal: &Refusal, now: Instant) {
        self.tally.refused(refusal.why);
        match self.quiet.note(&refusal.name, refusal.why, now) {
            Tell::Yes => self.gate.refused(refusal),
            Tell::Known => {}
            Tell::TooMany => {
                self.tally.untold.add();
                self.gate.untold();
            }
        }
    }
}

#[cfg(test)]
mod tests;
