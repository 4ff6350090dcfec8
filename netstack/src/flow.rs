//! One TCP connection: a smoltcp socket, and around it what smoltcp does not do.
//!
//! | here | because smoltcp 0.14 |
//! |---|---|
//! | resets only by their exact sequence number, challenges (RFC 5961) | takes any reset within the window |
//! | acknowledgements are numbered behind all that was sent | numbers them anew after a timeout |
//! | data behind an overtaken acknowledgement is kept | throws it away, so reordering looks like loss |
//! | congestion windows grow by what is acknowledged ([`acks`]) | grows by acknowledgements, however few |
//! | large segments end where a packet does ([`tail`]) | cuts them where a window ends |
//! | IPv6 has segmentation offload ([`link`]) | loses large segments of IPv6 |
//! | timeouts of handshake, silence and closing | counts an idle connection's silence as the peer's |
//! | TIME-WAIT without buffers (`time_wait`) | keeps them, and empties what was not read after 10 s |

mod acks;
mod egress;
mod ingress;
pub(crate) mod link;
mod news;
mod stream;
mod tail;
mod track;

use std::time::{Duration, Instant};

use smoltcp::{
    iface::{Interface, SocketHandle, SocketSet},
    socket::tcp::{CongestionControl, Socket, SocketBuffer, State},
};

use crate::{Cause, FlowId, Limits, clock::Clock, ip, memory::Buffers, tcp, tuple::Tuple};
use link::{LOCAL, REMOTE, Scratch};
pub(crate) use news::Fate;
use tail::Tail;
use track::Track;

/// Bytes that may be under way before anything is known of the path (RFC 6928, 2).
const FIRST_FLIGHT: u32 = 14_600;

/// A connection.
pub(crate) struct Flow {
    pub(crate) id: FlowId,
    pub(crate) tuple: Tuple,
    pub(crate) buffers: Buffers,
    /// Whether it waits for its turn to send.
    pub(crate) is_ready: bool,
    /// What the stack's timers remember of it.
    pub(crate) scheduled: Option<Instant>,
    /// A peer began it, and has not completed its handshake.
    pub(crate) is_half_open: bool,
    /// Its name is remembered elsewhere (TIME-WAIT): all that is left is what the owner has not read.
    pub(crate) is_detached: bool,
    /// The owner has closed it.
    pub(crate) is_orphan: bool,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    mtu: u16,
    /// An IP header of the flow's, and the sum of its pseudo-header but for the length.
    head: [u8; ip::MAX_HEADER],
    pseudo: u64,
    track: Track,
    tail: Tail,
    /// It is to end with a reset, once everything was sent that may be now.
    pub(crate) resets: bool,
    /// Congestion was why it sent nothing when it last had its turn.
    is_held_back: bool,
    news: news::News,
    /// When it is given up, whatever happens: a handshake, or an owner that has left.
    ends_by: Option<Instant>,
    /// When the peer was last heard of, or was first sent what it has not answered.
    alive_at: Instant,
    timing: Timing,
}

/// How long it may take.
#[derive(Debug, Clone, Copy)]
struct Timing {
    user_timeout: Duration,
    keep_alive: Option<Duration>,
    linger: Duration,
}

/// What a flow needs of the stack to do anything.
pub(crate) struct Context<'a> {
    pub(crate) clock: Clock,
    pub(crate) now: Instant,
    pub(crate) scratch: &'a mut Scratch,
}

