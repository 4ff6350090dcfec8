//! The helper: makes namespaces and in them a network for the command, hides from it what is not its own, and runs it.
//!
//! With namespaces it is two processes. The first only waits, as whoever makes a PID namespace is no member of it; the second is process 1 of it,
//! so that everything in it ends with that one. Without, it is one process, which adopts what the command leaves behind.

use std::{
    env,
    ffi::OsString,
    fs, io,
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lattice_bootstrap::{
    Failure, Kind,
    failure::chain,
    handed::{INSIDE_LINK, RESOLVER_PORT},
};
use lattice_overlay::{
    LinkError, Netns, link, open_link,
    userns::{
        self, Forked, KnownAs, confine,
        hide::{Found, View},
        rights, sockets,
    },
};
use nix::{
    sys::{
        prctl::{set_child_subreaper, set_dumpable, set_pdeathsig},
        signal::{SigSet, Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, getegid},
};

use super::{
    channel::{Answer, Channel, Order, Start},
    gvisor::{self, Bundle, Runsc},
    letters::Delivery,
    supervise::{self, Ended},
};
use crate::args::Inside;

/// Where the command asks for names, as its resolv.conf says.
const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, RESOLVER_PORT);
/// How many user namespaces there may be below the caller's (`namespaces(7)`).
const NESTED: &str = "/proc/sys/user/max_user_namespaces";
/// Exit codes of what other programs run, as env(1) and shells have them.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
const RESOLV_CONF: &str = "nameserver 127.0.0.1\nsearch lattice\noptions attempts:1 timeout:2\n";

/// `lattice sandbox inside`, for `lattice sandbox run` only.
pub(crate) fn run(args: &Inside) -> Result<ExitCode, Failure> {
    let channel = rights::inherited(args.channel).map(Channel::new).map_err(|error| {
        Failure::new(
            Kind::Usage,
            format!("this is a part of `lattice sandbox run`, not to be used alone: {error}"),
        )
    })?;
    // What the user types at the terminal is for the command; what the command is to be told comes by the channel.
    SigSet::all().thread_block().map_err(of_kernel)?;
    if !args.namespaces {
        set_child_subreaper(true).map_err(of_kernel)?;
        let ended = serve(&channel, args, Place::Host, None);
        supervise::end_the_rest();
        return Ok(code(ended?));
    }
    set_pdeathsig(Signal::SIGKILL).map_err(of_kernel)?;
    let known_as = if args.runsc.is_some() { KnownAs::Root } else { KnownAs::Itself };
    match userns::enter(known_as)
        .map_err(|error| chain(&error))
        .and_then(|()| userns::fork().map_err(|e| e.to_string()))
    {
        Err(reason) => {
            let _ = channel.send(&Answer::Refused(reason), &[]);
            Ok(ExitCode::FAILURE)
        }
        Ok(Forked::Parent(first)) => {
            drop(channel);
            wait_for(first)
        }
        Ok(Forked::Child) => first_process(&channel, args),
    }
}

/// The process that only waits.
fn wait_for(first: Pid) -> Result<ExitCode, Failure> {
    set_dumpable(false).map_err(of_kernel)?;
    confine::drop_privileges().map_err(of_kernel)?;
    loop {
        match waitpid(first, None).map_err(of_kernel)? {
            WaitStatus::Exited(_, code) => return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))),
            WaitStatus::Signaled(_, signal, _) => return Ok(code(Ended::Code(supervise::of_signal(signal)))),
            _ => {}
        }
    }
}

