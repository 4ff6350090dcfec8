//! The compiled object: its maps, pinned, and its programs, loaded when they are needed.

use std::{panic::resume_unwind, path::Path, thread};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel, include_bytes_aligned,
    maps::{Map, MapError},
    programs::{Program, ProgramError},
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
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for name in MAPS {
        loader.map_pin_path(name, pins.join(name));
    }
    let ebpf = loader.load(OBJECT).map_err(|e| EbpfError::Load(Box::new(e)));
    // The loader has read the types of the whole kernel, needed or not: 20 MiB.
    drop(loader);
    memory::give_back();
    ebpf
}

pub(super) fn take<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, EbpfError> {
    let map = ebpf.take_map(name).ok_or(EbpfError::Object(name))?;
    T::try_from(map).map_err(EbpfError::map("find what the loader expects", name))
}

/// Loads those of `names` that are not loaded yet, since a sandbox whose links are all of one kind needs half of them: each on a thread of its own: the verifier takes up to 30 ms for each.
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
