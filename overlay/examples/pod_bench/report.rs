//! What was measured, as a table.

use crate::client::Kind;

/// What is to be reached against the other client; without one, a figure is only shown.
const GOALS: [(&str, Goal); 4] = [
    ("CPU-s/GiB", Goal::Less(6.0)),
    ("Gbit/s", Goal::More(5.0)),
    ("request of 64 B: p50 µs", Goal::Less(3.0)),
    ("idle flows: RSS MiB", Goal::AtMost(16.0)),
];

#[derive(Clone, Copy)]
enum Goal {
    /// So many times less.
    Less(f64),
    /// So many times more.
    More(f64),
    /// Ours, whatever the other's.
    AtMost(f64),
    None,
}

/// All figures, in the order in which they came first.
pub(crate) struct Report {
    heads: Vec<(&'static str, String)>,
    rows: Vec<(&'static str, Vec<Vec<f64>>)>,
}

impl Report {
    /// For these clients, of which the first is ours.
    pub(crate) fn new(kinds: &[Kind]) -> Self {
        Self { heads: kinds.iter().map(|kind| (kind.name(), kind.version())).collect(), rows: Vec::new() }
    }

    /// One more figure of the client `which`.
    pub(crate) fn add(&mut self, name: &'static str, which: usize, value: f64) {
        let at = self.rows.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.rows.push((name, vec![Vec::new(); self.heads.len()]));
            self.rows.len() - 1
        });
        self.rows[at].1[which].push(value);
    }

    pub(crate) fn print(&self, rounds: usize, seconds: u64) {
        for (name, version) in &self.heads {
            println!("{name}: {version}");
        }
        println!(
            "{rounds} rounds of {seconds} s; median (least to most), and the median of the rounds' ratios\n"
        );
        let names: Vec<&str> = self.heads.iter().map(|(name, _)| *name).collect();
        println!("| | {} | ratio | goal |\n|---{}|---|---|", names.join(" | "), "|---".repeat(names.len()));
        for (name, values) in &self.rows {
            let cells: Vec<String> = values.iter().map(|of_one| cell(of_one)).collect();
            let goal =
                GOALS.iter().find(|(ending, _)| name.ends_with(ending)).map_or(Goal::None, |(_, goal)| *goal);
            let (ratio, verdict) = goal.judge(values);
            println!("| {name} | {} | {ratio} | {verdict} |", cells.join(" | "));
        }
    }
}

impl Goal {
    /// The ratio, which is more than 1 where ours is better, and whether the goal is reached.
    fn judge(self, values: &[Vec<f64>]) -> (String, String) {
        let more = matches!(self, Self::More(_));
        let ratios: Option<Vec<f64>> = values.get(1).map(|others| {
            let pairs = values[0].iter().zip(others);
            pairs.map(|(ours, other)| if more { ours / other } else { other / ours }).collect()
        });
        let ratio = ratios.map(|ratios| median(&ratios));
        let said =
            |reached: bool, goal: String| format!("{goal}: {}", if reached { "reached" } else { "missed" });
        let verdict = match (self, ratio) {
            (Self::Less(least), Some(ratio)) => said(ratio >= least, format!("≥ {least} × less")),
            (Self::More(least), Some(ratio)) => said(ratio >= least, format!("≥ {least} × more")),
            (Self::AtMost(most), _) => said(median(&values[0]) <= most, format!("≤ {most}")),
            _ => String::new(),
        };
        (ratio.map_or_else(String::new, |ratio| format!("{ratio:.1}")), verdict)
    }
}

fn cell(values: &[f64]) -> String {
    let digits = if median(values) < 20.0 { 2 } else { 0 };
    let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    match values.len() {
        1 => format!("{least:.digits$}"),
        _ => format!("{:.digits$} ({least:.digits$} to {most:.digits$})", median(values)),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}