/// Process 1 of its namespace. When it returns, all others in there are killed.
fn first_process(channel: &Channel, args: &Inside) -> Result<ExitCode, Failure> {
    // The first of the two dies with whoever started it; should it have died already, the channel is closed as well.
    set_pdeathsig(Signal::SIGKILL).map_err(of_kernel)?;
    // The command has our user: it must not trace what has its channel (ptrace(2)).
    set_dumpable(false).map_err(of_kernel)?;
    let made = network().and_then(|made| {
        // It is mounted anew below; here only to find out whether it can be.
        userns::hide::proc_of_own().map_err(|error| chain(&error))?;
        View::is_possible().map_err(|error| chain(&error))?;
        Ok((made, args.runsc.as_deref().map(Runsc::open).transpose()?))
    });
    let runsc = match made {
        Ok((made, runsc)) => {
            channel.send(&Answer::Prepared, &made).map_err(of_kernel)?;
            runsc
        }
        Err(reason) => {
            let _ = channel.send(&Answer::Refused(reason), &[]);
            return Ok(ExitCode::FAILURE);
        }
    };
    serve(channel, args, Place::Namespaces, runsc.as_ref()).map(code)
}

/// The link, and the resolver's sockets for UDP and TCP. Without copies here, the link goes when the other end lets go of it.
fn network() -> Result<[OwnedFd; 3], String> {
    let here = Netns::current().map_err(|error| error.to_string())?;
    link::set_up(&here, "lo").map_err(|error| chain(&error))?;
    let link = open_link(INSIDE_LINK).map_err(|error| chain(&error))?;
    let bind = || Ok((UdpSocket::bind(RESOLVER)?, TcpListener::bind(RESOLVER)?));
    let (udp, tcp) =
        bind().map_err(|error: io::Error| format!("cannot open the resolver's sockets: {error}"))?;
    // Whoever may not do this has no ping, and nothing else is amiss.
    let group = getegid();
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", format!("{group} {group}"));
    Ok([link, udp.into(), tcp.into()])
}

/// All routes lead to the link, not only the overlay's: a packet that has a route meets the policy, is refused with an answer and is recorded.
fn configure(addresses: &[IpAddr], mtu: u16) -> Result<(), LinkError> {
    let here = Netns::current().map_err(LinkError::Namespace)?;
    for address in addresses {
        link::add_address(&here, INSIDE_LINK, IpNet::from(*address))?;
    }
    link::set_mtu(&here, INSIDE_LINK, mtu)?;
    link::set_up(&here, INSIDE_LINK)?;
    for address in addresses {
        let all = match address {
            IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
        };
        link::add_route(&here, all, INSIDE_LINK, Some(*address))?;
    }
    Ok(())
}

/// Has packets to and from 127.0.0.1 go by the link, and keeps `ports` for those who ask for them.
fn lead_to_loopback(ports: &[u16]) -> Result<(), String> {
    if ports.is_empty() {
        return Ok(());
    }
    let set = |name: String, value: &str| {
        fs::write(&name, value).map_err(|error| format!("cannot set {name} to {value}: {error}"))
    };
    set(format!("/proc/sys/net/ipv4/conf/{INSIDE_LINK}/route_localnet"), "1")?;
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    set("/proc/sys/net/ipv4/ip_local_reserved_ports".into(), &ports.join(","))
}

/// Where the command runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Host,
    Namespaces,
}

/// Does what it is told, until the command or the channel has ended.
fn serve(channel: &Channel, args: &Inside, place: Place, runsc: Option<&Runsc>) -> Result<Ended, Failure> {
    loop {
        let answer = match channel.receive().map_err(of_kernel)? {
            None => return Ok(Ended::Alone),
            Some((Order::Signal(_), _)) => continue,
            Some((Order::Link { addresses, mtu, loopback }, _)) => {
                let done = configure(&addresses, mtu).map_err(|error| chain(&error));
                let done = done.and_then(|()| lead_to_loopback(&loopback));
                done.map_or_else(Answer::Failed, |()| Answer::Done)
            }
            Some((Order::Start(start), _)) => match begin(args, start, place, runsc) {
                Ok(command) => {
                    channel.send(&Answer::Done, &[]).map_err(of_kernel)?;
                    let deliver = |pid, signal| match runsc {
                        Some(runsc) if signal != Signal::SIGKILL => {
                            gvisor::signal(&runsc.path(), signal).map(Delivery::By)
                        }
                        _ => {
                            // Only of one that has ended the kernel knows nothing.
                            let _ = kill(pid, signal);
                            Ok(Delivery::Done)
                        }
                    };
                    let ended = supervise::until_the_end(&command, channel, &deliver).map_err(of_kernel)?;
                    if let Ended::Code(code) = ended {
                        // Nobody may be there any more to hear it.
                        let _ = channel.send(&Answer::Ended(code), &[]);
                    }
                    return Ok(ended);
                }
                Err(answer) => answer,
            },
        };
        channel.send(&answer, &[]).map_err(of_kernel)?;
    }
}

