//! nftables has no test run, so its packets are real: an agent's namespace with the table, and the rest of the world in another,
//! joined by a veth pair.
//!
//! ```text
//!  agent: raw socket ──► output ──┐ veth ┌──► packet socket      an allowed packet arrives, a denied send fails
//!         raw socket ◄─ prerouting ──────── raw socket           an allowed packet arrives, a denied one never
//! ```
//!
//! Of TCP and UDP the record must name the rule and the reason, too; those of ICMP are told once a second only. Damaged packets
//! and fragments are not sent: the kernel's own stack drops and joins them before any rule is asked, as `lattice_nftables` says.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use lattice_nftables::{Events, Nftables, Options};
use lattice_overlay::Netns;
use lattice_policy::{Action, Direction, Flow, Pin, Policy, Verdict, evaluate_pinned};
use lattice_tests::process::{command, patience};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, sendto,
        setsockopt, socket, sockopt,
    },
};

use crate::{
    bytes::{Seen, ends, sealed, seen},
    held, now_ns,
    random::Random,
    rules,
    traffic::{OWN, Sent, Traffic},
};

/// Packets of one policy.
const BATCH: usize = 100;
const LINK: &str = "wg0";
/// Of both ends. Without ARP, the kernel sends to its own address.
const MAC: &str = "02:00:00:00:00:01";
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(seed: u64, packets: usize) {
    let mut random = Random::new(seed);
    let mut traffic = Traffic::new(random.next());
    let mut lab = Lab::new(seed);
    let mut tally = Tally::default();
    for generation in 1..=packets.div_ceil(BATCH) as u32 {
        lab.apply(&mut random, generation);
        for _ in 0..BATCH {
            let sent = traffic.open();
            let passes = lab.judge(&sent, &mut tally);
            // The answer to what an agent began belongs to it, whatever rules say of who may call the agent.
            if passes && sent.direction == Direction::Egress {
                let bytes = traffic.answer().expect("a flow was opened");
                lab.arrives(&Sent { direction: Direction::Ingress, bytes, opens: None });
                tally.answered += 1;
            }
        }
        lab.records();
    }
    lab.nothing_else_arrived();
    println!("{tally:?}");
    tally.assert_worth_it(packets);
}

#[derive(Debug, Default)]
struct Tally {
    allowed: [usize; 2],
    denied: [usize; 2],
    answered: usize,
    by_pin: usize,
}

impl Tally {
    fn assert_worth_it(&self, packets: usize) {
        let Self { allowed: [out, inward], denied: [not_out, not_inward], answered, by_pin } = *self;
        for (share, count) in
            [(20, out), (50, inward), (4, not_out), (8, not_inward), (20, answered), (200, by_pin)]
        {
            assert!(count >= packets / share, "too few of something: {self:?}");
        }
    }
}

struct Lab {
    nftables: Nftables,
    events: Events,
    policy: Policy,
    pins: Vec<Pin>,
    /// What the record of each flow must say, by its protocol and its opener's port.
    expected: HashMap<(u8, u16), Verdict>,
    told: HashMap<(u8, u16), Flow>,
    agent: Side,
    world: Side,
    denied: HashSet<Seen>,
    seed: u64,
}

/// One namespace, its way out and its way in.
struct Side {
    senders: [OwnedFd; 2],
    /// With each, whether what it reads begins with the IP header: a raw socket of IPv6 leaves it out (RFC 3542, 3).
    readers: Vec<(OwnedFd, bool)>,
    scope: u32,
    seen: HashSet<Seen>,
    _netns: Arc<Netns>,
}

