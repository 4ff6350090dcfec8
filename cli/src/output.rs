//! What people and programs see.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::error::ErrorKind;
use lattice_bootstrap::{Failure, Kind, Progress};

/// Starts logging to stderr.
pub(crate) fn log(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|error| {
        warn(&format!("--log {filter:?} is no filter ({error}); using warn"));
        tracing_subscriber::EnvFilter::new("warn")
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // It would panic when stderr is closed.
        .log_internal_errors(false)
        .init();
}

/// Shows an error of the command line in one line; help and the version as they are.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
    } else {
        say(&one_line(&error.to_string()));
    }
    ExitCode::from(Kind::Usage.exit_code())
}

/// The reason and the hints, without the usage that `--help` shows as well.
fn one_line(text: &str) -> String {
    let told = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let told: Vec<&str> =
        told.filter(|line| !line.is_empty() && !line.starts_with("For more information")).collect();
    format!("{}; see --help", told.join(" "))
}

/// Shows why a command failed.
pub(crate) fn failure(failure: &Failure) -> ExitCode {
    say(&format!("error: {failure}"));
    ExitCode::from(failure.kind.exit_code())
}

/// Says that something may not be as it was meant.
pub(crate) fn warn(text: &str) {
    say(&format!("warning: {text}"));
}

/// Prints to stderr. Unlike with `eprintln!`, a reader that went away is no panic: an agent must not end, or be left
/// half removed, because of it.
fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints to stdout; a closed pipe is no error. It may be a server's words: they must not speak to a terminal, while a program gets
/// them as they are.
pub(crate) fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = if stdout.is_terminal() {
        writeln!(stdout, "{}", for_terminal(text))
    } else {
        writeln!(stdout, "{text}")
    };
}

fn for_terminal(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// Prints rows under their headings, each column as wide as its widest cell.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) {
    rows_under(headings, rows, true);
}

/// Prints some of the rows of a long table; `first` prints the headings.
pub(crate) fn rows_under(headings: &[&str], rows: &[Vec<String>], first: bool) {
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
        // Cells may be a server's words, or come from a file: they must not speak to the terminal.
        let plain: String = text.join("  ").chars().filter(|c| !c.is_control()).collect();
        print(plain.trim_end());
    };
    if first {
        line(headings.to_vec());
    }
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
        say(&format!("[{:6.3}s] {name:<9} {text}", self.begun.elapsed().as_secs_f64()));
    }
}

impl Progress for Phases {
    fn step(&mut self, name: &'static str, took: Duration, detail: &str) {
        self.note(name, &format!("{:>7.1} ms  {detail}", took.as_secs_f64() * 1e3));
    }

    fn warn(&mut self, text: &str) {
        warn(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_does_not_speak_to_the_terminal() {
        assert_eq!(for_terminal("lt-a\u{1b}]0;x\u{7}\r\u{9b}2J\n\tb"), "lt-a]0;x2J\n\tb");
    }

    #[test]
    fn an_error_of_the_command_line_is_one_line() {
        let text = "error: invalid value 'vm' for '--mode <MODE>'\n  [possible values: pod, gvisor]\n\n  tip: x\n\nUsage: lattice\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line(text),
            "error: invalid value 'vm' for '--mode <MODE>' [possible values: pod, gvisor] tip: x; see --help"
        );
    }
}
