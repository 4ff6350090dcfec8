//! The driver against every runsc that can be had. On the first thread of its process, where the shim has its reaper; `cargo test
//! --test runsc -- WORD` runs the tests whose names hold WORD.

#![allow(clippy::unwrap_used)] // without the harness, nothing here counts as a test

mod control;
mod exec;
mod failures;
mod lifecycle;
mod place;
mod streams;

use std::{future::Future, time::Duration};

use lattice_shim::reaper::Reaper;

use place::Place;

const LIMIT: Duration = Duration::from_secs(180);

/// Names a test by its function and runs it with each runsc.
macro_rules! tests {
    ($suite:expr, $($module:ident :: $name:ident),+ $(,)?) => {
        $($suite.run(concat!(stringify!($module), "::", stringify!($name)), $module::$name).await;)+
    };
}

fn main() {
    // Before the reaper: it would take the status of the script.
    let programs = place::programs();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let reaper = Reaper::start().expect("the kernel makes us the subreaper");
        let words = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
        let mut suite = Suite { reaper, programs, words };
        tests!(
            suite,
            lifecycle::exit_codes_of_root_containers_are_right,
            lifecycle::exit_codes_of_members_are_right,
            lifecycle::fifty_short_members_and_none_is_missed,
            lifecycle::ten_short_roots_and_none_is_missed,
            lifecycle::a_member_outlived_by_nothing_is_told_so,
            lifecycle::signals_reach_whom_they_are_meant_for,
            lifecycle::what_was_only_created_can_be_killed,
            lifecycle::delete_may_be_repeated,
            lifecycle::pause_and_resume_are_seen,
            streams::root_and_member_write_to_their_own_and_close_them,
            streams::a_terminal_is_sent_for_containers_and_execs,
            exec::exit_codes_are_right,
            exec::a_program_that_is_not_there_is_no_exit_code,
            exec::fifty_short_ones_leave_nothing,
            exec::capabilities_asked_for_are_not_had,
            exec::one_that_is_killed_by_its_pid_ends,
            control::the_command_answers_where_the_socket_does_not,
            control::a_wait_keeps_no_process,
            failures::a_create_that_fails_leaves_nothing,
            failures::a_runsc_that_hangs_is_killed_with_all_it_started,
            failures::an_old_reason_is_not_taken_for_a_new_one,
            failures::hostile_ids_are_refused,
            failures::what_this_release_lacks_is_unimplemented,
        );
    });
}

struct Suite {
    reaper: Reaper,
    programs: Vec<std::path::PathBuf>,
    words: Vec<String>,
}

impl Suite {
    async fn run<F: Future<Output = ()>>(&mut self, name: &str, test: impl Fn(Place) -> F) {
        if !self.words.is_empty() && !self.words.iter().any(|word| name.contains(word)) {
            return;
        }
        for program in &self.programs {
            let began = std::time::Instant::now();
            let place = Place::new(program, &self.reaper);
            let version = place.version.clone();
            let done = tokio::time::timeout(LIMIT, test(place)).await;
            assert!(done.is_ok(), "{name} with runsc {version} took longer than {LIMIT:?}");
            println!("test {name} with {version} ... ok ({} ms)", began.elapsed().as_millis());
        }
    }
}
