//! What hostile messages must not do to the resolver. For the fuzzer alone.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::RData,
};

use crate::{
    Admitted, Gate, Names, Refusal, Transport, Verdict,
    answer::Outcome,
    ask::{Ask, Reply},
    core::{Action, Core, Told},
    counters::Tally,
    limits::{MAX_ADDRESSES, MAX_ANSWER, MAX_UDP_REPLY},
    query::{Client, Query},
    question::{Kind, Question},
};

const AGENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4321);
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const DENIED: &str = "denied.example.com";

/// Permits every name below `example.com` but one, and any address that is not of this host.
struct Example;

impl Gate for Example {
    fn query(&self, name: &str) -> Verdict {
        let clean = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        assert!(
            name.bytes().all(clean) && !name.ends_with('.') && name.contains('.'),
            "{name:?} is asked for"
        );
        match name {
            DENIED => Verdict::Denied { rule: 1 },
            _ if name.ends_with(".example.com") => Verdict::Allowed { rule: 2, wildcard: true },
            _ => Verdict::Unknown,
        }
    }

    fn answer(&self, _: &str, answers: &[IpAddr], ttl: Duration) -> Admitted {
        let told = answers.iter().filter(|address| !address.is_loopback());
        Admitted { addresses: told.copied().collect(), ttl }
    }

    fn refused(&self, refusal: &Refusal) {
        let told = [&refusal.name, &refusal.qtype];
        assert!(told.iter().all(|text| text.bytes().all(|c| c.is_ascii_graphic())), "{refusal:?}");
    }
}

fn resolver(now: Instant) -> Core<()> {
    let names = Names::default();
    names.replace([("tool".into(), vec![IpAddr::from([10, 42, 0, 2])])], Some("acme"), vec![]);
    Core::new(Arc::new(Example), names, Arc::new(Tally::default()), now)
}

/// A message of an agent, by UDP and by TCP. Says whether a nameserver would be asked.
pub fn query(bytes: &[u8]) -> bool {
    let [udp, tcp] = [Transport::Udp, Transport::Tcp].map(|transport| query_by(transport, bytes));
    assert_eq!(udp, tcp, "one transport is permitted what the other is not");
    udp
}

fn query_by(transport: Transport, bytes: &[u8]) -> bool {
    let now = Instant::now();
    let mut core = resolver(now);
    let mut asked = false;
    for action in core.receive(bytes, Client { address: AGENT, transport }, (), now) {
        match action {
            Action::Tell { query, told, .. } => drop(reply(transport, bytes, &encoded(&query, &told))),
            Action::Reject { message, .. } => drop(reply(transport, bytes, &message)),
            Action::Ask(question) => {
                asked = true;
                assert!(question.name.ends_with(".example.com") && question.name != DENIED, "{question:?}");
                // What leaves is header, question and OPT record, and of the agent's only the name.
                for random in [[0; 34], [0xff; 34]] {
                    let leaves = Ask::spelled(&question, &random).and_then(|ask| ask.message());
                    let leaves = leaves.expect("a name that was read can be asked for");
                    assert_eq!(leaves.len(), 12 + question.name.len() + 2 + 4 + 11, "{question:?}");
                }
                let found = Outcome::Addresses { addresses: vec![PUBLIC], ttl: Duration::from_secs(60) };
                let replies = core.answered(&question, &found, now);
                assert_eq!(replies.len(), 1, "who asked is answered once");
                for action in replies {
                    let Action::Tell { query, told, .. } = action else { panic!("asked again") };
                    let told = reply(transport, bytes, &encoded(&query, &told));
                    let fits = if question.kind == Kind::A { vec![PUBLIC] } else { vec![] };
                    assert_eq!(told, fits);
                }
            }
        }
    }
    asked
}

fn encoded(query: &Query, told: &Told) -> Vec<u8> {
    query.reply(told.code, &told.data, told.ttl)
}

/// Checks a reply to `query`; returns the addresses that it tells.
fn reply(transport: Transport, query: &[u8], reply: &[u8]) -> Vec<IpAddr> {
    assert!(transport == Transport::Tcp || reply.len() <= MAX_UDP_REPLY, "{} octets", reply.len());
    let read = Message::from_vec(reply).expect("a reply of ours can be read");
    assert_eq!(Some(read.metadata.id.to_be_bytes().as_slice()), query.get(..2));
    assert_eq!(read.metadata.message_type, MessageType::Response);
    assert!(read.queries.len() <= 1 && read.authorities.is_empty() && read.additionals.is_empty());
    assert!(read.answers.is_empty() || read.metadata.response_code == ResponseCode::NoError);
    addresses(&read)
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    message.answers.iter().filter_map(|record| address(&record.data)).collect()
}

/// A nameserver's message, to questions for either kind of address of `api.example.com` with the id 0. Says whether it has an
/// address for one.
pub fn answer(bytes: &[u8]) -> bool {
    let bytes = bytes.get(..MAX_ANSWER).unwrap_or(bytes);
    let [a, aaaa] = [Kind::A, Kind::Aaaa].map(|kind| answer_to(kind, bytes));
    assert!(!(a && aaaa), "one answer to two questions");
    a || aaaa
}

fn answer_to(kind: Kind, bytes: &[u8]) -> bool {
    let question = Question { name: "api.example.com".into(), kind };
    let ask = Ask::spelled(&question, &[0; 34]).expect("a name");
    let Ok(Reply::Outcome(outcome)) = ask.check(bytes) else { return false };
    let Outcome::Addresses { addresses: found, ttl } = outcome else { return false };
    assert!((1..=MAX_ADDRESSES).contains(&found.len()), "{found:?}");
    assert!(found.iter().all(|address| kind.fits(*address)), "{found:?}");
    assert!(ttl.as_secs() <= u64::from(i32::MAX.unsigned_abs()), "{ttl:?}");
    // A reader of everything may refuse what we do not look at, but sees no other addresses.
    if let Ok(whole) = Message::from_vec(bytes) {
        let there = addresses(&whole);
        assert!(found.iter().all(|address| there.contains(address)), "{found:?} of {there:?}");
    }

    let now = Instant::now();
    let mut core = resolver(now);
    let query = Ask::plain(&question, &[0; 34]).and_then(|ask| ask.message()).expect("a name");
    let client = Client { address: AGENT, transport: Transport::Tcp };
    core.receive(&query, client, (), now);
    let outcome = Outcome::Addresses { addresses: found.clone(), ttl };
    let Some(Action::Tell { query: asked, told, .. }) = core.answered(&question, &outcome, now).pop() else {
        panic!("who asked is not answered");
    };
    let mut told = reply(Transport::Tcp, &query, &encoded(&asked, &told));
    let mut may = found;
    may.retain(|address| !address.is_loopback());
    told.sort_unstable();
    may.sort_unstable();
    assert_eq!(told, may);
    true
}
