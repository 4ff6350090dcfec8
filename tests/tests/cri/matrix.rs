//! The heart of the suite on each containerd that is here.

use lattice_tests::containerd::{Daemon, Release, Runtime};

use crate::{codes, known, order, pods, restarts};

type Case = fn(&mut Daemon);

fn on(release: &'static str, runtime: Runtime) {
    let name = runtime.handler();
    let skip = |why: &str| println!("SKIPPED: {name} on containerd of {release}: {why}");
    if runtime.found().is_none() {
        return skip("its shim is not here");
    }
    let Some(release) = Release::named(release) else { return skip("it could not be fetched") };
    let version = release.version();
    if runtime == Runtime::Runsc && version < (1, 7) {
        return skip("its shim answers as containerd 1.7 wants it");
    }
    let cases: [(&str, Case); 5] = [
        ("exit_codes_are_right", codes::exit_codes_are_right),
        ("three_containers_in_one_pod", pods::three_containers_in_one_pod),
        ("one_shim_per_pod", pods::one_shim_per_pod),
        ("events_come_in_order", order::events_come_in_order),
        ("containerd_restarts_with_running_pods", restarts::containerd_restarts_with_running_pods),
    ];
    let mut daemon = Daemon::of(release, runtime);
    for (case, test) in cases {
        // Seen with 2.1.9.
        let hasty = runtime == Runtime::Runc && version >= (2, 0) && case == "events_come_in_order";
        let hasty = hasty.then_some("its shim may end before it has told of its last deletion");
        match known::why(runtime, case).or(hasty) {
            Some(why) => skip(&format!("{case}: {why}")),
            None => test(&mut daemon),
        }
    }
}

macro_rules! matrix {
    ($($name:ident: $release:literal $runtime:ident;)*) => {
        $(#[test] fn $name() { on($release, Runtime::$runtime) })*
    };
}

matrix! {
    trixie_runc: "trixie" Runc;
    trixie_lattice: "trixie" Lattice;
    sid_runc: "sid" Runc;
    sid_runsc: "sid" Runsc;
    sid_lattice: "sid" Lattice;
}
