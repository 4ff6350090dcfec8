//! What the resolver may do, by the sandbox's policy: the names it asks for, and the addresses it tells.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lattice_audit::{Flow, Timestamp};
use lattice_dns::{Admitted, Gate, Refusal, Transport, Verdict, Why};
use lattice_policy::{Action, Direction, NameVerdict, Reason, RuleId};

use crate::{
    clock::{nanos, since_boot},
    live::{Answer, Live},
    recorder::Teller,
};

/// Shortest and longest time that an address stays pinned after the agent was told it. Many programs resolve once and connect
/// some time later, whatever the time to live was.
const PINNED: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3600)];

/// How much longer a pin lives than was told: what ends within [`LEAD`] is taken away at each refresh.
const SLACK: Duration = Duration::from_secs(40);

/// How long before their end pins are looked at. More than the time between two refreshes.
const LEAD: Duration = Duration::from_secs(20);

/// The ends of pins are multiples of this, so that an answer that is told again soon changes none.
const GRAIN: Duration = Duration::from_secs(20);

/// Where the agent asks.
pub(crate) const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// The policy in force, as the resolver's gate.
pub(crate) struct PolicyGate {
    pub(crate) live: Arc<Mutex<Live>>,
    pub(crate) teller: Teller,
    /// The agent's search list: domains in lower case.
    pub(crate) search: Vec<String>,
}

impl Gate for PolicyGate {
    fn query(&self, name: &str) -> Verdict {
        match self.live().query(name) {
            (NameVerdict::Allowed(rule), wildcard) => Verdict::Allowed { rule: rule.0, wildcard },
            (NameVerdict::Denied(rule), _) => Verdict::Denied { rule: rule.0 },
            (NameVerdict::Unknown, _) if self.is_searched(name) => Verdict::Searched,
            (NameVerdict::Unknown, _) => Verdict::Unknown,
        }
    }

    fn answer(&self, name: &str, answers: &[IpAddr], ttl: Duration) -> Admitted {
        let [shortest, longest] = PINNED;
        let until = since_boot() + ttl.clamp(shortest, longest) + SLACK;
        let (learned, generation) = {
            let mut live = self.live();
            let until = nanos(until).next_multiple_of(nanos(GRAIN));
            (live.learn(name, answers, until), live.policy().generation)
        };
        let answer = learned.unwrap_or_else(|error| {
            tracing::debug!(%error, name, "cannot let the agent use an answer");
            Answer::default()
        });
        for (address, refused) in answer.refused {
            // No louder: the agent can ask for it as often as it likes. On record it is, within the agent's budget.
            tracing::debug!(name, %address, %refused, "an answer is kept from the agent");
            let to = SocketAddr::new(address, 0);
            let why = Some(format!("resolver: {refused}"));
            self.teller.tell(Flow {
                name: Some(name.to_owned()),
                rule_text: why,
                ..flow(generation, RESOLVER, to, refused.reason())
            });
        }
        Admitted { addresses: answer.admitted, ttl: ttl.min(longest) }
    }

    fn refused(&self, refusal: &Refusal) {
        // Under one lock: the rule is one of this generation.
        let (text, generation) = {
            let live = self.live();
            let policy = live.policy();
            let text = match refusal.why {
                // The addresses are on record already.
                Why::Answer => return,
                Why::Unknown | Why::Searched | Why::Denied => {
                    let rule = refusal.rule.and_then(|rule| policy.rule(RuleId(rule)));
                    rule.map(|rule| rule.text.clone())
                }
                why => Some(format!("resolver: {}", why.as_str())),
            };
            (text, policy.generation)
        };
        let name = match refusal.qtype.as_str() {
            "A" | "AAAA" => refusal.name.clone(),
            other => format!("{} {other}", refusal.name),
        };
        self.teller.tell(Flow {
            proto: match refusal.transport {
                Transport::Udp => 17,
                Transport::Tcp => 6,
            },
            rule: refusal.rule.map_or(RuleId::NONE, RuleId),
            rule_text: text,
            name: Some(name),
            ..flow(generation, refusal.client, RESOLVER, Reason::Name)
        });
    }

    fn untold(&self) {
        self.teller.miss();
    }
}

impl PolicyGate {
    /// Whether a resolver that goes through the search list may have made `name` of another.
    fn is_searched(&self, name: &str) -> bool {
        let below =
            |domain: &String| name.strip_suffix(domain.as_str()).is_some_and(|name| name.ends_with('.'));
        self.search.iter().any(below)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every refusal is: a denied datagram of the agent.
fn flow(generation: u32, src: SocketAddr, dst: SocketAddr, reason: Reason) -> Flow {
    Flow {
        timestamp: Timestamp::now(),
        src,
        dst,
        proto: 17,
        direction: Direction::Egress,
        action: Action::Deny,
        reason,
        rule: RuleId::NONE,
        rule_text: None,
        generation,
        bytes: 0,
        name: None,
    }
}

/// Takes away the pins whose time is over. To be called every 15 s or so.
pub(crate) fn expire(live: &Mutex<Live>) {
    let now = nanos(since_boot() + LEAD);
    live.lock().unwrap_or_else(PoisonError::into_inner).expire_pins(now);
}
