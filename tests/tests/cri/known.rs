//! What a runtime is known not to do.

use lattice_tests::containerd::Runtime;

/// It takes a container without the annotations of CRI for one that joins a sandbox.
const WITHOUT_CRI: &str = "creating a container without CRI's annotations does not end";

/// Debian 12 has none.
const CRIU: &str = "it takes criu";

const KNOWN: &[(Runtime, &str, &str)] = &[
    (Runtime::Runc, "a_container_is_written_down_and_goes_on", CRIU),
    (Runtime::Runc, "what_cannot_be_written_down_says_why", CRIU),
    (Runtime::Runc, "the_shim_is_killed", "its socket stays in /run/containerd/s"),
    (Runtime::Runsc, "a_container_without_cri", WITHOUT_CRI),
    (Runtime::Runsc, "a_container_is_written_down_and_goes_on", WITHOUT_CRI),
    (Runtime::Runsc, "what_cannot_be_written_down_says_why", WITHOUT_CRI),
    (Runtime::Runsc, "a_failed_start_leaves_nothing", WITHOUT_CRI),
    (Runtime::Runsc, "a_reader_that_is_gone", WITHOUT_CRI),
    (Runtime::Runsc, "a_slow_reader", WITHOUT_CRI),
    (Runtime::Runsc, "pause_and_resume", WITHOUT_CRI),
    (Runtime::Runsc, "signals_and_kill", WITHOUT_CRI),
    (Runtime::Runsc, "standard_input_until_it_is_closed", WITHOUT_CRI),
    (Runtime::Runsc, "a_terminal_has_the_size_of_its_window", WITHOUT_CRI),
    (Runtime::Runsc, "events_come_in_order", "it tells neither create nor delete"),
    (
        Runtime::Runsc,
        "events_of_a_failed_start",
        "a pod with a container that could not start cannot be removed",
    ),
    (Runtime::Runsc, "an_exec_of_nothing_is_refused", "afterwards the container cannot be stopped"),
    (Runtime::Runsc, "containers_end_while_containerd_is_away", "their exit code is 255"),
    (Runtime::Runsc, "memory_beyond_the_limit_is_an_oom", "the exit code is 128, not 137"),
    (Runtime::Runsc, "pods_in_parallel", "a lock file of a sandbox's may stay"),
    (Runtime::Runsc, "the_shim_is_killed", "its socket stays in /run/containerd/s"),
];

/// Why `case` does not pass on `runtime`, if that is known.
pub(crate) fn why(runtime: Runtime, case: &str) -> Option<&'static str> {
    KNOWN.iter().find(|known| (known.0, known.1) == (runtime, case)).map(|known| known.2)
}
