use std::net::Ipv4Addr;

use hickory_proto::rr::{Name, RecordType};
use proptest::prelude::*;

use super::*;

fn client(transport: Transport) -> Client {
    Client { address: (Ipv4Addr::LOCALHOST, 4321).into(), transport }
}

fn message(name: &str, edns: Option<u16>) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Asked::query(Name::from_ascii(name).unwrap(), RecordType::A));
    if let Some(size) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        message.set_edns(edns);
    }
    message
}

fn parse(message: &Message, transport: Transport) -> Result<Query, Unfit> {
    Query::parse(&message.to_vec().unwrap(), client(transport))
}

fn addresses(count: u8) -> Vec<RData> {
    (0..count).map(|i| RData::A(Ipv4Addr::new(192, 0, 2, i).into())).collect()
}

#[test]
fn a_reply_has_the_question_as_it_was_spelled_and_our_records_only() {
    let mut asked = message("wWw.Example.com.", None);
    asked.add_additional(Answer::from_rdata(Name::root(), 1, addresses(1).remove(0)));
    let query = parse(&asked, Transport::Udp).unwrap();
    let bytes = query.reply(ResponseCode::NoError, &addresses(2), Duration::from_secs(60));
    let reply = Message::from_vec(&bytes).unwrap();
    assert_eq!((reply.metadata.id, reply.metadata.message_type), (7, MessageType::Response));
    assert!(reply.queries[0].name.eq_case(&Name::from_ascii("wWw.Example.com.").unwrap()));
    assert_eq!(reply.answers.len(), 2);
    assert!(reply.answers.iter().all(|record| record.name == reply.queries[0].name && record.ttl == 60));
    assert!(reply.authorities.is_empty() && reply.additionals.is_empty() && reply.edns.is_none());
}

#[test]
fn what_does_not_fit_is_truncated_by_udp_and_whole_by_tcp() {
    for (edns, fits, too_many) in
        [(None, 28, 40), (Some(100), 28, 40), (Some(1232), 70, 90), (Some(65535), 100, 255)]
    {
        let query = parse(&message("www.example.com.", edns), Transport::Udp).unwrap();
        let reply = |query: &Query, count| {
            let bytes = query.reply(ResponseCode::NoError, &addresses(count), Duration::ZERO);
            let reply = Message::from_vec(&bytes).unwrap();
            assert_eq!(reply.edns.is_some(), edns.is_some(), "an OPT record only for who sent one");
            (reply.answers.len(), reply.metadata.truncation, bytes.len())
        };
        assert_eq!(reply(&query, fits).0, usize::from(fits), "{edns:?}");
        let (answers, truncated, length) = reply(&query, too_many);
        assert_eq!((answers, truncated), (0, true), "{edns:?}");
        assert!(length <= query.udp_limit());
        let query = parse(&message("www.example.com.", edns), Transport::Tcp).unwrap();
        assert_eq!(reply(&query, too_many).0, usize::from(too_many));
    }
    assert_eq!(parse(&message("a.", Some(65535)), Transport::Udp).unwrap().udp_limit(), MAX_UDP_REPLY);
}

#[test]
fn other_versions_of_edns_are_told_ours() {
    let mut asked = message("www.example.com.", Some(1232));
    if let Some(edns) = asked.edns.as_mut() {
        edns.set_version(1);
    }
    let Err(Unfit::Malformed(reply)) = parse(&asked, Transport::Udp) else { panic!() };
    let reply = Message::from_vec(&reply).unwrap();
    // 16 is BADVERS and, in TSIG, BADSIG.
    assert_eq!(u16::from(reply.metadata.response_code), 16);
    assert_eq!(reply.edns.unwrap().version(), 0);
}

#[test]
fn odd_options_and_records_are_passed_over_and_two_of_edns_are_one_too_many() {
    let mut asked = message("www.example.com.", Some(1232)).to_vec().unwrap();
    // One option that claims to be longer than it is: the data of the OPT record is not ours to read.
    let end = asked.len();
    asked[end - 1] = 4;
    asked.extend([0, 10, 0xff, 0xff]);
    assert!(Query::parse(&asked, client(Transport::Udp)).is_ok());
    let opt = asked[end - 11..].to_vec();
    asked.extend(&opt);
    asked[11] = 2;
    assert!(matches!(Query::parse(&asked, client(Transport::Udp)), Err(Unfit::Malformed(_))));
    asked[11] = 3;
    assert!(matches!(Query::parse(&asked, client(Transport::Udp)), Err(Unfit::Malformed(_))));
}

#[test]
fn what_is_no_query_is_told_so_or_ignored() {
    let query = message("www.example.com.", None);
    let two = {
        let mut two = query.clone();
        two.add_query(two.queries[0].clone());
        two
    };
    let none = Message::new(7, MessageType::Query, OpCode::Query);
    for bad in [&two, &none] {
        let Err(Unfit::Malformed(reply)) = parse(bad, Transport::Udp) else { panic!("{bad:?}") };
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!((reply.metadata.id, reply.metadata.response_code), (7, ResponseCode::FormErr));
    }
    for op_code in [OpCode::Status, OpCode::Notify, OpCode::Update] {
        let mut other = query.clone();
        other.metadata.op_code = op_code;
        let Err(Unfit::Opcode(reply)) = parse(&other, Transport::Udp) else { panic!("{op_code:?}") };
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!((reply.metadata.op_code, reply.metadata.response_code), (op_code, ResponseCode::NotImp));
    }
    let mut response = query.clone();
    response.metadata.message_type = MessageType::Response;
    assert_eq!(parse(&response, Transport::Udp).unwrap_err(), Unfit::Ignored);
    let whole = query.to_vec().unwrap();
    assert_eq!(Query::parse(&whole[..11], client(Transport::Udp)).unwrap_err(), Unfit::Ignored);
    let long = [whole.as_slice(), &[0; MAX_QUERY]].concat();
    assert!(matches!(Query::parse(&long, client(Transport::Tcp)), Err(Unfit::Malformed(_))));
}

proptest! {
    /// Any bytes, and queries with some bytes changed: never a panic, never a reply that is not one.
    #[test]
    fn garbage_is_harmless(
        noise in prop::collection::vec(any::<u8>(), 0..600),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        whole in any::<bool>(),
    ) {
        let mut bytes = if whole { noise } else { message("www.example.com.", Some(1232)).to_vec().unwrap() };
        for (index, byte) in flips {
            if !bytes.is_empty() {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
        }
        let reply = match Query::parse(&bytes, client(Transport::Udp)) {
            Err(Unfit::Ignored) => return Ok(()),
            Err(Unfit::Malformed(reply) | Unfit::Opcode(reply)) => reply,
            Ok(query) => query.reply(ResponseCode::NoError, &addresses(255), Duration::ZERO),
        };
        prop_assert!(reply.len() <= MAX_UDP_REPLY);
        prop_assert_eq!(&reply[..2], &bytes[..2]);
        prop_assert_eq!(reply[2] & 0x80, 0x80);
        prop_assert!(Message::from_vec(&reply).is_ok());
    }
}
