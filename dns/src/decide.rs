//! What becomes of a query. In order: its class and type, what we know ourselves, the shape of the name, the gate.

use hickory_proto::rr::{DNSClass, RecordType};

use crate::{
    Gate, Verdict, Why,
    local::{self, Local, kind_of},
    names::Table,
    query::Query,
    question::{Question, host_name},
};

/// The decision.
#[derive(Debug, PartialEq)]
pub(crate) enum Decision {
    /// Answered here.
    Local(Local),
    /// Refused.
    Refuse { why: Why, rule: Option<u32> },
    /// May be asked of a nameserver.
    Forward { question: Question, rule: u32, wildcard: bool },
}

/// Decides. Nothing has left the host when it returns.
pub(crate) fn decide(query: &Query, names: &Table, gate: &dyn Gate) -> Decision {
    let refuse = |why| Decision::Refuse { why, rule: None };
    let asked = &query.asked;
    if asked.query_class != DNSClass::IN {
        return refuse(Why::Class);
    }
    match asked.query_type {
        RecordType::A | RecordType::AAAA | RecordType::HTTPS | RecordType::SVCB => {}
        RecordType::PTR => {
            return local::reverse(&asked.name, names).map_or(refuse(Why::Reverse), Decision::Local);
        }
        _ => return refuse(Why::Type),
    }
    let Some(name) = host_name(&asked.name) else { return refuse(Why::Name) };
    let kind = kind_of(asked.query_type);
    if let Some(local) = local::forward(&name, kind, names) {
        return Decision::Local(local);
    }
    if !name.contains('.') {
        return refuse(Why::SingleLabel);
    }
    match (gate.query(&name), kind) {
        (Verdict::Unknown, _) => refuse(Why::Unknown),
        (Verdict::Searched, _) => refuse(Why::Searched),
        (Verdict::Denied { rule }, _) => Decision::Refuse { why: Why::Denied, rule: Some(rule) },
        (Verdict::Allowed { rule, wildcard }, Some(kind)) => {
            Decision::Forward { question: Question { name, kind }, rule, wildcard }
        }
        // HTTPS and SVCB would tell addresses that nobody pinned (RFC 9460 §7.3). Without them, clients ask for A and AAAA.
        (Verdict::Allowed { .. }, None) => Decision::Local(Local::Found(Vec::new())),
    }
}
