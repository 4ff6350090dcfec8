use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Mutex,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query as Asked},
    rr::{DNSClass, Name, RecordType},
};
use proptest::prelude::*;

use super::*;
use crate::{
    Admitted, Transport, Verdict,
    limits::{MAX_REFUSALS, NAME_BURST, WILDCARD_NAMES},
    question::Kind,
};

/// Allows `api.example.com` by rule 1 and what is under `wild.example.com` by rule 2, denies `bad.example.com` by rule 3; admits
/// what begins with 192. for no longer than a minute.
#[derive(Default)]
struct Policy {
    pinned: Mutex<Vec<(String, Vec<IpAddr>, Duration)>>,
    refused: Mutex<Vec<Refusal>>,
    untold: Mutex<u64>,
}

impl Gate for Policy {
    fn query(&self, name: &str) -> Verdict {
        assert!(name.contains('.') && !name.ends_with('.') && name == name.to_ascii_lowercase(), "{name}");
        match name {
            "api.example.com" => Verdict::Allowed { rule: 1, wildcard: false },
            "bad.example.com" => Verdict::Denied { rule: 3 },
            _ if name.ends_with(".wild.example.com") => Verdict::Allowed { rule: 2, wildcard: true },
            _ if name.ends_with(".search.example.com") => Verdict::Searched,
            _ => Verdict::Unknown,
        }
    }

    fn answer(&self, name: &str, answers: &[IpAddr], ttl: Duration) -> Admitted {
        self.pinned.lock().unwrap().push((name.into(), answers.into(), ttl));
        let good = |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 192);
        // One that nobody said: a mistake that must not reach the agent.
        let invented = IpAddr::from([192, 0, 2, 255]);
        let addresses = answers.iter().copied().filter(good).chain([invented]).collect();
        Admitted { addresses, ttl: ttl.min(Duration::from_secs(60)) }
    }

    fn refused(&self, refusal: &Refusal) {
        self.refused.lock().unwrap().push(refusal.clone());
    }

    fn untold(&self) {
        *self.untold.lock().unwrap() += 1;
    }
}

struct Test {
    core: Core<u32>,
    policy: Arc<Policy>,
    tally: Arc<Tally>,
    now: Instant,
}

impl Test {
    fn new() -> Self {
        let (policy, tally, now) = (Arc::new(Policy::default()), Arc::new(Tally::default()), Instant::now());
        let names = Names::default();
        names.replace([("tool".into(), vec!["10.42.0.2".parse().unwrap()])], Some("acme"), vec![]);
        let core = Core::new(Arc::clone(&policy) as _, names, Arc::clone(&tally), now);
        Self { core, policy, tally, now }
    }

    fn send(&mut self, message: &[u8], to: u32) -> Vec<Action<u32>> {
        let client = Client { address: (Ipv4Addr::LOCALHOST, 4321).into(), transport: Transport::Udp };
        self.core.receive(message, client, to, self.now)
    }

    fn ask(&mut self, name: &str, kind: RecordType, to: u32) -> Vec<Action<u32>> {
        self.send(&query(name, kind).to_vec().unwrap(), to)
    }

    /// The code and the number of records of the reply that comes at once.
    fn reply(&mut self, name: &str, kind: RecordType) -> (ResponseCode, usize) {
        let (_, reply) = parts(self.ask(name, kind, 0).remove(0));
        (reply.metadata.response_code, reply.answers.len())
    }

