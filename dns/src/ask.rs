//! Our question on its way to one nameserver, and what counts as the answer to it.
//!
//! Nothing of the agent's is in it but the name: the id, the spelling and the source port are random, so an answer from
//! somebody who did not see the question is recognised (RFC 5452; draft-vixie-dnsext-dns0x20). The port is the socket's part.

use hickory_proto::{
    ProtoError,
    op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name},
    serialize::binary::{BinDecodable as _, BinDecoder},
};

use crate::{
    answer::{Outcome, follow},
    limits::UPSTREAM_PAYLOAD,
    question::{Kind, Question},
    record::Record,
};

/// Randomness of one question: two octets of id, and one bit for each letter.
pub(crate) type Random = [u8; 34];

/// A question to one nameserver.
#[derive(Debug)]
pub(crate) struct Ask {
    id: u16,
    name: Name,
    kind: Kind,
}

/// What a nameserver said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Outcome(Outcome),
    /// There is more by TCP.
    Truncated,
    /// It cannot, or does not want to.
    Unable,
}

/// Not the answer to this question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// To another one, or no answer at all.
    Question,
    /// To this one, spelled otherwise: by a nameserver that does not keep the spelling, or by somebody who guessed all else.
    Spelling,
}

impl Ask {
    /// A question whose spelling is random too: for UDP.
    pub(crate) fn spelled(question: &Question, random: &Random) -> Result<Self, ProtoError> {
        let bit = |index: usize| random[2 + index / 8] >> (index % 8) & 1 == 1;
        let spell = |(index, letter): (usize, char)| {
            if bit(index) { letter.to_ascii_uppercase() } else { letter }
        };
        Self::new(question, question.name.chars().enumerate().map(spell).collect(), random)
    }

    /// A question in lower case: for TCP, where nobody can guess, and for nameservers that do not keep the spelling.
    pub(crate) fn plain(question: &Question, random: &Random) -> Result<Self, ProtoError> {
        Self::new(question, question.name.clone(), random)
    }

    fn new(question: &Question, name: String, random: &Random) -> Result<Self, ProtoError> {
        let name = Name::from_labels(name.split('.').map(str::as_bytes))?;
        Ok(Self { id: u16::from_be_bytes([random[0], random[1]]), name, kind: question.kind })
    }

    /// The message to send.
    pub(crate) fn message(&self) -> Result<Vec<u8>, ProtoError> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.query());
        let mut edns = Edns::new();
        edns.set_max_payload(UPSTREAM_PAYLOAD);
        message.set_edns(edns);
        message.to_vec()
    }

    fn query(&self) -> Query {
        Query::query(self.name.clone(), self.kind.record_type())
    }

    /// Reads an answer. Its authority and additional sections are not even looked at.
    pub(crate) fn check(&self, message: &[u8]) -> Result<Reply, Wrong> {
        let mut decoder = BinDecoder::new(message);
        let header = Header::read(&mut decoder).map_err(|_| Wrong::Question)?;
        let metadata = header.metadata;
        if metadata.id != self.id
            || metadata.message_type != MessageType::Response
            || metadata.op_code != OpCode::Query
            || header.counts.queries != 1
        {
            return Err(Wrong::Question);
        }
        let asked = Query::read(&mut decoder).map_err(|_| Wrong::Question)?;
        let same = asked.name == self.name
            && asked.query_type == self.kind.record_type()
            && asked.query_class == DNSClass::IN;
        if !same {
            return Err(Wrong::Question);
        }
        if !asked.name.eq_case(&self.name) {
            return Err(Wrong::Spelling);
        }
        if metadata.truncation {
            return Ok(Reply::Truncated);
        }
        Ok(match metadata.response_code {
            ResponseCode::NXDomain => Reply::Outcome(Outcome::NoName),
            ResponseCode::NoError => match Record::read_all(&mut decoder, header.counts.answers) {
                Some(records) => Reply::Outcome(follow(&self.name, self.kind, &records)),
                None => Reply::Unable,
            },
            _ => Reply::Unable,
        })
    }
}

#[cfg(test)]
mod tests;
