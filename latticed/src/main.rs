//! `latticed`, the Lattice control plane: admits peers to workspaces, leases their overlay addresses, and tells each one
//! its network map.
//!
//! A removed peer is out of every map at once, its sessions end where the maps are applied, and NATS closes its connection
//! and refuses it from then on.
//!
//! `http` and `service` are the two doors (administrators, and peers over NATS), `store` is what is remembered, `nats` the server and
//! its trust, `maps` and `presence` what happens without being asked.

#![allow(unreachable_pub)] // nothing is outside a binary: `pub` says "for the other modules"

mod admin_token;
mod app;
mod args;
mod backup;
mod clock;
mod data_dir;
mod failure;
mod http;
mod keys;
mod limit;
mod maps;
mod metrics;
mod nats;
mod pool;
mod presence;
mod reach;
mod reconcile;
mod revocation;
mod run;
mod selected;
mod service;
mod store;
mod tls;

use std::{
    io::{IsTerminal as _, stderr},
    process::ExitCode,
};

use clap::Parser as _;
use nix::sys::stat::{Mode, umask};
use tracing_subscriber::EnvFilter;

use crate::{args::Args, failure::Failure};

fn main() -> ExitCode {
    match start(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("latticed: {failure}");
            failure.exit_code()
        }
    }
}

fn start(mut args: Args) -> Result<(), Failure> {
    // SQLite and nats-server make files of their own in the data directory.
    umask(Mode::from_bits_truncate(0o077));
    let filter = EnvFilter::builder()
        .parse(&args.log)
        .map_err(|source| Failure::Log { filter: args.log.clone(), source })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .init();
    // One thread, and it is the main one: nats-server dies with the thread that started it (see `nats::pdeathsig`).
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System { action: "start the runtime", source })?
        .block_on(async {
            match args.command.take() {
                Some(command) => run::command(args, command).await,
                None => run::run(args).await,
            }
        })
}
