//! One suite for every containerd runtime: what a kubelet and `ctr` rely on, and what must not be left behind.
//!
//! Each case runs on containerd's own runtime, on gVisor's own shim and on ours: that proves the cases, not only the shim. Each has a
//! containerd of its own in namespaces of its own. `known.rs` says where a runtime is known to fall short; those are skipped by name.
//!
//! ```text
//! make setup-test && cargo build --bins && LATTICE_RUNSC=$PWD/target/tools/runsc/runsc cargo test -p lattice-tests --test cri lattice::
//! LATTICE_CONTAINERD=sid …        # on another containerd: installed, trixie, sid
//! LATTICE_CRI_PODS=200 …          # 200 pods one after the other and 20 at once; 30 and 8 otherwise
//! LATTICE_CRI_ALL=1 …             # also what is known to fail
//! ```

mod checkpoints;
mod codes;
mod context;
mod crashes;
mod ctr;
mod execs;
mod known;
mod leaks;
mod matrix;
mod order;
mod pods;
mod resources;
mod restarts;
mod streams;

use std::{env, time::Duration};

use lattice_tests::containerd::{Daemon, Release, Runtime};

/// For whatever takes moments on a quiet machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A test of each case for each runtime.
macro_rules! suite {
    ($($module:ident: $($case:ident)*;)*) => {
        suite! { @runtime runc Runc $($module: $($case)*;)* }
        suite! { @runtime runsc Runsc $($module: $($case)*;)* }
        suite! { @runtime lattice Lattice $($module: $($case)*;)* }
    };
    (@runtime $name:ident $runtime:ident $($module:ident: $($case:ident)*;)*) => {
        mod $name {
            $($(
                #[test]
                fn $case() {
                    crate::run(super::Runtime::$runtime, stringify!($case), crate::$module::$case);
                }
            )*)*
        }
    };
}

suite! {
    checkpoints: a_container_is_written_down_and_goes_on what_cannot_be_written_down_says_why;
    codes: exit_codes_are_right short_lived_containers_keep_their_code a_stopped_container_tells_the_signal;
    context: environment_directory_and_user volumes_are_mounted a_read_only_root_is_read_only no_privileges;
    crashes: the_shim_is_killed the_container_is_killed the_gofer_is_killed;
    ctr: a_container_without_cri a_failed_start_leaves_nothing a_reader_that_is_gone a_slow_reader pause_and_resume
        signals_and_kill;
    execs: exec_has_output_and_code exec_beside_others an_exec_of_nothing_is_refused many_execs_leave_nothing;
    leaks: one_pod_after_the_other pods_in_parallel;
    order: events_come_in_order events_of_a_failed_start;
    pods: three_containers_in_one_pod one_shim_per_pod a_container_is_replaced_after_its_end the_network_is_the_pods;
    resources: stats_are_told memory_beyond_the_limit_is_an_oom;
    restarts: containerd_restarts_with_running_pods containers_end_while_containerd_is_away restart_under_load;
    streams: output_is_whole_and_in_order ten_megabytes standard_input_until_it_is_closed a_terminal
        a_terminal_has_the_size_of_its_window;
}

fn run(runtime: Runtime, case: &str, test: fn(&mut Daemon)) {
    let name = runtime.handler();
    if runtime.found().is_none() {
        println!("SKIPPED: {case} on {name}: there is no {} here", runtime.shim());
        return;
    }
    let Some(release) = Release::usual(runtime) else {
        println!("SKIPPED: {case} on {name}: no containerd for it could be fetched");
        return;
    };
    if let Some(why) = known::why(runtime, case).filter(|_| env::var_os("LATTICE_CRI_ALL").is_none()) {
        println!("SKIPPED: {case} on {name}: {why}");
        return;
    }
    test(&mut Daemon::of(release, runtime));
}
