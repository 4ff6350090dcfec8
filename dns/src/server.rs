//! The running resolver: one thread, who asks on one side (the agent's sockets, or a proxy in this process) and the nameservers on the other.

use std::{
    cell::RefCell,
    fmt,
    future::pending,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::{
        mpsc::{self, OwnedPermit},
        oneshot,
    },
    task::{LocalSet, spawn_local},
};

use crate::{
    Asker, Counters, Gate, Names, NotResolved, Transport, Why,
    asker::{self, Answer, Asked},
    core::{Action, Core},
    counters::Tally,
    limits::MAX_QUERY,
    query::{Client, Query},
    question::Question,
    tcp,
    upstream::Upstream,
};

/// Between two tries where the kernel has no descriptor or memory for us.
const BREATH: Duration = Duration::from_millis(50);

/// What a resolver needs.
pub struct Config {
    /// Where the agent asks: `127.0.0.1:53` of its namespace. Without sockets, only an [`Asker`] does.
    pub udp: Option<UdpSocket>,
    /// Likewise.
    pub tcp: Option<TcpListener>,
    /// The host's `/etc/resolv.conf`: which nameservers are asked. Without any, forwarded queries end in SERVFAIL.
    pub resolv_conf: PathBuf,
    /// The overlay's names.
    pub names: Names,
    /// The policy.
    pub gate: Arc<dyn Gate>,
}

/// Runs its argument in the network namespace from which nameservers are reached, once, before it returns:
/// `&|work| { work(); Ok(()) }` for the caller's own, `&|work| netns.run(work)` for another. It must not be the agent's.
pub type Enter<'a> = &'a dyn Fn(&mut (dyn FnMut() + Send)) -> io::Result<()>;

/// A running resolver. Dropping it ends it at once, and closes all its sockets.
pub struct Resolver {
    tally: Arc<Tally>,
    asker: Asker,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    /// Starts its thread in the namespace of `enter`. That thread makes all sockets to nameservers, so they are in there too.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or there are no descriptors or threads left.
    pub fn start(config: Config, enter: Enter<'_>) -> io::Result<Self> {
        let tally = Arc::new(Tally::default());
        let (stop, stopped) = oneshot::channel();
        let (asker, asked) = Asker::new();
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let serve = {
            let tally = Arc::clone(&tally);
            move || serve(&runtime, config, tally, asked, stopped)
        };
        let mut serve = Some(serve);
        let mut thread = None;
        enter(&mut || {
            thread = serve.take().map(|serve| thread::Builder::new().name("resolver".into()).spawn(serve));
        })?;
        let thread = thread.ok_or_else(|| io::Error::other("the namespace was not entered"))??;
        Ok(Self { tally, asker, stop: Some(stop), thread: Some(thread) })
    }

