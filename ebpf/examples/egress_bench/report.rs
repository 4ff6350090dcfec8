//! Medians of per-round ratios, as a table.

use std::time::Duration;

use crate::{filter::Kind, lab::Lab, measure::Refusals};

/// What was measured of one pair of namespaces, a value a round.
pub(crate) struct Row {
    kind: Kind,
    rules: usize,
    pub(crate) tcp: Vec<f64>,
    pub(crate) udp: Vec<f64>,
    pub(crate) udp_one_way: Vec<f64>,
    pub(crate) flows: Vec<f64>,
    pub(crate) refused_tcp: Refusals,
    pub(crate) refused_udp: Refusals,
    pub(crate) switch: Vec<Duration>,
    /// Of the policy program, in nanoseconds a packet.
    pub(crate) program: Vec<f64>,
}

/// The first row is the baseline.
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
}

type Rate = fn(&Row) -> &Vec<f64>;
const RATES: [Rate; 4] = [|row| &row.tcp, |row| &row.udp, |row| &row.udp_one_way, |row| &row.flows];

impl Results {
    pub(crate) fn new(labs: &[Lab]) -> Self {
        let row = |lab: &Lab| Row {
            kind: lab.kind,
            rules: lab.rules,
            tcp: vec![],
            udp: vec![],
            udp_one_way: vec![],
            flows: vec![],
            refused_tcp: Refusals::default(),
            refused_udp: Refusals::default(),
            switch: vec![],
            program: vec![],
        };
        Self { rows: labs.iter().map(row).collect() }
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rows[0].tcp.len()
    }

    pub(crate) fn print(&self, took: Duration) {
        println!(
            "{} rounds in {:.0} s; rates are medians of per-round ratios to the first row\n",
            self.rounds(),
            took.as_secs_f64()
        );
        println!(
            "| enforcer | rules | TCP stream | UDP | UDP, one way | new flows | connect() refused p50 / p99 | send() refused p50 / p99 | switch |\n|---|---|---|---|---|---|---|---|---|"
        );
        let baseline = &self.rows[0];
        let absolute = [
            format!("{:.1} Gbit/s", median(&baseline.tcp) / 1e9),
            format!("{:.0} k/s", median(&baseline.udp) / 1e3),
            format!("{:.0} k/s", median(&baseline.udp_one_way) / 1e3),
            format!("{:.0} k/s", median(&baseline.flows) / 1e3),
        ];
        println!(
            "| {} | – | {} | {} | {} | – |",
            baseline.kind,
            absolute.join(" | "),
            baseline.refused_tcp.shown(),
            baseline.refused_udp.shown()
        );
        for row in &self.rows[1..] {
            let rates = RATES.map(|rate| percent(median(&ratios(rate(row), rate(baseline)))));
            let switch: Vec<f64> = row.switch.iter().map(|time| time.as_secs_f64() * 1e3).collect();
            println!(
                "| {} | {} | {} | {} | {} | {:.0} ms |",
                row.kind,
                row.rules,
                rates.join(" | "),
                row.refused_tcp.shown(),
                row.refused_udp.shown(),
                median(&switch)
            );
        }
        self.compare();
    }

    /// The most rules by eBPF, by the factor to the other lists and sets of as many.
    fn compare(&self) {
        let most = |kind| self.rows.iter().filter(move |row| row.kind == kind).max_by_key(|row| row.rules);
        let Some(ebpf) = most(Kind::Ebpf) else { return };
        println!();
        for row in self.rows.iter().filter(|row| !row.program.is_empty()) {
            println!(
                "eBPF, {} rules: {:.0} ns in the program for each datagram of an allowed flow",
                row.rules,
                median(&row.program)
            );
        }
        for other in [Kind::NftSet, Kind::NftList, Kind::IptablesNft, Kind::IptablesLegacy]
            .into_iter()
            .filter_map(most)
        {
            let [_, udp, one_way, flows] = RATES.map(|rate| median(&ratios(rate(ebpf), rate(other))));
            println!(
                "eBPF to {} at {} rules: UDP {udp:.1}x, UDP one way {one_way:.1}x, new flows {flows:.1}x",
                other.kind, other.rules
            );
        }
    }
}

impl Refusals {
    fn shown(&self) -> String {
        let mut times: Vec<f64> = self.times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        let errors: Vec<&str> = self.errors.iter().copied().collect();
        format!("{:.0} / {:.0} µs {}", at(0.5), at(0.99), errors.join(", "))
    }
}

fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

fn percent(ratio: f64) -> String {
    if ratio < 0.095 { format!("{:.1} %", ratio * 100.0) } else { format!("{:.0} %", ratio * 100.0) }
}
