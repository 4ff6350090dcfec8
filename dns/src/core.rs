//! The resolver without its sockets: messages in, what is to be done out.
//!
//! A question that is on its way to a nameserver is a *flight*; equal questions that come meanwhile wait for the same one.
//! `W` is whatever the shell needs to send a reply to who waits.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType},
};

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
    question::{Question, printable, printable_text},
    quiet::{Quiet, Tell},
    throttle::Throttle,
};

/// What the shell is to do.
#[derive(Debug)]
pub(crate) enum Action<W> {
    /// Tell who asked.
    Tell { to: W, query: Query, told: Told },
    /// Send it to who sent what is no query.
    Reject { to: W, message: Vec<u8> },
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

/// What is told of a question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) code: ResponseCode,
    pub(crate) data: Vec<RData>,
    pub(crate) ttl: Duration,
    /// Why it was refused, and the rule that knows the name.
    pub(crate) refused: Option<(Why, Option<u32>)>,
}

impl Told {
    fn empty(code: ResponseCode) -> Self {
        Self { code, data: Vec::new(), ttl: Duration::ZERO, refused: None }
    }
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
        self.judge(query, to, now)
    }

    /// A question from within this process.
    pub(crate) fn ask(&mut self, query: Query, to: W, now: Instant) -> Vec<Action<W>> {
        self.tally.queries.add();
        self.judge(query, to, now)
    }

    /// A name from within this process that no query can carry: refused, counted and told like any other.
    pub(crate) fn unfit_name(&mut self, name: &str, client: Client, now: Instant) -> Why {
        self.tally.queries.add();
        let name = printable_text(name);
        let Client { address: client, transport } = client;
        let (qtype, why) = (type_text(RecordType::A), Why::Name);
        self.report(&Refusal { name, qtype, client, transport, why, rule: None }, now);
        why
    }

    fn judge(&mut self, query: Query, to: W, now: Instant) -> Vec<Action<W>> {
        match decide(&query, &self.names.table(), self.gate.as_ref()) {
            Decision::Local(local) => {
                self.tally.local.add();
                let (code, data) = match local {
                    Local::Found(data) => (ResponseCode::NoError, data),
                    Local::None => (ResponseCode::NXDomain, Vec::new()),
                };
                let told = Told { data, ttl: LOCAL_TTL, ..Told::empty(code) };
                vec![Action::Tell { to, query, told }]
            }
            Decision::Refuse { why, rule } => vec![self.refuse(query, to, why, rule, now)],
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
        waiting.into_iter().map(|waiting| self.tell(waiting, told.clone(), now)).collect()
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
        vec![Action::Reject { to, message }]
    }

    fn forward(&mut self, waiting: Waiting<W>, wildcard: bool, now: Instant) -> Vec<Action<W>> {
        let Waiting { question, rule, .. } = &waiting;
        if let Some(outcome) = self.cache.get(question, now) {
            self.tally.cached.add();
            let told = self.admit(question, &outcome);
            return vec![self.tell(waiting, told, now)];
        }
        let mut actions = Vec::new();
        if !self.flights.contains_key(question) {
            if let Err(why) = self.throttle.take(&question.name, wildcard.then_some(*rule), now) {
                let rule = Some(*rule);
                return vec![self.refuse(waiting.query, waiting.to, why, rule, now)];
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
            actions.push(self.refuse(oldest.query, oldest.to, Why::Outstanding, rule, now));
        }
        self.flights.entry(question.clone()).or_default().insert(self.next);
        self.waiting.insert(self.next, waiting);
        self.next += 1;
        actions
    }

    /// Asks the gate what of an outcome may be told, which pins it.
    fn admit(&self, question: &Question, outcome: &Outcome) -> Told {
        match outcome {
            Outcome::Nothing => Told::empty(ResponseCode::NoError),
            Outcome::NoName => Told::empty(ResponseCode::NXDomain),
            Outcome::Failed => Told::empty(ResponseCode::ServFail),
            Outcome::Addresses { addresses, ttl } => {
                let mut admitted = self.gate.answer(&question.name, addresses, *ttl);
                admitted.addresses.retain(|address| addresses.contains(address));
                let data = local::data(&admitted.addresses, Some(question.kind));
                if data.is_empty() {
                    let refused = Some((Why::Answer, None));
                    return Told { refused, ..Told::empty(ResponseCode::Refused) };
                }
                Told { data, ttl: admitted.ttl, ..Told::empty(ResponseCode::NoError) }
            }
        }
    }

    fn tell(&mut self, waiting: Waiting<W>, told: Told, now: Instant) -> Action<W> {
        let Waiting { query, rule, to, .. } = waiting;
        match told.refused {
            Some((why, _)) => self.refuse(query, to, why, Some(rule), now),
            None => Action::Tell { to, query, told },
        }
    }

    fn refuse(&mut self, query: Query, to: W, why: Why, rule: Option<u32>, now: Instant) -> Action<W> {
        let Client { address: client, transport } = query.client;
        let (name, qtype) = (printable(&query.asked.name), type_text(query.asked.query_type));
        self.report(&Refusal { name, qtype, client, transport, why, rule }, now);
        let code = if why == Why::Searched { ResponseCode::NXDomain } else { ResponseCode::Refused };
        let told = Told { refused: Some((why, rule)), ..Told::empty(code) };
        Action::Tell { to, query, told }
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
