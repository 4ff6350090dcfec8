//! The compiled object: its maps, pinned, and its programs, loaded when they are needed.

use std::{panic::resume_unwind, path::Path, thread};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel, include_bytes_aligned,
    maps::{Map, MapError},
    programs::{Program, ProgramError},
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::chroot,
};

use crate::{EbpfError, memory};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/policy.bpf.o"));

const MAPS: [&str; 11] = [
    "CONFIG",
    "POLICY",
    "PORTS",
    "PINS",
    "OWN",
    "FLOWS",
    "DENIED",
    "FRAGMENTS",
    "STATS",
    "COUNTERS",
    "EVENTS",
];

/// Every map is made and pinned, or taken over from its pin.
pub(super) fn load(pins: &Path) -> Result<Ebpf, EbpfError> {
    let mut loader = loader(pins);
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for name in MAPS {
        loader.map_pin_path(name, pins.join(name));
    }
    let ebpf = loader.load(OBJECT).map_err(|e| EbpfError::Load(Box::new(e)));
    // Where a root elsewhere is refused, it holds the kernel's types.
    drop(loader);
    memory::give_back();
    ebpf
}

/// aya reads the types of the whole kernel as soon as there is a loader, needed or not: 10 to 20 ms, and 20 MiB (until 0.15,
/// which asks for Rust 1.98). Ours needs none. A thread whose root is `elsewhere` does not find them; where it may not
/// have one, they are read.
fn loader<'a>(elsewhere: &Path) -> EbpfLoader<'a> {
    let make = || {
        unshare(CloneFlags::CLONE_FS).and_then(|()| chroot(elsewhere)).ok()?;
        Some(EbpfLoader::new())
    };
    let made = thread::scope(|scope| {
        let thread = thread::Builder::new().name("loader".into()).spawn_scoped(scope, make).ok()?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    });
    made.unwrap_or_else(EbpfLoader::new)
}

pub(super) fn take<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, EbpfError> {
    let map = ebpf.take_map(name).ok_or(EbpfError::Object(name))?;
    T::try_from(map).map_err(EbpfError::map("find what the loader expects", name))
}

/// Loads those of `names` that are not loaded yet, since a sandbox whose links are all of one kind needs half of them. Each on a
/// thread of its own: the verifier takes some milliseconds for each.
pub(crate) fn load_all(ebpf: &mut Ebpf, names: &[&'static str]) -> Result<(), EbpfError> {
    thread::scope(|scope| {
        let mut loading = Vec::new();
        for (name, program) in ebpf.programs_mut() {
            let Some(&name) = names.iter().find(|&&wanted| wanted == name) else { continue };
            if program.fd().is_ok() {
                continue;
            }
            let load = move || match program {
                Program::SchedClassifier(program) => program.load(),
                Program::CgroupSockAddr(program) => program.load(),
                _ => Err(ProgramError::UnexpectedProgramType),
            };
            let thread = thread::Builder::new().name("verifier".into()).spawn_scoped(scope, load);
            loading.push((name, thread.map_err(EbpfError::Thread)?));
        }
        loading.into_iter().try_for_each(|(name, thread)| {
            let loaded = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            loaded.map_err(|e| refused(name, e))
        })
    })
}

/// The program called `name`, of one kind or another.
pub(crate) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, EbpfError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(EbpfError::Object(name))?;
    program.try_into().map_err(|e| refused(name, e))
}

pub(crate) fn refused(name: &'static str, e: ProgramError) -> EbpfError {
    EbpfError::Program { name, source: Box::new(e) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_types_are_not_read() {
        if aya::Btf::from_sys_fs().is_err() {
            return println!("SKIPPED: the kernel's types: this kernel has none");
        }
        assert!(format!("{:?}", loader(Path::new("/dev"))).contains("btf: None"));
        assert!(Path::new("/sys").exists(), "this thread's root is what it was");
    }

    /// Time is lost here at every start. Were a function inlined again, or a path of the program told apart for longer, this
    /// would be twice and more.
    #[test]
    fn the_verifier_has_little_to_walk() {
        let pins = crate::harness::Pins::mount().unwrap();
        let mut ebpf = load(&pins.dir).unwrap();
        for (name, most) in [
            ("egress_l2", 8_000),
            ("egress_l3", 8_000),
            ("ingress_l2", 7_000),
            ("ingress_l3", 7_000),
            ("connect4", 3_000),
            ("connect6", 3_000),
            ("sendmsg4", 3_000),
            ("sendmsg6", 3_000),
        ] {
            load_all(&mut ebpf, &[name]).unwrap();
            let walked = ebpf.program(name).unwrap().info().unwrap().verified_instruction_count().unwrap();
            println!("{name}: {walked} instructions");
            assert!(walked < most, "{name}: {walked} instructions, {most} are too many");
        }
    }
}