impl Lab {
    fn new(seed: u64) -> Self {
        let netns = || Arc::new(Netns::create().expect("a network namespace: run as root"));
        let (agent, world) = (netns(), netns());
        let other = world.path();
        ip(&agent, &format!("link add {LINK} type veth peer name {LINK} netns {}", other.display()));
        let enter = agent.clone();
        let options = Options {
            enter: Arc::new(move |work| enter.run(work)),
            own: OWN.iter().map(|ip| ip.parse().expect("an address")).collect(),
            table: Options::TABLE.into(),
            log_group: Options::LOG_GROUP,
            tied: Vec::new(),
            confined: None,
        };
        let mut nftables = Nftables::load(&options).expect("nftables: run as root");
        let events = nftables.events().expect("its records");
        let [v4, v6] = OWN;
        for netns in [&agent, &world] {
            ip(netns, &format!("link set {LINK} address {MAC} arp off"));
            ip(netns, &format!("link set {LINK} up"));
            ip(netns, "link set lo up");
        }
        // From and to anywhere: what arrives is for the policy alone to say.
        agent.run(unfiltered).expect("the namespace");
        ip(&agent, &format!("addr add {v4}/32 dev {LINK}"));
        ip(&agent, &format!("addr add {v6}/128 dev {LINK} nodad"));
        ip(&agent, &format!("route add default dev {LINK}"));
        ip(&agent, &format!("-6 route add default dev {LINK}"));
        ip(&world, &format!("route add {v4}/32 dev {LINK}"));
        ip(&world, &format!("-6 route add {v6}/128 dev {LINK}"));
        let all = (AddressFamily::Packet, SockType::Datagram, SockProtocol::EthAll);
        let raw = |family, protocol| (family, SockType::Raw, protocol);
        let (v4, v6) = (AddressFamily::Inet, AddressFamily::Inet6);
        let own = [
            raw(v4, SockProtocol::Tcp),
            raw(v4, SockProtocol::Udp),
            raw(v4, SockProtocol::Icmp),
            raw(v6, SockProtocol::Tcp),
            raw(v6, SockProtocol::Udp),
            raw(v6, SockProtocol::IcmpV6),
        ];
        Self {
            nftables,
            events,
            policy: Policy::new(0),
            pins: Vec::new(),
            expected: HashMap::new(),
            told: HashMap::new(),
            agent: Side::new(agent, &own),
            world: Side::new(world, &[all]),
            denied: HashSet::new(),
            seed,
        }
    }

    fn apply(&mut self, random: &mut Random, generation: u32) {
        self.policy = rules::policy(random, generation);
        self.pins = rules::pins(random, now_ns());
        let table = self.policy.compile();
        // Half of the pins come with the policy, the others later.
        let (first, later) = self.pins.split_at(self.pins.len() / 2);
        self.nftables.apply(&table, first, generation).expect("room in the kernel");
        self.nftables.pin(later).expect("room in the kernel");
    }

    /// Whether it passes, as the rules say.
    fn judge(&mut self, sent: &Sent, tally: &mut Tally) -> bool {
        let packet = sent.opens.expect("an opener");
        let verdict = evaluate_pinned(&self.policy, &packet, &held(&self.pins));
        let unpinned = evaluate_pinned(&self.policy, &packet, &[]).action;
        let way = usize::from(sent.direction == Direction::Ingress);
        if packet.port.is_some() {
            self.expected.insert(ends(&sent.bytes), verdict);
        }
        match verdict.action {
            Action::Allow => {
                tally.allowed[way] += 1;
                tally.by_pin += usize::from(unpinned == Action::Deny);
                self.arrives(sent);
            }
            Action::Deny => {
                tally.denied[way] += 1;
                let done = self.send(sent);
                let is_refused = done == Err(Errno::EPERM);
                assert_eq!(is_refused, way == 0, "{done:?}: {}", self.about(sent));
                self.denied.insert(seen(&sealed(&sent.bytes)).expect("a packet"));
            }
        }
        verdict.action == Action::Allow
    }

