//! Puts on record what is refused here, before the policy is asked.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use lattice_audit::{Flow, Timestamp};
use lattice_overlay::stack::Transport;
use lattice_policy::{Action, Direction, Reason, RuleId};
use lattice_proxy::Because;

use super::refusal::because;
use crate::{generations::Generations, recorder::Teller};

/// The same refusal is told at most so often, as in every enforcer.
const QUIET: Duration = Duration::from_secs(1);

/// Refusals that are remembered for that.
const REMEMBERED: usize = 1024;

/// Tells refusals.
pub(crate) struct Record {
    /// Who refuses.
    by: &'static str,
    pub(crate) teller: Teller,
    pub(crate) rules: Generations,
    /// The sandbox's addresses.
    pub(crate) own: [IpAddr; 2],
    told: RefCell<HashMap<(u8, SocketAddr), Instant>>,
}

impl Record {
    pub(crate) fn new(by: &'static str, teller: Teller, rules: Generations, own: [IpAddr; 2]) -> Self {
        Self { by, teller, rules, own, told: RefCell::default() }
    }

    /// A flow to `remote`, which is `what`, is refused. `name` led there, if one did.
    pub(crate) fn refused(
        &self,
        transport: Transport,
        remote: SocketAddr,
        what: &str,
        name: Option<&str>,
    ) -> Because {
        let text = format!("{}: {what} is never dialled", self.by);
        self.denied(transport, remote, text, name)
    }

    /// A flow to `remote` is refused, for the reason that `text` says.
    pub(crate) fn denied(
        &self,
        transport: Transport,
        remote: SocketAddr,
        text: String,
        name: Option<&str>,
    ) -> Because {
        let proto = match transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
            Transport::Icmp if remote.is_ipv4() => 1,
            Transport::Icmp => 58,
        };
        if self.is_news((proto, remote), Instant::now()) {
            let own = self.own.iter().find(|own| own.is_ipv4() == remote.is_ipv4());
            self.teller.tell(Flow {
                timestamp: Timestamp::now(),
                src: SocketAddr::new(own.copied().unwrap_or(self.own[0]), 0),
                dst: remote,
                proto,
                direction: Direction::Egress,
                action: Action::Deny,
                reason: Reason::RuleDeny,
                rule: RuleId::NONE,
                rule_text: Some(text.clone()),
                generation: self.rules.generation(),
                bytes: 0,
                name: name.map(str::to_owned),
            });
        }
        because(Reason::RuleDeny, Some(text))
    }

    fn is_news(&self, flow: (u8, SocketAddr), now: Instant) -> bool {
        let mut told = self.told.borrow_mut();
        if told.get(&flow).is_some_and(|at| now.duration_since(*at) < QUIET) {
            return false;
        }
        if told.len() >= REMEMBERED {
            told.retain(|_, at| now.duration_since(*at) < QUIET);
        }
        // What is not remembered is told each time; how much of that is put down is for the recorder to limit.
        if told.len() < REMEMBERED {
            told.insert(flow, now);
        }
        true
    }
}