    fn whys(&self) -> Vec<(String, Why, Option<u32>)> {
        let refused = self.policy.refused.lock().unwrap();
        refused.iter().map(|refusal| (refusal.name.clone(), refusal.why, refusal.rule)).collect()
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Asked::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn question(name: &str) -> Question {
    Question { name: name.into(), kind: Kind::A }
}

fn found(addresses: &[[u8; 4]], seconds: u64) -> Outcome {
    let addresses = addresses.iter().map(|octets| IpAddr::from(*octets)).collect();
    Outcome::Addresses { addresses, ttl: Duration::from_secs(seconds) }
}

fn parts(action: Action<u32>) -> (u32, Message) {
    let (to, message) = match action {
        Action::Tell { to, query, told } => (to, query.reply(told.code, &told.data, told.ttl)),
        Action::Reject { to, message } => (to, message),
        Action::Ask(question) => panic!("forwarded: {question:?}"),
    };
    (to, Message::from_vec(&message).unwrap())
}

const REFUSED: (ResponseCode, usize) = (ResponseCode::Refused, 0);
const EMPTY: (ResponseCode, usize) = (ResponseCode::NoError, 0);
const NO_NAME: (ResponseCode, usize) = (ResponseCode::NXDomain, 0);

#[test]
fn only_permitted_names_and_types_are_forwarded() {
    use RecordType::{A, AAAA, ANY, AXFR, CNAME, HTTPS, MX, NULL, PTR, SRV, SVCB, TXT};
    let mut test = Test::new();
    for kind in [TXT, CNAME, MX, SRV, NULL, ANY, AXFR, RecordType::Unknown(65280)] {
        for name in ["api.example.com.", "tool.lattice."] {
            assert_eq!(test.reply(name, kind), REFUSED, "{kind}");
        }
    }
    assert_eq!(test.tally.snapshot().refused(Why::Type), 16);
    for (name, why) in [
        ("example.com.", Why::Unknown),
        ("evilapi.example.com.", Why::Unknown),
        ("api.example.com.evil.org.", Why::Unknown),
        ("wild.example.com.", Why::Unknown),
        ("bad.example.com.", Why::Denied),
        ("lattice.", Why::SingleLabel),
        ("intranet.", Why::SingleLabel),
        ("*.wild.example.com.", Why::Name),
        ("a\\.b.wild.example.com.", Why::Name),
        (".", Why::Name),
    ] {
        let mut test = Test::new();
        for kind in [A, AAAA, HTTPS] {
            assert_eq!(test.reply(name, kind), REFUSED, "{name}");
        }
        assert_eq!(test.tally.snapshot().refused(why), 3, "{name}");
    }
    assert_eq!(test.reply("8.8.8.8.in-addr.arpa.", PTR), REFUSED);
    assert_eq!(test.reply("api.example.com.", PTR), REFUSED);
    assert_eq!(test.reply("1.0.0.10.in-addr.arpa.", PTR), NO_NAME);
    assert_eq!(test.reply("2.0.42.10.in-addr.arpa.", PTR), (ResponseCode::NoError, 1));
    assert_eq!(test.reply("api.example.com.", HTTPS), EMPTY);
    assert_eq!(test.reply("api.example.com.", SVCB), EMPTY);
    assert_eq!(test.reply("TOOL.lattice.", A), (ResponseCode::NoError, 1));
    assert_eq!(test.reply("tool.acme.lattice.", AAAA), EMPTY);
    assert_eq!(test.reply("none.lattice.", A), NO_NAME);
    assert_eq!(test.reply("localhost.", AAAA), (ResponseCode::NoError, 1));
    let mut other_class = query("api.example.com.", A);
    other_class.queries[0].query_class = DNSClass::CH;
    let action = test.send(&other_class.to_vec().unwrap(), 0).remove(0);
    assert_eq!(parts(action).1.metadata.response_code, ResponseCode::Refused);
    assert_eq!(test.tally.snapshot().refused(Why::Class), 1);
    let asked = test.ask("API.Example.com.", A, 0);
    assert!(matches!(asked.as_slice(), [Action::Ask(asked)] if *asked == question("api.example.com")));
}

#[test]
fn an_answer_is_pinned_filtered_and_told_to_all_who_wait() {
    let mut test = Test::new();
    assert!(matches!(test.ask("api.example.com.", RecordType::A, 1).as_slice(), [Action::Ask(_)]));
    assert!(test.ask("API.example.com.", RecordType::A, 2).is_empty(), "waits for the same flight");
    let outcome = found(&[[192, 0, 2, 1], [10, 0, 0, 1]], 3600);
    let replies = test.core.answered(&question("api.example.com"), &outcome, test.now);
    let replies: Vec<_> = replies.into_iter().map(parts).collect();
    assert_eq!(replies.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [1, 2]);
    for (_, reply) in &replies {
        let [record] = reply.answers.as_slice() else { panic!("{reply}") };
        assert_eq!((&record.data, record.ttl), (&RData::A(Ipv4Addr::new(192, 0, 2, 1).into()), 60));
        assert!(record.name.eq_case(&reply.queries[0].name));
    }
    assert_eq!(test.policy.pinned.lock().unwrap().len(), 1);
    test.now += Duration::from_secs(10);
    assert_eq!(test.reply("api.example.com.", RecordType::A), (ResponseCode::NoError, 1));
    let pinned = test.policy.pinned.lock().unwrap();
    assert_eq!(pinned.len(), 2, "a remembered answer is pinned anew");
    assert_eq!(pinned[1].2, Duration::from_secs(290), "for what is left of it");
    let counters = test.tally.snapshot();
    assert_eq!((counters.queries, counters.forwarded, counters.cached), (3, 1, 1));
}

#[test]
fn an_answer_of_which_nothing_is_admitted_is_refused() {
    let mut test = Test::new();
    test.ask("api.example.com.", RecordType::A, 1);
    let outcome = found(&[[169, 254, 169, 254]], 60);
    let (_, reply) = parts(test.core.answered(&question("api.example.com"), &outcome, test.now).remove(0));
    assert_eq!((reply.metadata.response_code, reply.answers.len()), REFUSED);
    assert_eq!(test.whys(), [("api.example.com".into(), Why::Answer, Some(1))]);
}

#[test]
fn bad_news_is_told_as_such() {
    for (outcome, code) in [
        (Outcome::NoName, ResponseCode::NXDomain),
        (Outcome::Nothing, ResponseCode::NoError),
        (Outcome::Failed, ResponseCode::ServFail),
    ] {
        let mut test = Test::new();
        test.ask("api.example.com.", RecordType::A, 1);
        let (_, reply) =
            parts(test.core.answered(&question("api.example.com"), &outcome, test.now).remove(0));
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (code, 0));
        let again = test.ask("api.example.com.", RecordType::A, 1);
        assert_eq!(matches!(again.as_slice(), [Action::Ask(_)]), outcome == Outcome::Failed);
        assert!(test.policy.pinned.lock().unwrap().is_empty());
    }
}

#[test]
fn too_much_is_refused() {
    let mut test = Test::new();
    for _ in 0..NAME_BURST {
        assert!(matches!(test.ask("api.example.com.", RecordType::A, 1).as_slice(), [Action::Ask(_)]));
        test.core.answered(&question("api.example.com"), &Outcome::Failed, test.now);
    }
    assert_eq!(test.reply("api.example.com.", RecordType::A), REFUSED);
    for index in 0..WILDCARD_NAMES {
        let asked = test.ask(&format!("n{index}.wild.example.com."), RecordType::A, 1);
        assert!(matches!(asked.as_slice(), [Action::Ask(_)]));
    }
    assert_eq!(test.reply("more.wild.example.com.", RecordType::A), REFUSED);
    let whys = [
        ("api.example.com".into(), Why::NameRate, Some(1)),
        ("more.wild.example.com".into(), Why::WildcardNames, Some(2)),
    ];
    assert_eq!(test.whys(), whys);
}

#[test]
fn a_search_goes_on_after_a_name_that_no_rule_knows() {
    let mut test = Test::new();
    let reply = test.reply("api.example.com.search.example.com.", RecordType::A);
    assert_eq!(reply, (ResponseCode::NXDomain, 0));
    assert_eq!(test.whys(), [("api.example.com.search.example.com".into(), Why::Searched, None)]);
}

#[test]
fn the_oldest_goes_when_too_many_wait() {
    let mut test = Test::new();
    let most = u32::try_from(MAX_OUTSTANDING).unwrap();
    for index in 0..most {
        assert!(test.ask("api.example.com.", RecordType::A, index).len() <= 1);
    }
    let (to, reply) = parts(test.ask("api.example.com.", RecordType::A, most).remove(0));
    assert_eq!((to, reply.metadata.response_code), (0, ResponseCode::Refused));
    assert_eq!(test.tally.snapshot().refused(Why::Outstanding), 1);
    assert_eq!(
        test.core.flights[&question("api.example.com")].len(),
        MAX_OUTSTANDING,
        "nothing is left of it"
    );
    let told = test.core.answered(&question("api.example.com"), &found(&[[192, 0, 2, 1]], 60), test.now);
    let told: Vec<u32> = told.into_iter().map(|action| parts(action).0).collect();
    assert_eq!(told, (1..=most).collect::<Vec<_>>());
    assert!(test.core.waiting.is_empty() && test.core.flights.is_empty());
}

#[test]
fn refusals_are_counted_always_and_told_once_a_second() {
    let mut test = Test::new();
    for _ in 0..5 {
        test.reply("Example.com.", RecordType::A);
    }
    assert_eq!(test.whys(), [("example.com".into(), Why::Unknown, None)]);
    for index in 0..2 * MAX_REFUSALS {
        test.reply(&format!("n{index}.com."), RecordType::A);
    }
    assert_eq!(test.whys().len(), MAX_REFUSALS);
    let counters = test.tally.snapshot();
    assert_eq!(counters.refused(Why::Unknown), 5 + 2 * MAX_REFUSALS as u64);
    assert_eq!(counters.untold, MAX_REFUSALS as u64 + 1);
    assert_eq!(*test.policy.untold.lock().unwrap(), counters.untold, "none is lost without being counted");
    test.now += Duration::from_secs(1);
    test.reply("example.com.", RecordType::A);
    assert_eq!(test.whys().len(), MAX_REFUSALS + 1);
}

proptest! {
    /// Whatever the agent sends, nothing is asked but what the policy allows, in our own words.
    #[test]
    fn garbage_asks_nothing(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        flips in prop::collection::vec((0usize..40, any::<u8>()), 0..6),
        whole in any::<bool>(),
    ) {
        let mut test = Test::new();
        let mut bytes = if whole { noise } else { query("api.example.com.", RecordType::A).to_vec().unwrap() };
        for (index, byte) in flips {
            if let Some(place) = bytes.get_mut(index) {
                *place = byte;
            }
        }
        let actions = test.send(&bytes, 1);
        prop_assert!(actions.len() <= 1);
        for action in actions {
            if let Action::Ask(question) = action {
                let allowed = matches!(test.policy.query(&question.name), Verdict::Allowed { .. });
                prop_assert!(allowed, "{question:?}");
            }
        }
    }
}
