//! One policy, enforced twice and read once: the eBPF program (`BPF_PROG_TEST_RUN`), the user-space filter and the reference
//! evaluator must say the same of a million packets, and the two enforcers must refuse in the same bytes. Of some thousands of
//! them, so must nftables, in a network namespace ([`wire`]).
//!
//! Half of the packets come from a fixed seed and half from a new one, which a failure prints: `LATTICE_SEED=<n>` repeats it.
//! `LATTICE_PACKETS` changes how many there are.

mod bytes;
mod random;
mod rules;
mod traffic;
mod wire;

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lattice_ebpf::harness::{Harness, Outcome};
use lattice_filter::Filter;
use lattice_policy::{Action, Direction, Packet, Pin, Policy, Reason, evaluate, evaluate_pinned};
use nix::time::{ClockId, clock_gettime};
use random::Random;
use traffic::{OWN, Sent, Traffic};

const PACKETS: usize = 1_000_000;
/// One in so many goes over a real link.
const SAMPLE: usize = 250;
/// Of one policy.
const BATCH: usize = 5000;
/// Policies of one loaded program: more flows than the least recently used map surely keeps must not come together.
const POLICIES: u32 = 4;
const ETHERNET: usize = 14;

#[test]
fn the_enforcers_agree_on_a_fixed_seed() {
    run(0x001a_771c_e5ee_d001, packets() / 2);
}

#[test]
fn the_enforcers_agree_on_a_new_seed() {
    run(new_seed(), packets() / 2);
}

#[test]
fn nftables_agrees_on_a_fixed_seed() {
    wire::run(0x001a_771c_e5ee_d001, packets() / SAMPLE / 2);
}

#[test]
fn nftables_agrees_on_a_new_seed() {
    wire::run(new_seed(), packets() / SAMPLE / 2);
}

/// A failure shows what a test has printed.
fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let seed = std::env::var("LATTICE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(now);
    println!("LATTICE_SEED={seed}");
    seed
}

fn packets() -> usize {
    std::env::var("LATTICE_PACKETS").ok().and_then(|text| text.parse().ok()).unwrap_or(PACKETS)
}

fn run(seed: u64, packets: usize) {
    let own: Vec<IpAddr> = OWN.iter().map(|ip| ip.parse().expect("an address")).collect();
    let mut random = Random::new(seed);
    let mut traffic = Traffic::new(random.next());
    let mut tally = Tally::default();
    let mut left = packets;
    while left > 0 {
        traffic.forget();
        let mut pair = Pair::new(&own, seed);
        for generation in 1..=POLICIES {
            pair.apply(&mut random, generation);
            for _ in 0..BATCH.min(left) {
                pair.judge(&traffic.next(), &mut tally);
                left -= 1;
            }
        }
    }
    println!("{tally:?}");
    tally.assert_worth_it(packets);
}

/// Both enforcers, with the same policy in force.
struct Pair {
    ebpf: Harness,
    filter: Filter,
    policy: Policy,
    pins: Vec<Pin>,
    seed: u64,
    judged: usize,
}

/// What was seen, so that a generator that went astray is no success.
#[derive(Debug, Default)]
struct Tally {
    openers: usize,
    allowed: usize,
    established: usize,
    by_pin: usize,
    answered: usize,
    malformed: usize,
    fragments: usize,
}

impl Pair {
    fn new(own: &[IpAddr], seed: u64) -> Self {
        let ebpf = Harness::new(own).expect("the programs: run as root");
        let filter = Filter::new(own.to_vec());
        Self { ebpf, filter, policy: Policy::new(0), pins: Vec::new(), seed, judged: 0 }
    }

    fn apply(&mut self, random: &mut Random, generation: u32) {
        self.policy = rules::policy(random, generation);
        self.pins = rules::pins(random, now_ns());
        let table = self.policy.compile();
        // Half of the pins come with the policy, the others later.
        let (first, later) = self.pins.split_at(self.pins.len() / 2);
        self.ebpf.enforcer.apply(&table, first, generation).expect("room in the kernel");
        self.ebpf.enforcer.pin(later).expect("room in the kernel");
        self.filter.apply(&table, first, generation);
        self.filter.pin(later);
    }

