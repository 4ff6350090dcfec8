//! Asking the nameservers of the host: one fresh socket a question and attempt, made in the namespace of this thread.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::ProtoError;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::{
    answer::Outcome,
    ask::{Ask, Random, Reply, Wrong},
    counters::Tally,
    limits::{DEADLINE, MAX_ANSWER, MAX_WRONG_ANSWERS, UPSTREAM_PAYLOAD},
    question::Question,
    resolv_conf::Followed,
};

/// The nameservers.
pub(crate) struct Upstream {
    resolv_conf: RefCell<Followed>,
    /// The one that answered last is asked first.
    preferred: Cell<Option<SocketAddr>>,
    tally: Arc<Tally>,
}

/// How it went by UDP.
enum ByUdp {
    Reply(Reply),
    /// There were answers, but none to our question as we spelled it. Somebody guesses, or the nameserver does not keep the
    /// spelling: either way, TCP is for that.
    Doubtful,
    Silence,
}

impl Upstream {
    pub(crate) fn new(resolv_conf: PathBuf, tally: Arc<Tally>) -> Self {
        Self { resolv_conf: RefCell::new(Followed::new(resolv_conf)), preferred: Cell::new(None), tally }
    }

    /// Asks until one answers, or [`DEADLINE`] is over.
    pub(crate) async fn resolve(&self, question: &Question) -> Outcome {
        timeout(DEADLINE, self.ask_all(question)).await.unwrap_or(Outcome::Failed)
    }

    async fn ask_all(&self, question: &Question) -> Outcome {
        let conf = self.resolv_conf.borrow_mut().conf(Instant::now());
        let mut servers = conf.servers.clone();
        servers.sort_by_key(|server| Some(*server) != self.preferred.get());
        for _ in 0..conf.attempts {
            let mut silent = Vec::new();
            for server in servers {
                match self.ask(question, server, conf.wait()).await {
                    Some(Reply::Outcome(Outcome::Failed) | Reply::Unable | Reply::Truncated) => {}
                    Some(Reply::Outcome(outcome)) => {
                        self.preferred.set(Some(server));
                        return outcome;
                    }
                    None => {
                        self.tally.upstream_timeouts.add();
                        silent.push(server);
                    }
                }
            }
            servers = silent;
        }
        Outcome::Failed
    }

    /// One attempt; none when there was no answer.
    async fn ask(&self, question: &Question, server: SocketAddr, wait: Duration) -> Option<Reply> {
        match self.by_udp(question, server, wait).await {
            Ok(ByUdp::Reply(Reply::Truncated) | ByUdp::Doubtful) => {
                timeout(wait, by_tcp(question, server)).await.ok()?.ok()
            }
            Ok(ByUdp::Reply(reply)) => Some(reply),
            Ok(ByUdp::Silence) | Err(_) => None,
        }
    }

    async fn by_udp(&self, question: &Question, server: SocketAddr, wait: Duration) -> io::Result<ByUdp> {
        let ask = Ask::spelled(question, &random()?).map_err(unwritable)?;
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // The kernel picks the port at random, and passes on nothing that is not from `server`.
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(server).await?;
        socket.send(&ask.message().map_err(unwritable)?).await?;
        let mut wrong = 0;
        let mut buffer = [0; UPSTREAM_PAYLOAD as usize];
        let answer = async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                match ask.check(&buffer[..length]) {
                    Ok(reply) => return Ok(ByUdp::Reply(reply)),
                    Err(why) => {
                        self.tally.upstream_wrong.add();
                        wrong += 1;
                        if why == Wrong::Spelling || wrong >= MAX_WRONG_ANSWERS {
                            return Ok(ByUdp::Doubtful);
                        }
                    }
                }
            }
        };
        match timeout(wait, answer).await {
            Ok(answer) => answer,
            Err(_) if wrong > 0 => Ok(ByUdp::Doubtful),
            Err(_) => Ok(ByUdp::Silence),
        }
    }
}

async fn by_tcp(question: &Question, server: SocketAddr) -> io::Result<Reply> {
    let ask = Ask::plain(question, &random()?).map_err(unwritable)?;
    let message = ask.message().map_err(unwritable)?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(server).await?;
    // In one segment: some nameservers do not wait for the rest (RFC 7766 §8).
    stream.write_all(&[&length.to_be_bytes(), message.as_slice()].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_ANSWER {
        return Ok(Reply::Unable);
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    ask.check(&answer).map_err(|_| io::Error::other("not the answer to the question"))
}

fn random() -> io::Result<Random> {
    let mut random = [0; size_of::<Random>()];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(random)
}

fn unwritable(error: ProtoError) -> io::Error {
    io::Error::other(error)
}
