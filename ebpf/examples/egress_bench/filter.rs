//! The same policy as text for each enforcer, and putting it in force.

use std::{
    fmt,
    fmt::Write as _,
    net::Ipv4Addr,
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use lattice_ebpf::{AttachMode, Enforcer, Events, Options, bpffs};
use lattice_policy::{Action, Policy, Table, parse_rule};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    Result,
    lab::{AGENT, Netns, scratch},
};

const ALLOWED_NET: &str = "10.99.0.0/16";
const NFT: &[&str] = &["-f", "-"];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    Ebpf,
    /// With a reader that takes each verdict at once.
    EbpfEager,
    NftSet,
    NftList,
    IptablesNft,
    IptablesLegacy,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Ebpf => "eBPF",
            Self::EbpfEager => "eBPF, eager reader",
            Self::NftSet => "nftables set",
            Self::NftList => "nftables list",
            Self::IptablesNft => "iptables (nf_tables)",
            Self::IptablesLegacy => "iptables (legacy)",
        })
    }
}

pub(crate) enum Filter {
    None,
    Ebpf { enforcer: Box<Enforcer>, rules: Vec<String>, generation: u32 },
    Ruleset { program: &'static str, arguments: &'static [&'static str], text: String },
}

impl Filter {
    /// In force in `agent`.
    pub(crate) fn new(kind: Kind, rules: usize, agent: &Netns) -> Result<Self> {
        let nets = nets(rules);
        let mut filter = match kind {
            Kind::None => Self::None,
            Kind::Ebpf | Kind::EbpfEager => {
                let enforcer = Box::new(attached(kind, rules, agent)?);
                Self::Ebpf { enforcer, rules: nets, generation: 0 }
            }
            Kind::NftSet => Self::Ruleset { program: "nft", arguments: NFT, text: nft_set(&nets) },
            Kind::NftList => Self::Ruleset { program: "nft", arguments: NFT, text: nft_list(&nets) },
            Kind::IptablesNft => Self::iptables("iptables-nft-restore", &nets),
            Kind::IptablesLegacy => Self::iptables("iptables-legacy-restore", &nets),
        };
        filter.switch(agent)?;
        Ok(filter)
    }

    /// Puts the policy in force as a whole, from text.
    pub(crate) fn switch(&mut self, agent: &Netns) -> Result<Option<Duration>> {
        let started = Instant::now();
        match self {
            Self::None => return Ok(None),
            Self::Ebpf { enforcer, rules, generation } => {
                *generation += 1;
                apply(enforcer, &compile(rules)?, *generation)?;
            }
            Self::Ruleset { program, arguments, text } => {
                agent.command(program, arguments.iter().copied(), text)?;
            }
        }
        Ok(Some(started.elapsed()))
    }

    fn iptables(program: &'static str, nets: &[String]) -> Self {
        Self::Ruleset { program, arguments: &[], text: iptables(nets) }
    }
}

fn compile(rules: &[String]) -> Result<Table> {
    let allow = |policy: Policy, rule: &String| Ok(policy.egress(Action::Allow, parse_rule(rule)?));
    rules.iter().try_fold(Policy::new(1), allow).map(|policy| policy.compile())
}

fn apply(enforcer: &mut Enforcer, table: &Table, generation: u32) -> Result<()> {
    Ok(enforcer.apply(table, &[], generation)?)
}

/// With a reader of its verdicts, as a sandbox has one.
fn attached(kind: Kind, rules: usize, agent: &Netns) -> Result<Enforcer> {
    let pin_dir = scratch(&format!("pins-{}-{rules}", kind == Kind::EbpfEager));
    bpffs::mount(&pin_dir)?;
    let options = Options { pin_dir, own: vec![AGENT.into()], attach: AttachMode::Auto };
    let mut enforcer = Enforcer::load(&options)?;
    let events = enforcer.events()?;
    agent.run(|| enforcer.attach("link0", &[]))?;
    let linger = if kind == Kind::Ebpf { Events::LINGER } else { Duration::ZERO };
    thread::spawn(move || read(events, linger));
    Ok(enforcer)
}

fn read(mut events: Events, linger: Duration) {
    while poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).is_ok() {
        thread::sleep(linger);
        while events.drain(&mut |flow| {
            std::hint::black_box(flow);
        }) > 0
        {}
    }
}

/// As many networks as `rules`, no two of which touch; the one that the measures use comes last.
fn nets(rules: usize) -> Vec<String> {
    let other = |i: usize| format!("{}/24", Ipv4Addr::from_bits(0x0a80_0000 + (i as u32) * 512));
    (1..rules).map(other).chain([ALLOWED_NET.to_owned()]).collect()
}

fn nft_set(nets: &[String]) -> String {
    let set =
        format!("set allowed {{ type ipv4_addr; flags interval; elements = {{ {} }}; }}", nets.join(", "));
    nft(&set, "ip daddr @allowed accept")
}

fn nft_list(nets: &[String]) -> String {
    let rules: Vec<String> = nets.iter().map(|net| format!("ip daddr {net} accept")).collect();
    nft("", &rules.join("\n"))
}

fn nft(set: &str, rules: &str) -> String {
    format!(
        "table inet bench
        delete table inet bench
        table inet bench {{
            {set}
            chain in {{
                type filter hook input priority 0; policy drop;
                iifname lo accept
                ct state established,related accept
            }}
            chain out {{
                type filter hook output priority 0; policy drop;
                oifname lo accept
                ct state established,related accept
                {rules}
                meta l4proto tcp reject with tcp reset
                reject with icmpx type admin-prohibited
            }}
        }}"
    )
}

fn iptables(nets: &[String]) -> String {
    let mut text = String::from(
        "*filter\n:INPUT DROP\n:FORWARD DROP\n:OUTPUT DROP\n\
         -A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
         -A OUTPUT -o lo -j ACCEPT\n-A OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n",
    );
    for net in nets {
        let _ = writeln!(text, "-A OUTPUT -d {net} -j ACCEPT");
    }
    text.push_str(
        "-A OUTPUT -p tcp -j REJECT --reject-with tcp-reset\n-A OUTPUT -j REJECT --reject-with icmp-admin-prohibited\nCOMMIT\n",
    );
    text
}
