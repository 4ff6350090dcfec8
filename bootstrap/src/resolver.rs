//! The sandbox's resolver: answers `<peer>.lattice` from the network map and refuses every other name.
//!
//! Name resolution is egress: a resolver that forwards would carry data out in the names. It listens on 127.0.0.1 of
//! the agent's namespace, on a socket held by this process outside it.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd as _,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use hickory_proto::{
    op::{Message, MessageType, Metadata, OpCode, ResponseCode},
    rr::{DNSClass, RData, Record, RecordType},
};
use lattice_overlay::Netns;
use lattice_wire::NetMap;
use nix::poll::PollTimeout;

use crate::bell::Bell;

/// Names and their addresses.
pub(crate) type Names = Arc<Mutex<HashMap<String, Ipv4Addr>>>;

const TTL_SECS: u32 = 5;

/// The running resolver; dropping it ends it.
pub(crate) struct Resolver {
    stop: Bell,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    /// Starts it inside `netns`, whose loopback must be up.
    pub(crate) fn start(netns: &Netns, names: Names) -> io::Result<Self> {
        let socket = netns.run(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)))??;
        socket.set_nonblocking(true)?;
        let stop = Bell::new()?;
        let stopped = stop.clone();
        let serve = move || serve(&socket, &names, &stopped);
        let thread = thread::Builder::new().name("resolver".into()).spawn(serve)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Replaces the names by those of `map`.
pub(crate) fn update(names: &Names, map: &NetMap) {
    let fresh = map
        .peers
        .iter()
        .filter_map(|peer| match peer.allowed_ips.first()?.addr() {
            std::net::IpAddr::V4(address) => Some((format!("{}.lattice.", peer.name), address)),
            std::net::IpAddr::V6(_) => None,
        })
        .collect();
    *names.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
}

fn serve(socket: &UdpSocket, names: &Names, stop: &Bell) {
    let mut buffer = [0; 4096];
    // A failure of poll itself leaves nothing to wait for.
    while matches!(stop.wait(socket.as_fd(), PollTimeout::NONE), Ok(false)) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(answer) = answer(&buffer[..length], names) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// The reply to one datagram; none to what is not a query.
fn answer(query: &[u8], names: &Names) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&query.metadata);
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = ResponseCode::Refused;
    if let ([question], OpCode::Query) = (query.queries.as_slice(), query.metadata.op_code) {
        reply.add_query(question.clone());
        let name = question.name.to_ascii().to_ascii_lowercase();
        let name = if name.ends_with('.') { name } else { format!("{name}.") };
        let known = names.lock().unwrap_or_else(PoisonError::into_inner).get(&name).copied();
        if question.query_class == DNSClass::IN && name.ends_with(".lattice.") {
            reply.metadata.response_code =
                if known.is_some() { ResponseCode::NoError } else { ResponseCode::NXDomain };
            if let (Some(address), RecordType::A) = (known, question.query_type) {
                reply.add_answer(Record::from_rdata(
                    question.name.clone(),
                    TTL_SECS,
                    RData::A(address.into()),
                ));
            }
        }
    }
    reply.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use hickory_proto::{op::Query, rr::Name};

    use super::*;

    fn ask(name: &str, kind: RecordType) -> Message {
        let names: Names =
            Arc::new(Mutex::new([("tool.lattice.".to_owned(), Ipv4Addr::new(10, 42, 0, 2))].into()));
        let mut query = Message::query();
        query.add_query(Query::query(name.parse::<Name>().unwrap(), kind));
        Message::from_vec(&answer(&query.to_vec().unwrap(), &names).unwrap()).unwrap()
    }

    #[test]
    fn peers_are_found_and_nothing_else_is() {
        let found = ask("Tool.lattice.", RecordType::A);
        assert_eq!(found.metadata.response_code, ResponseCode::NoError);
        assert_eq!(found.answers[0].data, RData::A(Ipv4Addr::new(10, 42, 0, 2).into()));
        assert_eq!(ask("tool.lattice.", RecordType::AAAA).answers.len(), 0);
        assert_eq!(ask("none.lattice.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
        for outside in ["example.com.", "tool.lattice.example.com.", "lattice."] {
            assert_eq!(
                ask(outside, RecordType::A).metadata.response_code,
                ResponseCode::Refused,
                "{outside}"
            );
        }
    }

    #[test]
    fn rubbish_is_not_answered() {
        let names = Names::default();
        assert_eq!(answer(b"", &names), None);
        assert_eq!(answer(&[0xff; 40], &names), None);
    }
}