    fn judge(&mut self, sent: &Sent, tally: &mut Tally) {
        let Some(frame) = framed(&sent.bytes) else { return };
        self.judged += 1;
        let decision = self.filter.judge(sent.direction, &sent.bytes, now_ns());
        let refusal = match (decision.action, sent.direction) {
            (Action::Deny, Direction::Egress) => self.filter.refusal(&sent.bytes, decision.reason),
            _ => None,
        };
        let outcome = match (decision.action, &refusal) {
            (Action::Allow, _) => Outcome::Pass,
            (Action::Deny, Some(answer)) => Outcome::Answer(framed_back(answer)),
            (Action::Deny, None) => Outcome::Drop,
        };
        // Every fifth also for the reason, which costs more to ask for than the verdict.
        let same = if self.judged.is_multiple_of(5) {
            let said = self.ebpf.judge(&frame, sent.direction).expect("a frame");
            said == (decision.action, decision.reason)
        } else {
            self.ebpf.run(&frame, sent.direction, 0).expect("a frame") == outcome
        };
        assert!(same, "{}", self.difference(sent, &frame, &format!("{decision:?} {outcome:?}")));
        if let Some(packet) = &sent.opens {
            let verdict = evaluate_pinned(&self.policy, packet, &held(&self.pins));
            let reason = match verdict.reason {
                // To enforcers, the built-in rules are rules.
                Reason::Multicast => Reason::RuleDeny,
                // Ports are random: now and then an opener repeats one that was let through, and then its flow is there.
                Reason::RuleAllow if decision.reason == Reason::Established => Reason::Established,
                reason => reason,
            };
            let same =
                (verdict.action, reason, verdict.rule) == (decision.action, decision.reason, decision.rule);
            assert!(
                same,
                "{}",
                self.difference(sent, &frame, &format!("{decision:?}, by the rules {verdict:?}"))
            );
            tally.count_opener(&self.policy, packet, verdict.action);
        }
        tally.count(decision.reason, &outcome, sent);
    }

    fn difference(&self, sent: &Sent, frame: &[u8], said: &str) -> String {
        let rules: Vec<String> = (self.policy.rules().iter())
            .map(|rule| format!("{:?} {:?} {}", rule.direction, rule.action, rule.text))
            .collect();
        format!(
            "LATTICE_SEED={} packet {} {:?} {frame:02x?}\nfilter: {said}\n{rules:#?}\n{:?}",
            self.seed, self.judged, sent.direction, self.pins
        )
    }
}

impl Tally {
    fn count_opener(&mut self, policy: &Policy, packet: &Packet, action: Action) {
        self.openers += 1;
        self.allowed += usize::from(action == Action::Allow);
        self.by_pin +=
            usize::from(action == Action::Allow && evaluate(policy, packet).action == Action::Deny);
    }

    fn count(&mut self, reason: Reason, outcome: &Outcome, sent: &Sent) {
        self.established += usize::from(reason == Reason::Established && sent.opens.is_none());
        self.answered += usize::from(matches!(outcome, Outcome::Answer(_)));
        self.malformed += usize::from(reason == Reason::Malformed);
        self.fragments += usize::from(reason == Reason::Fragment);
    }

    fn assert_worth_it(&self, packets: usize) {
        let Self { openers, allowed, established, by_pin, answered, malformed, fragments } = *self;
        for (share, count) in [
            (4, openers),
            (20, allowed),
            (20, established),
            (100, by_pin),
            (20, answered),
            (50, malformed),
            (200, fragments),
        ] {
            assert!(count >= packets / share, "too few of something: {self:?}");
        }
    }
}

fn held(pins: &[Pin]) -> Vec<Pin> {
    let now = now_ns();
    pins.iter().filter(|pin| pin.until_ns > now).cloned().collect()
}

/// In Ethernet, with the type that its first nibble claims. None for what the kernel does not run, and for neighbour
/// discovery, which only links with an Ethernet header have.
fn framed(packet: &[u8]) -> Option<Vec<u8>> {
    let v6 = match packet.first()? >> 4 {
        4 => false,
        6 => true,
        // On Ethernet it is a broken header, on a tunnel another protocol.
        _ => return None,
    };
    if packet.len() < if v6 { 40 } else { 20 } || v6 && packet[7] == 255 {
        return None;
    }
    let kind: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
    let head = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &kind].concat();
    Some([&head, packet].concat())
}

/// An answer goes back to where its cause came from.
fn framed_back(answer: &[u8]) -> Vec<u8> {
    let mut frame = framed(answer).expect("a whole packet");
    frame[..ETHERNET - 2].rotate_left(6);
    frame
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    now.as_nanos() as u64
}
