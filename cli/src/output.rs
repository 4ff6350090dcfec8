//! What people and programs see.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use lattice_bootstrap::{Failure, Kind, Progress};

/// Starts logging to stderr.
pub(crate) fn log(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|error| {
        eprintln!("warning: --log {filter:?} is no filter ({error}); using warn");
        tracing_subscriber::EnvFilter::new("warn")
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// Shows an error of the command line, help or the version.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(Kind::Usage.exit_code()) } else { ExitCode::SUCCESS }
}

/// Shows why a command failed.
pub(crate) fn failure(failure: &Failure) -> ExitCode {
    eprintln!("error: {failure}");
    ExitCode::from(failure.kind.exit_code())
}

/// Prints to stdout; a closed pipe is no error.
pub(crate) fn print(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Prints rows under their headings, each column as wide as its widest cell.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain([headings[column].len()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let text: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        print(text.join("  ").trim_end());
    };
    line(headings.to_vec());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
}

/// Prints each finished step with the time since the start and its own.
pub(crate) struct Phases {
    begun: Instant,
}

impl Phases {
    pub(crate) fn start() -> Self {
        Self { begun: Instant::now() }
    }

    /// A line beside those of the steps.
    pub(crate) fn note(&self, name: &str, text: &str) {
        eprintln!("[{:6.3}s] {name:<9} {text}", self.begun.elapsed().as_secs_f64());
    }
}

impl Progress for Phases {
    fn step(&mut self, name: &'static str, took: Duration, detail: &str) {
        self.note(name, &format!("{:>7.1} ms  {detail}", took.as_secs_f64() * 1e3));
    }
}