    /// Asks this resolver from within this process. When it ends, so does what was asked.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// What it did until now.
    pub fn counters(&self) -> Counters {
        self.tally.snapshot()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

/// How to reach who waits for a reply.
pub(crate) enum ReplyTo {
    Udp(SocketAddr),
    /// The place of the reply in its connection's queue, kept from the moment the query was read.
    Tcp(OwnedPermit<Vec<u8>>),
    Inside(oneshot::Sender<Answer>),
}

impl ReplyTo {
    fn send(self, message: Vec<u8>, udp: Option<&tokio::net::UdpSocket>) {
        match self {
            // What does not fit into the socket's buffer is lost, as anywhere with UDP.
            Self::Udp(address) => drop(udp.map(|udp| udp.try_send_to(&message, address))),
            Self::Tcp(place) => drop(place.send(message)),
            // It is sent no messages.
            Self::Inside(_) => {}
        }
    }
}

/// What all tasks of the thread share.
pub(crate) struct Shared {
    core: RefCell<Core<ReplyTo>>,
    upstream: Upstream,
    udp: Option<tokio::net::UdpSocket>,
    tally: Arc<Tally>,
}

impl Shared {
    /// A message of the agent.
    pub(crate) fn receive(self: &Rc<Self>, message: &[u8], client: Client, to: ReplyTo) {
        let actions = self.core.borrow_mut().receive(message, client, to, Instant::now());
        self.act(actions);
    }

    /// A question from within this process.
    pub(crate) fn ask_for(self: &Rc<Self>, asked: Asked) {
        let Asked { name, kind, client: address, to } = asked;
        let client = Client { address, transport: Transport::Tcp };
        let now = Instant::now();
        let Some(query) = Query::inside(&name, kind, client) else {
            let why = self.core.borrow_mut().unfit_name(&name, client, now);
            return drop(to.send(Err(NotResolved::Refused { why, rule: None })));
        };
        let actions = self.core.borrow_mut().ask(query, ReplyTo::Inside(to), now);
        self.act(actions);
    }

    pub(crate) fn refused(&self, why: Why) {
        self.tally.refused(why);
    }

    pub(crate) fn malformed(&self) {
        self.tally.malformed.add();
    }

    fn act(self: &Rc<Self>, actions: Vec<Action<ReplyTo>>) {
        for action in actions {
            match action {
                Action::Tell { to: ReplyTo::Inside(to), told, .. } => drop(to.send(asker::answer(told))),
                Action::Tell { to, query, told } => {
                    to.send(query.reply(told.code, &told.data, told.ttl), self.udp.as_ref());
                }
                Action::Reject { to, message } => to.send(message, self.udp.as_ref()),
                Action::Ask(question) => drop(spawn_local(Rc::clone(self).ask(question))),
            }
        }
    }

    async fn ask(self: Rc<Self>, question: Question) {
        let outcome = self.upstream.resolve(&question).await;
        let actions = self.core.borrow_mut().answered(&question, &outcome, Instant::now());
        self.act(actions);
    }
}

fn serve(
    runtime: &Runtime,
    config: Config,
    tally: Arc<Tally>,
    mut asked: mpsc::Receiver<Asked>,
    stopped: oneshot::Receiver<()>,
) {
    let tasks = LocalSet::new();
    tasks.block_on(runtime, async move {
        let Config { udp, tcp, resolv_conf, names, gate } = config;
        let Ok((udp, tcp)) = sockets(udp, tcp) else { return };
        let core = RefCell::new(Core::new(gate, names, Arc::clone(&tally), Instant::now()));
        let upstream = Upstream::new(resolv_conf, Arc::clone(&tally));
        let shared = Rc::new(Shared { core, upstream, udp, tally });
        let by_tcp = async {
            match &tcp {
                Some(listener) => tcp::serve(&shared, listener).await,
                None => pending().await,
            }
        };
        let from_inside = async {
            while let Some(asked) = asked.recv().await {
                shared.ask_for(asked);
            }
        };
        tokio::select! {
            _ = stopped => {}
            () = serve_udp(&shared) => {}
            () = by_tcp => {}
            () = from_inside => {}
        }
    });
}

type Sockets = (Option<tokio::net::UdpSocket>, Option<tokio::net::TcpListener>);

fn sockets(udp: Option<UdpSocket>, tcp: Option<TcpListener>) -> io::Result<Sockets> {
    let udp = udp.map(|udp| {
        udp.set_nonblocking(true)?;
        tokio::net::UdpSocket::from_std(udp)
    });
    let tcp = tcp.map(|tcp| {
        tcp.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(tcp)
    });
    Ok((udp.transpose()?, tcp.transpose()?))
}

async fn serve_udp(shared: &Rc<Shared>) {
    let Some(socket) = &shared.udp else { return pending().await };
    // One more than is allowed, so that what is longer can be told from what is as long.
    let mut buffer = [0; MAX_QUERY + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, address)) => {
                let client = Client { address, transport: Transport::Udp };
                shared.receive(&buffer[..length], client, ReplyTo::Udp(address));
            }
            Err(_) => tokio::time::sleep(BREATH).await,
        }
    }
}
