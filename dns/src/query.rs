//! An agent's query, and our reply to it. The reply has nothing in it that we did not put there.

use std::{net::SocketAddr, time::Duration};

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, OpCode, Query as Asked, ResponseCode},
    rr::{Name, RData, Record as Answer},
    serialize::binary::{BinDecodable as _, BinDecoder},
};

use crate::{
    Transport,
    limits::{MAX_QUERY, MAX_UDP_REPLY},
    question::Kind,
    record::{Data, Record},
};

/// What a reply without EDNS may have by UDP, in octets (RFC 1035 §4.2.1).
const PLAIN_UDP: usize = 512;
const HEADER: usize = 12;

/// Who asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) transport: Transport,
}

/// A well-formed query: one question.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) client: Client,
    /// As the agent spelled it; some clients compare.
    pub(crate) asked: Asked,
    id: u16,
    recursion_desired: bool,
    checking_disabled: bool,
    /// What the agent takes by UDP, in octets, if it speaks EDNS.
    edns: Option<usize>,
}

/// A message that is not such a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Not a query at all: nobody is answered.
    Ignored,
    /// To be told so.
    Malformed(Vec<u8>),
    /// Another operation than QUERY: NOTIMP.
    Opcode(Vec<u8>),
}

impl Query {
    /// Reads one message.
    pub(crate) fn parse(message: &[u8], client: Client) -> Result<Self, Unfit> {
        let Some(header) = message.first_chunk::<HEADER>() else { return Err(Unfit::Ignored) };
        if header[2] & 0x80 != 0 {
            return Err(Unfit::Ignored);
        }
        let id = u16::from_be_bytes([header[0], header[1]]);
        let op_code = OpCode::from_u8(header[2] >> 3 & 0xf);
        if op_code != OpCode::Query {
            return Err(Unfit::Opcode(error(id, op_code, ResponseCode::NotImp)));
        }
        let malformed = || Unfit::Malformed(error(id, op_code, ResponseCode::FormErr));
        // Before the rest is read: the counts say how much that is.
        if u16::from_be_bytes([header[4], header[5]]) != 1 || message.len() > MAX_QUERY {
            return Err(malformed());
        }
        let (asked, edns) = read(message).ok_or_else(malformed)?;
        let query = Self {
            client,
            asked,
            id,
            recursion_desired: header[2] & 1 != 0,
            checking_disabled: header[3] & 0x10 != 0,
            edns: edns.map(|(payload, _)| usize::from(payload)),
        };
        match edns {
            // RFC 6891 §6.1.3
            Some((_, version)) if version != 0 => {
                Err(Unfit::Malformed(query.reply(ResponseCode::BADVERS, &[], Duration::ZERO)))
            }
            _ => Ok(query),
        }
    }

    /// A question from within this process, which has no message. None when no name of DNS can be spelled like that.
    pub(crate) fn inside(name: &str, kind: Kind, client: Client) -> Option<Self> {
        let name = Name::from_labels(name.split('.').map(str::as_bytes)).ok()?;
        Some(Self {
            client,
            asked: Asked::query(name, kind.record_type()),
            id: 0,
            recursion_desired: true,
            checking_disabled: false,
            edns: None,
        })
    }

    /// The reply: the question and `data` under its name. Truncated when it does not fit.
    pub(crate) fn reply(&self, code: ResponseCode, data: &[RData], ttl: Duration) -> Vec<u8> {
        let reply = encode(&self.build(code, data, ttl));
        if self.client.transport == Transport::Udp && reply.len() > self.udp_limit() {
            let mut empty = self.build(code, &[], ttl);
            empty.metadata.truncation = true;
            return encode(&empty);
        }
        reply
    }

    fn udp_limit(&self) -> usize {
        self.edns.unwrap_or(PLAIN_UDP).clamp(PLAIN_UDP, MAX_UDP_REPLY)
    }

    fn build(&self, code: ResponseCode, data: &[RData], ttl: Duration) -> Message {
        let mut reply = Message::new(self.id, MessageType::Response, OpCode::Query);
        reply.metadata.recursion_desired = self.recursion_desired;
        reply.metadata.checking_disabled = self.checking_disabled;
        reply.metadata.recursion_available = true;
        reply.metadata.response_code = code;
        reply.add_query(self.asked.clone());
        // RFC 2181 §8: 31 bits.
        let seconds = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).min(i32::MAX.unsigned_abs());
        for data in data {
            reply.add_answer(Answer::from_rdata(self.asked.name.clone(), seconds, data.clone()));
        }
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(u16::try_from(MAX_QUERY).unwrap_or(u16::MAX));
            reply.set_edns(edns);
        }
        reply
    }
}

/// The question, and payload and version of EDNS. Other records mean nothing to us.
fn read(message: &[u8]) -> Option<(Asked, Option<(u16, u8)>)> {
    let mut decoder = BinDecoder::new(message);
    let counts = Header::read(&mut decoder).ok()?.counts;
    let asked = Asked::read(&mut decoder).ok()?;
    Record::read_all(&mut decoder, counts.answers)?;
    Record::read_all(&mut decoder, counts.authorities)?;
    let mut edns = None;
    for record in Record::read_all(&mut decoder, counts.additionals)? {
        if let Data::Opt { payload, version } = record.data {
            // RFC 6891 §6.1.1: at most one, of the root.
            if edns.replace((payload, version)).is_some() || !record.name.is_root() {
                return None;
            }
        }
    }
    Some((asked, edns))
}

fn error(id: u16, op_code: OpCode, code: ResponseCode) -> Vec<u8> {
    encode(&Message::error_msg(id, op_code, code))
}

/// Nothing is sent where it fails, which it cannot: a name that was read can be written.
fn encode(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_default()
}

#[cfg(test)]
mod tests;
