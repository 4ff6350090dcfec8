//! The table.

use crate::Shape;

/// What one number of peers costs.
pub struct Row {
    pub size: usize,
    /// A second.
    pub enrolled: f64,
    /// Bytes of latticed's resident memory for each peer.
    pub memory: u64,
    /// A second.
    pub heartbeats: f64,
    /// Seconds of latticed's processor time.
    pub cpu_per_heartbeat: f64,
    /// Requests a second that somebody answers without a thought.
    pub echo: f64,
    /// Seconds of latticed's processor time for each peer that joins, until all are told.
    pub cpu_per_join: f64,
    /// Pushes for each peer that joins.
    pub told_per_join: f64,
    /// Milliseconds from a change to each peer.
    pub pushes: Vec<f64>,
    /// The same for messages of that size without latticed.
    pub raw: Vec<f64>,
}

pub struct Table {
    store: &'static str,
    shape: Shape,
    rows: Vec<Row>,
}

impl Table {
    pub fn new(store: &'static str, shape: Shape) -> Self {
        Self { store, shape, rows: Vec::new() }
    }

    pub fn row(&mut self, row: Row) {
        eprintln!("{} peers done", row.size);
        self.rows.push(row);
    }

    pub fn print(&self) {
        println!(
            "| {} {} | enrolments/s | heartbeats/s | (echo/s) | CPU of 100k peers | CPU of one more | pushes of it | push p50 | p99 | (raw p99) | bytes/peer |",
            self.store,
            if self.shape == Shape::Mesh { "peers" } else { "sandboxed" },
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|");
        for row in &self.rows {
            // One heartbeat every 30 s.
            let core = row.cpu_per_heartbeat * 100_000.0 / 30.0 * 100.0;
            println!(
                "| {} | {:.0} | {:.0} | {:.0} | {core:.0} % of a core | {:.1} ms | {:.0} | {:.1} ms | {:.1} ms | {:.1} ms | {} |",
                row.size,
                row.enrolled,
                row.heartbeats,
                row.echo,
                row.cpu_per_join * 1e3,
                row.told_per_join,
                quantile(&row.pushes, 0.5),
                quantile(&row.pushes, 0.99),
                quantile(&row.raw, 0.99),
                row.memory,
            );
        }
    }
}

fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 * q) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
