use std::{net::Ipv4Addr, time::Duration};

use hickory_proto::rr::{RData, Record, RecordType, rdata::CNAME};
use proptest::prelude::*;

use super::*;

const RANDOM: Random = [0xa5; 34];

fn question() -> Question {
    Question { name: "www.example.com".into(), kind: Kind::A }
}

fn ask() -> Ask {
    Ask::spelled(&question(), &RANDOM).unwrap()
}

/// A good answer to `ask`.
fn answer(ask: &Ask) -> Message {
    let mut answer = Message::response(ask.id, OpCode::Query);
    answer.add_query(ask.query());
    answer.add_answer(Record::from_rdata(ask.name.clone(), 60, RData::A(Ipv4Addr::new(192, 0, 2, 1).into())));
    answer
}

fn check(ask: &Ask, answer: &Message) -> Result<Reply, Wrong> {
    ask.check(&answer.to_vec().unwrap())
}

fn good() -> Result<Reply, Wrong> {
    let addresses = vec![Ipv4Addr::new(192, 0, 2, 1).into()];
    Ok(Reply::Outcome(Outcome::Addresses { addresses, ttl: Duration::from_secs(60) }))
}

#[test]
fn a_question_is_all_ours() {
    let sent = Message::from_vec(&ask().message().unwrap()).unwrap();
    let metadata = sent.metadata;
    assert_eq!((metadata.id, metadata.op_code), (0xa5a5, OpCode::Query));
    assert!(metadata.recursion_desired && !metadata.checking_disabled && !metadata.authentic_data);
    assert_eq!(sent.queries[0].name.to_ascii(), "WwW.eXaMPlE.cOm.");
    assert_eq!(sent.queries[0].query_type, RecordType::A);
    let edns = sent.edns.unwrap();
    assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (UPSTREAM_PAYLOAD, false));
    assert!(edns.options().as_ref().is_empty() && sent.additionals.is_empty());
    let plain = Ask::plain(&question(), &RANDOM).unwrap();
    assert_eq!(plain.query().name.to_ascii(), "www.example.com.");
}

#[test]
fn every_bit_of_randomness_counts() {
    let spelled = |random: &Random| Ask::spelled(&question(), random).unwrap().name.to_ascii();
    let plain = spelled(&[0; 34]);
    for (index, letter) in question().name.char_indices().filter(|(_, letter)| *letter != '.') {
        let mut random = [0; 34];
        random[2 + index / 8] = 1 << (index % 8);
        let mut expected = plain.clone();
        expected.replace_range(index..=index, &letter.to_ascii_uppercase().to_string());
        assert_eq!(spelled(&random), expected);
    }
    let longest =
        Question { name: format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61)), kind: Kind::A };
    assert!(Ask::spelled(&longest, &[0xff; 34]).is_ok());
}

#[test]
fn an_answer_to_another_question_is_none() {
    let ask = ask();
    assert_eq!(check(&ask, &answer(&ask)), good());
    let wrong = |change: &dyn Fn(&mut Message)| {
        let mut answer = answer(&ask);
        change(&mut answer);
        assert_eq!(check(&ask, &answer), Err(Wrong::Question), "{answer:?}");
    };
    wrong(&|answer| answer.metadata.id ^= 1);
    wrong(&|answer| answer.metadata.message_type = MessageType::Query);
    wrong(&|answer| answer.metadata.op_code = OpCode::Status);
    wrong(&|answer| answer.queries.clear());
    wrong(&|answer| answer.queries.push(answer.queries[0].clone()));
    wrong(&|answer| answer.queries[0].name = Name::from_ascii("www.example.org.").unwrap());
    wrong(&|answer| answer.queries[0].query_type = RecordType::AAAA);
    wrong(&|answer| answer.queries[0].query_class = DNSClass::CH);
    let mut lower = answer(&ask);
    lower.queries[0].name = lower.queries[0].name.to_lowercase();
    assert_eq!(check(&ask, &lower), Err(Wrong::Spelling));
}

#[test]
fn what_a_nameserver_says_is_told_apart() {
    let ask = ask();
    let say = |change: &dyn Fn(&mut Message)| {
        let mut answer = answer(&ask);
        change(&mut answer);
        check(&ask, &answer).unwrap()
    };
    assert_eq!(say(&|answer| answer.metadata.truncation = true), Reply::Truncated);
    assert_eq!(say(&|answer| answer.answers.clear()), Reply::Outcome(Outcome::Nothing));
    let code = |code| say(&|answer: &mut Message| answer.metadata.response_code = code);
    assert_eq!(code(ResponseCode::NXDomain), Reply::Outcome(Outcome::NoName));
    for unable in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::FormErr, ResponseCode::NotImp]
    {
        assert_eq!(code(unable), Reply::Unable, "{unable}");
    }
}

#[test]
fn other_sections_are_not_read() {
    let ask = ask();
    let mut bytes = answer(&ask).to_vec().unwrap();
    // The counts of the authority and the additional section, with nothing behind them.
    bytes[8..12].fill(0xff);
    assert_eq!(ask.check(&bytes), good());
    bytes[7] = 2;
    assert_eq!(ask.check(&bytes), Ok(Reply::Unable), "an answer that ends early");
}

proptest! {
    /// Whatever comes, only what the records say under our id and spelling is an outcome, and no more than is allowed.
    #[test]
    fn garbage_is_harmless(
        noise in prop::collection::vec(any::<u8>(), 0..600),
        flips in prop::collection::vec((12usize..400, any::<u8>()), 0..8),
        whole in any::<bool>(),
    ) {
        let ask = ask();
        let mut base = answer(&ask);
        base.answers.insert(0, Record::from_rdata(ask.name.clone(), 5, RData::CNAME(CNAME(ask.name.clone()))));
        let mut bytes = base.to_vec().unwrap();
        if whole {
            bytes.truncate(2);
            bytes.extend(noise);
        }
        for (index, byte) in flips {
            if let Some(place) = bytes.get_mut(index) {
                *place = byte;
            }
        }
        if let Ok(Reply::Outcome(Outcome::Addresses { addresses, ttl })) = ask.check(&bytes) {
            prop_assert!(!addresses.is_empty() && addresses.len() <= crate::limits::MAX_ADDRESSES);
            prop_assert!(addresses.iter().all(|address| address.is_ipv4()));
            prop_assert!(ttl <= Duration::from_secs(i32::MAX as u64));
        }
        let mut other = bytes.clone();
        other[0] ^= 0xff;
        prop_assert_eq!(ask.check(&other), Err(Wrong::Question));
    }
}
