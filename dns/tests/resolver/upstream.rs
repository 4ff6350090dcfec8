//! A nameserver on `127.0.0.53:53`, UDP and TCP, that knows a few names, lies about some, and remembers what it was asked.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
};
use lattice_dns::{Transport, limits::MAX_WRONG_ANSWERS};

const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 53), 53));
/// How soon it notices that it is to end.
const TICK: Duration = Duration::from_millis(20);

/// A question as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) id: u16,
    pub(crate) from: SocketAddr,
    pub(crate) transport: Transport,
    /// Records of the additional section, and options of its OPT record.
    pub(crate) additionals: usize,
    pub(crate) options: usize,
}

pub(crate) struct Upstream {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Upstream {
    /// Starts it in the namespace of the caller.
    pub(crate) fn start() -> Self {
        let (udp, tcp) = (UdpSocket::bind(ADDRESS).unwrap(), TcpListener::bind(ADDRESS).unwrap());
        udp.set_read_timeout(Some(TICK)).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (seen, stop) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicBool>::default());
        let by_udp = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            thread::spawn(move || serve_udp(&udp, &seen, &stop))
        };
        let by_tcp = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            thread::spawn(move || serve_tcp(&tcp, &seen, &stop))
        };
        Self { seen, stop, threads: vec![by_udp, by_tcp] }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_udp(socket: &UdpSocket, seen: &Mutex<Vec<Seen>>, stop: &AtomicBool) {
    let elsewhere = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 53), 0)).unwrap();
    let mut held: Vec<(SocketAddr, Message)> = Vec::new();
    let mut buffer = [0; 4096];
    let send = |message: &Message, to: SocketAddr| {
        let _gone = socket.send_to(&message.to_vec().unwrap(), to);
    };
    while !stop.load(Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let asked = see(&buffer[..length], from, Transport::Udp, seen);
        let Some(mut answer) = answer(&asked) else { continue };
        match label(&asked).as_str() {
            "big" => {
                answer.metadata.truncation = true;
                answer.answers.clear();
                send(&answer, from);
            }
            "slow" => held.push((from, answer)),
            "forged" => {
                send(&other_id(&answer), from);
                let _refused = elsewhere.send_to(&forged(&answer).to_vec().unwrap(), from);
                send(&answer, from);
            }
            "flood" => {
                for _ in 0..MAX_WRONG_ANSWERS {
                    send(&other_id(&answer), from);
                }
            }
            "swapped" => {
                send(&other_case(&answer), from);
                send(&answer, from);
            }
            "garbage" => {
                let whole = answer.to_vec().unwrap();
                for noise in [&[][..], &[0xff; 300], &whole[..11], &whole[..20]] {
                    let _gone = socket.send_to(noise, from);
                }
                send(&answer, from);
            }
            _ => send(&answer, from),
        }
        if label(&asked) == "api" {
            held.drain(..).for_each(|(to, answer)| send(&answer, to));
        }
    }
}

fn serve_tcp(listener: &TcpListener, seen: &Mutex<Vec<Seen>>, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let Ok((stream, from)) = listener.accept() else {
            thread::sleep(TICK);
            continue;
        };
        let _gone = serve_stream(stream, from, seen);
    }
}

fn serve_stream(mut stream: TcpStream, from: SocketAddr, seen: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    let asked = see(&message, from, Transport::Tcp, seen);
    match answer(&asked) {
        Some(answer) => stream.write_all(&crate::lab::framed(&answer)),
        None => Ok(()),
    }
}

fn see(message: &[u8], from: SocketAddr, transport: Transport, seen: &Mutex<Vec<Seen>>) -> Message {
    let asked = Message::from_vec(message).unwrap();
    seen.lock().unwrap().push(Seen {
        name: asked.queries[0].name.to_ascii(),
        id: asked.metadata.id,
        from,
        transport,
        additionals: asked.additionals.len() + usize::from(asked.edns.is_some()),
        options: asked.edns.as_ref().map_or(0, |edns| edns.options().as_ref().len()),
    });
    asked
}

/// The first label of the question, in lower case.
fn label(asked: &Message) -> String {
    asked.queries[0].name.to_ascii().to_ascii_lowercase().split('.').next().unwrap().to_owned()
}

/// The good answer, with more in it than was asked for; none to who is to get none.
fn answer(asked: &Message) -> Option<Message> {
    let question = asked.queries[0].clone();
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let a = |owner: &Name, octets: [u8; 4]| {
        Record::from_rdata(owner.clone(), 300, RData::A(Ipv4Addr::from(octets).into()))
    };
    let mut answer = Message::response(asked.metadata.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_query(question.clone());
    let own = &question.name;
    let records = match (label(asked).as_str(), question.query_type) {
        ("silent", _) => return None,
        ("missing", _) => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            vec![]
        }
        ("broken", _) => {
            answer.metadata.response_code = ResponseCode::ServFail;
            vec![]
        }
        ("empty", _) => vec![],
        ("rebind", RecordType::AAAA) => {
            vec![Record::from_rdata(own.clone(), 300, RData::AAAA("::1".parse().unwrap()))]
        }
        (_, RecordType::AAAA) => {
            vec![Record::from_rdata(own.clone(), 300, RData::AAAA("2001:db8::1".parse().unwrap()))]
        }
        ("chain", _) => vec![
            Record::from_rdata(own.clone(), 300, RData::CNAME(CNAME(name("b.example.net.")))),
            Record::from_rdata(name("b.example.net."), 300, RData::CNAME(CNAME(name("c.example.net.")))),
            a(&name("c.example.net."), [192, 0, 2, 7]),
            a(&name("stranger.example.net."), [192, 0, 2, 66]),
        ],
        ("mixed", _) => vec![a(own, [192, 0, 2, 1]), a(own, [10, 0, 0, 1]), a(own, [127, 0, 0, 1])],
        ("rebind", _) => vec![a(own, [169, 254, 169, 254]), a(own, [10, 42, 0, 2])],
        ("big", _) => (0..25).map(|i| a(own, [192, 0, 2, i])).collect(),
        _ => vec![a(own, [192, 0, 2, 1])],
    };
    answer.add_answers(records);
    answer.add_authority(a(&name("ns.example.net."), [192, 0, 2, 67]));
    answer.add_additional(a(own, [192, 0, 2, 68]));
    Some(answer)
}

/// The same with an address of somebody else's.
fn forged(answer: &Message) -> Message {
    let mut forged = answer.clone();
    forged.answers[0].data = RData::A(Ipv4Addr::new(192, 0, 2, 66).into());
    forged
}

fn other_id(answer: &Message) -> Message {
    let mut forged = forged(answer);
    forged.metadata.id ^= 1;
    forged
}

/// In another spelling.
fn other_case(answer: &Message) -> Message {
    let mut forged = forged(answer);
    let swap = |c: u8| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    let labels = answer.queries[0].name.iter().map(|label| label.iter().copied().map(swap).collect());
    let labels: Vec<Vec<u8>> = labels.collect();
    forged.queries[0].name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
    forged
}