    /// Sends what must arrive as it is.
    fn arrives(&mut self, sent: &Sent) {
        let done = self.send(sent);
        assert_eq!(done, Ok(()), "denied: {}", self.about(sent));
        let wanted = seen(&sealed(&sent.bytes)).expect("a packet");
        let deadline = Instant::now() + patience(LIMIT);
        loop {
            let to = if sent.direction == Direction::Egress { &mut self.world } else { &mut self.agent };
            to.drain();
            if to.seen.contains(&wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "it never arrived: {}", self.about(sent));
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn send(&self, sent: &Sent) -> Result<(), Errno> {
        let from = if sent.direction == Direction::Egress { &self.agent } else { &self.world };
        from.send(&sealed(&sent.bytes))
    }

    /// Every flow is on record, with the verdict of the rules.
    fn records(&mut self) {
        let deadline = Instant::now() + patience(LIMIT);
        while !self.expected.keys().all(|of| self.told.contains_key(of)) {
            assert!(Instant::now() < deadline, "LATTICE_SEED={}: a flow is on no record", self.seed);
            let told = &mut self.told;
            let drained = self.events.drain(&mut |flow| {
                told.entry((flow.proto, flow.src.port())).or_insert(flow);
            });
            if drained == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        for (of, verdict) in self.expected.drain() {
            let flow = &self.told[&of];
            let said = Verdict { action: flow.action, rule: flow.rule, reason: flow.reason };
            assert_eq!(said, verdict, "LATTICE_SEED={} {flow:?}\n{:#?}", self.seed, self.policy.rules());
        }
        self.told.clear();
    }

    fn nothing_else_arrived(&mut self) {
        lattice_tests::sniffer::settle();
        for side in [&mut self.agent, &mut self.world] {
            side.drain();
        }
        // The world's packet socket sees what the world itself sends, too.
        let leaked = self.denied.iter().find(|packet| {
            let from_agent = OWN.iter().any(|own| own.parse() == Ok(packet.0));
            if from_agent { self.world.seen.contains(*packet) } else { self.agent.seen.contains(*packet) }
        });
        assert_eq!(leaked, None, "LATTICE_SEED={}: denied, and it arrived", self.seed);
        assert_eq!(self.nftables.lost(), 0);
    }

    fn about(&self, sent: &Sent) -> String {
        format!(
            "LATTICE_SEED={} {:?} {:02x?}\n{:#?}\n{:?}",
            self.seed,
            sent.opens,
            sent.bytes,
            self.policy.rules(),
            self.pins
        )
    }
}

impl Side {
    fn new(netns: Arc<Netns>, readers: &[(AddressFamily, SockType, SockProtocol)]) -> Self {
        let open = |family, kind, protocol| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(family, kind, flags, protocol).expect("a socket");
            setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).expect("room");
            socket
        };
        let opened = netns.run(|| {
            let raw = |family| open(family, SockType::Raw, SockProtocol::Raw);
            let senders = [raw(AddressFamily::Inet), raw(AddressFamily::Inet6)];
            let readers = readers.iter().map(|(family, kind, protocol)| {
                (open(*family, *kind, *protocol), *family != AddressFamily::Inet6)
            });
            (senders, readers.collect(), nix::net::if_::if_nametoindex(LINK).expect("the link"))
        });
        let (senders, readers, scope) = opened.expect("the namespace");
        Self { senders, readers, scope, seen: HashSet::new(), _netns: netns }
    }

    /// A packet as it is (raw(7): IPPROTO_RAW).
    fn send(&self, packet: &[u8]) -> Result<(), Errno> {
        let (_, to, _) = seen(packet).expect("a packet");
        let (socket, to) = match SocketAddr::new(to, 0) {
            SocketAddr::V4(to) => (&self.senders[0], SockaddrStorage::from(to)),
            SocketAddr::V6(mut to) => {
                to.set_scope_id(self.scope);
                (&self.senders[1], SockaddrStorage::from(to))
            }
        };
        sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty()).map(drop)
    }

    fn drain(&mut self) {
        let mut buffer = [0; 2048];
        for (socket, has_header) in &self.readers {
            while let Ok((length, from)) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer) {
                let packet = &buffer[..length];
                let from = from.and_then(|from| Some(IpAddr::from(from.as_sockaddr_in6()?.ip())));
                self.seen.extend(match from.filter(|_| !has_header) {
                    Some(src) => Some((src, OWN[1].parse().expect("an address"), packet.to_vec())),
                    None => seen(packet),
                });
            }
        }
    }
}

fn ip(netns: &Netns, args: &str) {
    let out = command(&netns.path(), Path::new("ip")).args(args.split(' ')).output().expect("iproute2");
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// No filter of the kernel's own by the source of what comes in.
fn unfiltered() {
    for which in ["all", LINK] {
        let file = format!("/proc/sys/net/ipv4/conf/{which}/rp_filter");
        std::fs::write(file, "0").expect("a writable sysctl");
    }
}
