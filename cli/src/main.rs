//! `lattice`: runs agents in policed sandboxes, joins hosts to the overlay, and administers the control plane.
//!
//! Results go to stdout, progress and errors to stderr, an agent's own output through untouched. Exit codes are listed in `docs/cli.md`.

#![forbid(unsafe_code)]

mod admin;
mod admin_token;
mod args;
mod audit;
mod doctor;
mod event;
mod icmp;
mod login;
mod output;
mod peer;
mod peers;
mod ping;
mod places;
mod policy;
mod privilege;
mod rules;
mod run;
mod runtime;
mod sandbox;
mod shim;
mod signals;
mod start;
mod status;
mod token;
mod up;
mod workspace;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command, SandboxCommand, StartCommand};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return output::usage(&error),
    };
    output::log(&args.global.log);
    keep_keys_out_of_core_dumps();
    let result = match args.command {
        Command::Sandbox(SandboxCommand::Start(start)) => sandbox::start(&args.global, *start),
        Command::Sandbox(SandboxCommand::Run(run)) => run::run(&args.global, &run),
        Command::Sandbox(SandboxCommand::Inside(inside)) => run::inside::run(&inside),
        Command::Sandbox(SandboxCommand::Rules { name, output }) => rules::run(&args.global, &name, output),
        Command::Start(StartCommand::Relay(args)) => start::relay::run(*args),
        Command::Start(StartCommand::Turn(args)) => start::turn::run(args),
        Command::Up(up) => up::run(&args.global, up),
        Command::Login(args) => login::login(&args),
        Command::Logout(admin) => login::logout(&admin),
        Command::Whoami(admin) => login::whoami(&admin),
        Command::AdminToken(command) => admin_token::run(command),
        Command::Workspace(command) => workspace::run(command),
        Command::Token(command) => token::run(command),
        Command::Peer(command) => peer::run(command),
        Command::Policy(command) => policy::run(command),
        Command::Event(command) => event::run(command),
        Command::Status(command) => status::run(&args.global, &command),
        Command::Ping(command) => ping::run(&args.global, &command),
        Command::Audit(command) => audit::run(&args.global, &command),
        Command::Doctor(command) => doctor::run(&args.global, &command),
        Command::Shim(command) => shim::run(&command),
    };
    result.unwrap_or_else(|failure| output::failure(&failure))
}

/// Leaves out every mapping (core(5)), here and, since they inherit it, in what runs the agent. Other than
/// `PR_SET_DUMPABLE` this costs no capability: runsc must still be able to open our descriptor of the agent's namespace.
fn keep_keys_out_of_core_dumps() {
    if let Err(error) = std::fs::write("/proc/self/coredump_filter", "0") {
        tracing::debug!(%error, "core dumps may hold keys");
    }
}
