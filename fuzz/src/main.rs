//! libFuzzer around the target that `LATTICE_FUZZ_TARGET` names. One program for all of them, because it is big.

#![no_main]

use std::sync::OnceLock;

use lattice_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("LATTICE_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|target| target.name == name);
    *found.unwrap_or_else(|| {
        panic!("LATTICE_FUZZ_TARGET={name:?} is no target; the folders of fuzz/corpus are")
    })
}

fuzz_target!(|data: &[u8]| {
    (CHOSEN.get_or_init(chosen).run)(data);
});