impl Flow {
    /// A flow that is not yet open; `seed` gives its initial sequence number.
    pub(crate) fn new(
        id: FlowId,
        tuple: Tuple,
        buffers: Buffers,
        mtu: u16,
        seed: u64,
        limits: &Limits,
        context: &mut Context<'_>,
    ) -> Self {
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; buffers.receive]),
            SocketBuffer::new(vec![0; buffers.send]),
        );
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_keep_alive(limits.keep_alive.map(|after| after.into()));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let mut head = [0; ip::MAX_HEADER];
        let (source, destination) = (tuple.local.ip(), tuple.remote.ip());
        ip::write(&mut head, source, destination, ip::TCP, 0);
        let inner = inner_mtu(mtu, &tuple);
        Self {
            id,
            tuple,
            buffers,
            is_ready: false,
            scheduled: None,
            is_half_open: false,
            is_detached: false,
            is_orphan: false,
            interface: link::interface(inner, seed, context.scratch, context.clock.ticks(context.now)),
            sockets,
            handle,
            mtu,
            head,
            pseudo: crate::checksum::pseudo_header(source, destination, ip::TCP, 0),
            track: Track::default(),
            tail: Tail::default(),
            resets: false,
            is_held_back: false,
            news: news::News::default(),
            ends_by: Some(context.now + limits.handshake),
            alive_at: context.now,
            timing: Timing {
                user_timeout: limits.user_timeout,
                keep_alive: limits.keep_alive,
                linger: limits.linger,
            },
        }
    }

    /// Begins a connection. The SYN goes out with [`Self::send_next`].
    pub(crate) fn connect(&mut self) {
        let (local, remote) = (self.tuple.local.port(), self.tuple.remote.port());
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        let done = socket.connect(self.interface.context(), (REMOTE, remote), (LOCAL, local));
        debug_assert!(done.is_ok(), "{done:?}");
    }

    /// Waits for the SYN that a peer has sent; it is to come in next.
    pub(crate) fn listen(&mut self) {
        let port = self.tuple.local.port();
        let done = self.socket_mut().listen((LOCAL, port));
        debug_assert!(done.is_ok(), "{done:?}");
        self.is_half_open = true;
    }

    /// Makes packets no longer than `mtu` from now on.
    pub(crate) fn set_mtu(&mut self, mtu: u16, context: &mut Context<'_>) {
        if mtu >= self.mtu {
            return;
        }
        self.mtu = mtu;
        // smoltcp asks its device but once. Nothing of the connection is in the interface.
        let now = context.clock.ticks(context.now);
        self.interface = link::interface(inner_mtu(mtu, &self.tuple), 0, context.scratch, now);
        // It is too long now; smoltcp sends it again with the rest.
        self.tail.clear();
    }

    /// Ends it at once, with a reset to the peer if that knows of it.
    pub(crate) fn abort(&mut self) {
        self.socket_mut().abort();
    }

    /// Ends it for a reason the owner is told.
    pub(crate) fn break_off(&mut self, cause: Cause) {
        self.news.set_cause(cause);
        self.abort();
    }

    /// The owner has left: what it wrote is still sent, what comes in is answered by a reset.
    pub(crate) fn close(&mut self, now: Instant) {
        self.is_orphan = true;
        self.ends_by = Some(now + self.timing.linger);
        self.alive_at = now;
        if self.socket().recv_queue() > 0 {
            self.abort();
        } else {
            self.socket_mut().close();
        }
    }

    /// The owner has left, and what it wrote is followed by a reset. What a first flight may hold goes at once (RFC 6928): nobody waits for
    /// acknowledgements that would open smoltcp's window of 2 KiB.
    pub(crate) fn reset(&mut self) {
        self.is_orphan = true;
        self.resets = true;
        self.set_no_delay(true);
        let most = (10 * self.segment_size()).min(FIRST_FLIGHT);
        if self.socket().send_queue() <= most as usize {
            self.socket_mut().set_congestion_control(CongestionControl::None);
        }
    }

    pub(crate) fn state(&self) -> State {
        self.socket().state()
    }

    /// What must be remembered of a connection that has ended: our next sequence number, and the peer's; `None` when it is
    /// the peer who remembers it.
    pub(crate) fn numbers_to_remember(&self) -> Option<(u32, u32)> {
        (self.state() == State::TimeWait).then(|| (self.track.next, self.expected()))
    }

    /// Whether the peer has not had the acknowledgement of all it sent.
    pub(crate) fn owes_acknowledgement(&self) -> bool {
        self.track.acknowledged != self.expected()
    }

    /// Whether a connection that a peer began is made, or over.
    pub(crate) fn has_completed(&self) -> bool {
        !matches!(self.state(), State::Listen | State::SynReceived)
    }

    /// Whether a sequence number is of what is on its way (RFC 5927, 4).
    pub(crate) fn is_on_its_way(&self, sequence: u32) -> bool {
        self.track.is_on_its_way(sequence)
    }

    /// Does what time asks for, but for sending.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let is_over = self.ends_by.is_some_and(|at| at <= now);
        if is_over || self.gives_up_at().is_some_and(|at| at <= now) {
            self.break_off(Cause::TimedOut);
        }
    }

    /// When it is to be looked at next.
    pub(crate) fn next_timeout(&mut self, clock: Clock, now: Instant) -> Option<Instant> {
        if self.is_detached {
            return None;
        }
        // What should be sent already, but is not, waits for smoltcp's own reasons: it must not keep us busy.
        let soon = now + Duration::from_millis(1);
        let smoltcp = self.interface.poll_at(clock.ticks(now), &self.sockets);
        let smoltcp = smoltcp.map(|at| clock.instant(at).max(soon));
        [smoltcp, self.ends_by, self.gives_up_at()].into_iter().flatten().min()
    }

    /// When the peer is taken for gone, if it stays silent.
    fn gives_up_at(&self) -> Option<Instant> {
        let socket = self.socket();
        let awaits = match socket.state() {
            State::FinWait1 | State::Closing | State::LastAck => true,
            State::Closed | State::Listen | State::TimeWait => return None,
            _ => socket.send_queue() > 0,
        };
        let silence = if awaits { Duration::ZERO } else { self.timing.keep_alive? };
        Some(self.alive_at + silence + self.timing.user_timeout)
    }

    /// The peer's next sequence number.
    fn expected(&self) -> u32 {
        let has_ended =
            matches!(self.state(), State::CloseWait | State::Closing | State::LastAck | State::TimeWait);
        let queued = self.socket().recv_queue() as u32 + u32::from(has_ended);
        self.track.peer_initial.wrapping_add(1).wrapping_add(self.track.read).wrapping_add(queued)
    }

    /// Bytes of data in a full packet.
    fn segment_size(&self) -> u32 {
        let ours = inner_mtu(self.mtu, &self.tuple) - link::HEADER - tcp::HEADER;
        // What smoltcp makes of a peer that does not say, or too little.
        let theirs = match self.track.peer_segment {
            0 => 536,
            size => size.max(48),
        };
        (ours as u32).min(theirs.into())
    }

    fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

/// The MTU of an IPv4 link over which segments are as long as over the real one.
fn inner_mtu(mtu: u16, tuple: &Tuple) -> usize {
    usize::from(mtu) + link::HEADER - ip::header_len(tuple.local.ip())
}
