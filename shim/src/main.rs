//! `containerd-shim-lattice-v1`.

use std::{
    env,
    error::Error,
    io::{self, IsTerminal as _, Read as _, Write as _},
    process::ExitCode,
};

use lattice_shim::{
    bundle::Bundle,
    cli::{Action, Flags},
    delete, info,
    launch::{self, Surroundings},
    serve, socket,
};

/// containerd's options are a few hundred bytes.
const MAX_INPUT: u64 = 4 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With `start` containerd shows this as the reason.
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse(env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()))?;
    let ttrpc_address = env::var("TTRPC_ADDRESS").ok().filter(|address| !address.is_empty());
    match flags.action {
        Action::Version => answer(info::version().as_bytes()),
        Action::Info => answer(&info::info()?),
        Action::Delete => {
            let reply = delete::run(&flags, bundle(&flags)?, |warning| eprintln!("{warning}"))?;
            answer(&reply)
        }
        Action::Start => {
            let socket_dir =
                env::var_os("LATTICE_SHIM_SOCKET_DIR").map_or(socket::DEFAULT_DIR.into(), Into::into);
            let around = Surroundings { bundle: bundle(&flags)?, input: input()?, ttrpc_address, socket_dir };
            answer(&launch::start(&flags, &around)?)
        }
        Action::Serve => Ok(serve::run(&flags, ttrpc_address.as_deref())?),
    }
}

fn bundle(flags: &Flags) -> io::Result<Bundle> {
    let current = env::current_dir()?;
    Ok(Bundle::at(flags.bundle.as_ref().map_or(current.clone(), |bundle| current.join(bundle))))
}

/// What containerd wrote: nothing when a person runs this at a terminal, or when standard input is closed.
fn input() -> io::Result<Vec<u8>> {
    let (mut input, stdin) = (Vec::new(), io::stdin());
    if !stdin.is_terminal() {
        stdin.lock().take(MAX_INPUT).read_to_end(&mut input)?;
    }
    Ok(input)
}

fn answer(bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut stdout = io::stdout();
    Ok(stdout.write_all(bytes).and_then(|()| stdout.flush())?)
}
