//! What a runtime is known not to do.

use lattice_tests::containerd::Runtime;

const KNOWN: &[(Runtime, &str, &str)] =
    &[(Runtime::Runc, "the_shim_is_killed", "its socket stays in /run/containerd/s")];

/// Why `case` does not pass on `runtime`, if that is known.
pub(crate) fn why(runtime: Runtime, case: &str) -> Option<&'static str> {
    KNOWN.iter().find(|known| (known.0, known.1) == (runtime, case)).map(|known| known.2)
}