fn begin(args: &Inside, start: Start, place: Place, runsc: Option<&Runsc>) -> Result<Child, Answer> {
    let (program, arguments) =
        args.command.split_first().ok_or_else(|| Answer::Failed("there is no command".into()))?;
    let not_run = |error: io::Error| {
        let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
        Answer::NotRun(format!("cannot run {}: {error}", Path::new(program).display()), code)
    };
    let mut process = Command::new(program);
    process.args(arguments);
    if place == Place::Namespaces {
        let paths = |all: Vec<OsString>| all.into_iter().map(PathBuf::from).collect::<Vec<_>>();
        let kept = env::current_dir()
            .map_err(|error| Answer::Failed(format!("cannot tell the working directory: {error}")))?;
        let hidden = paths(start.hidden);
        let found = start.writable.into_iter().map(|(path, id)| Found { path: path.into(), id });
        let writable = found.collect();
        let view = View { hidden, writable, kept, resolv_conf: RESOLV_CONF.into() };
        show(&view).map_err(Answer::Failed)?;
        if let Some(runsc) = runsc {
            gvisor::is_there(program).map_err(not_run)?;
            let View { writable, kept, .. } = &view;
            let bundle =
                Bundle { command: &args.command, environment: &start.environment, writable, cwd: kept };
            process = bundle
                .prepare(&runsc.path())
                .map_err(|error| Answer::Failed(format!("cannot prepare gVisor: {error}")))?;
        } else {
            shut_in().map_err(Answer::Failed)?;
        }
    }
    confine::keep_only_standard_streams()
        .map_err(|error| Answer::Failed(format!("cannot close descriptors: {error}")))?;
    confine::hear_all_signals(process.envs(start.environment));
    let process = process.spawn().map_err(not_run)?;
    if runsc.is_some() {
        // What it started has what it needs; here nothing more is done.
        confine::drop_privileges()
            .map_err(|error| Answer::Failed(format!("cannot drop capabilities: {error}")))?;
    }
    Ok(process)
}

/// What the command sees from now on: neither keys nor records.
fn show(view: &View) -> Result<(), String> {
    view.show().map_err(|error| chain(&error))?;
    // By its path: through what was mounted, not below it.
    let here = &view.kept;
    env::set_current_dir(here).map_err(|error| format!("cannot enter {}: {error}", here.display()))
}

/// For good: what is started from now on has no right.
fn shut_in() -> Result<(), String> {
    // In one of its own it could uncover what is hidden, by the hidden thing's own directory (`umount2(2)` with MNT_DETACH, `unlink(2)`).
    fs::write(NESTED, "0").map_err(|error| format!("cannot forbid further user namespaces: {error}"))?;
    confine::drop_privileges().map_err(|error| format!("cannot drop capabilities: {error}"))?;
    sockets::refuse_ways_around().map_err(|error| format!("cannot filter system calls (seccomp): {error}"))
}

fn code(ended: Ended) -> ExitCode {
    match ended {
        Ended::Code(code) => ExitCode::from(code),
        Ended::Alone => ExitCode::from(supervise::of_signal(Signal::SIGKILL)),
    }
}

fn of_kernel(error: impl std::fmt::Display) -> Failure {
    Failure::new(Kind::Kernel, format!("the command's helper: {error}"))
}
