//! What the demonstration prints: commands, their output, and one table at the end.

use std::{process::ExitCode, time::Instant};

use lattice_tests::Attempt;

/// Rows of the end table, and how the demonstration went so far.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<[String; 4]>,
    failed: usize,
}

impl Report {
    /// Begins a part.
    pub(crate) fn chapter(&self, title: &str) {
        println!("\n== {title}\n");
    }

    /// Shows a command that runs on `host`.
    pub(crate) fn command(&self, host: &str, command: &str) {
        println!("  {host}$ {command}");
    }

    /// Shows a command's output.
    pub(crate) fn block(&self, text: &str) {
        for line in text.lines() {
            println!("      {line}");
        }
    }

    /// Shows what was done and how long it took.
    pub(crate) fn done(&self, what: &str, begun: Instant) {
        println!("      -> {what}, {:.3} s\n", begun.elapsed().as_secs_f64());
    }

    /// Adds what the agent tried to the table.
    pub(crate) fn attempt(&mut self, verdict: &str, what: &str, attempt: &Attempt, good: bool) {
        let detail = attempt.detail.as_str().map_or_else(|| attempt.detail.to_string(), str::to_owned);
        let seen = if attempt.result == "ok" { detail } else { attempt.result.clone() };
        self.row(
            &format!("{verdict} {what}"),
            &attempt.probe,
            &format!("{seen} in {:.1} ms", attempt.ms),
            good,
        );
    }

    /// Adds anything else to the table.
    pub(crate) fn check(&mut self, what: &str, how: &str, good: bool, otherwise: &str) {
        self.row(what, how, if good { "yes" } else { otherwise }, good);
    }

    fn row(&mut self, what: &str, how: &str, seen: &str, good: bool) {
        self.failed += usize::from(!good);
        let mark = if good { "ok" } else { "FAILED" };
        self.rows.push([mark.into(), what.into(), how.into(), seen.into()]);
    }

    /// Prints the table; fails when a row did.
    pub(crate) fn print(&self) -> ExitCode {
        println!("\n== What the agent could and could not do\n");
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3)];
        for row in &self.rows {
            let cells: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            println!("  {}", cells.join("  ").trim_end());
        }
        match self.failed {
            0 => {
                println!("\nAll {} as they should be.", self.rows.len());
                ExitCode::SUCCESS
            }
            failed => {
                println!("\n{failed} of {} are not as they should be.", self.rows.len());
                ExitCode::FAILURE
            }
        }
    }
}
