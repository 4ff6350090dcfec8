//! The compiled object: its maps, pinned, and its programs, loaded when they are needed.

use std::{panic::resume_unwind, path::Path, thread};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel, include_bytes_aligned,
    maps::{Map, MapError},
    programs::{Program, ProgramError, SchedClassifier},
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

/// The program called `name` for links.
pub(crate) fn program<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, EbpfError> {
    loaded(ebpf, name, SchedClassifier::load)
}

/// Loads those of `names` that are not loaded yet, each on a thread of its own: the verifier takes some 15 ms for each.
pub(crate) fn load_all(ebpf: &mut Ebpf, names: &[&'static str]) -> Result<(), EbpfError> {
    thread::scope(|scope| {
        let mut loading = Vec::new();
        for (name, program) in ebpf.programs_mut() {
            let Some(&name) = names.iter().find(|&&wanted| wanted == name) else { continue };
            let Program::SchedClassifier(program) = program else { return Err(EbpfError::Object(name)) };
            if program.fd().is_err() {
                let thread = thread::Builder::new().name("verifier".into());
                let loaded = thread.spawn_scoped(scope, || program.load());
                loading.push((name, loaded.map_err(EbpfError::Thread)?));
            }
        }
        loading.into_iter().try_for_each(|(name, thread)| {
            let loaded = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            loaded.map_err(|e| refused(name, e))
        })
    })
}

/// The program called `name`, loaded at its first use: a sandbox whose links are all of one kind needs half of them.
pub(crate) fn loaded<'a, P>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
    load: fn(&mut P) -> Result<(), ProgramError>,
) -> Result<&'a mut P, EbpfError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(EbpfError::Object(name))?;
    let is_loaded = program.fd().is_ok();
    let program: &mut P = program.try_into().map_err(|e| refused(name, e))?;
    if !is_loaded {
        load(program).map_err(|e| refused(name, e))?;
    }
    Ok(program)
}

pub(crate) fn refused(name: &'static str, e: ProgramError) -> EbpfError {
    EbpfError::Program { name, source: Box::new(e) }
}
