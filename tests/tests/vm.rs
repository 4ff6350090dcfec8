//! The main job and the kernel backends once more, on stock Debian kernels in virtual machines: kernel WireGuard, cgroup version 2
//! alone, and a kernel with TCX (6.12) as well as one without (6.1). Pods by containerd on the one, with kernel WireGuard on the other.
//!
//! The machines are emulated (no hardware is needed) and see this machine's files read-only: they run the tests as
//! `cargo test` has built them. Where qemu or a kernel cannot be had, a line beginning with `SKIPPED:` says so.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use lattice_tests::{
    Process,
    process::{command, patience},
    tools,
};

/// Against hanging: each machine takes some minutes on two processors.
const LIMIT: Duration = Duration::from_secs(900);
/// The shim's groups, as far as they are of version 2.
const GROUPS: [&str; 4] = [
    "cgroup::tests::the_kernel_takes_limits_of_version_2",
    "cgroup::tests::metrics_tell",
    "cgroup::tests::running_out_of_memory",
    "cgroup::tests::runsc",
];
const MAIN_JOB: &str = "an_agent_reaches_what_it_may_and_nothing_else_and_every_verdict_is_recorded";

/// One machine has two processors. Two machines at once would be later than what runs in them waits for.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn linux_6_12_with_tcx() {
    run("6.12", "tcx");
}

#[test]
fn linux_6_1_with_clsact() {
    run("6.1", "clsact");
}

fn run(version: &str, attach: &str) {
    let kernel = tools::kernel(version);
    if let Err(reason) = available(&kernel) {
        return println!("SKIPPED: vm {version}: {reason}");
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = Instant::now();
    let dir = tempfile::Builder::new().prefix("lattice-vm-").tempdir().expect("a temporary directory");
    let job = dir.path().join("job");
    fs::write(&job, script(attach)).expect("the job");

    let mut boot = command(Path::new("/proc/self/ns/net"), &tools::top().join("tests/vm/boot"));
    boot.arg(&kernel).arg(patience(LIMIT).as_secs().to_string()).arg("bash").arg(&job);
    let out = Process::spawn(boot, "vm", dir.path()).finish(LIMIT + Duration::from_secs(30));
    // Indented, or the machine's test results would be counted as this one's.
    for line in out.stdout.lines() {
        println!("  {version}: {line}");
    }
    println!("  {version}: took {:.0} s", begun.elapsed().as_secs_f32());
    assert_eq!(out.code, 0, "see the output above; {}", out.stderr);
    assert!(!out.stdout.contains("SKIPPED: "), "what is skipped elsewhere must run here");
}

fn available(kernel: &Path) -> Result<(), &'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let has = |program: &str| env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !cfg!(target_arch = "x86_64") {
        Err("the kernels are for amd64")
    } else if !has("qemu-system-x86_64") {
        Err("qemu-system-x86_64 is not installed: run make test")
    } else if !kernel.join("vmlinuz").is_file() {
        Err("its kernel was not fetched: run make test")
    } else {
        Ok(())
    }
}

/// What the machine runs: all of it, also when a part fails.
fn script(attach: &str) -> String {
    let mut script = format!("export LATTICE_SLOW=10 LATTICE_EXPECT='wg0 kernel;ebpf/{attach}'\n");
    for name in ["LATTICE_ROOTFS", "LATTICE_RUNSC"] {
        if let Ok(value) = env::var(name) {
            let _ = writeln!(script, "export {name}='{value}'");
        }
    }
    // A name that fits no test any more is no success.
    script.push_str(
        "code=0\nrun() { \"$@\" 2>&1 | tee $TMPDIR/said; [ ${PIPESTATUS[0]} = 0 ] && ! grep -q ' 0 passed;' $TMPDIR/said || code=1; }\n",
    );
    // The verifier takes seconds to load the policy there, so only what may differ between kernels is repeated: loading,
    // attaching, and the helpers by which it answers.
    let link = format!("tun_{attach}::allowed_passes");
    // One has all of it, the other shows that the kernel's part is the same there.
    let paths = if attach == "tcx" { vec![] } else { vec!["two_symmetric_nats"] };
    let pods = if attach == "tcx" { "fence::a_pods_denied_calls" } else { "by_the_kernels_wireguard" };
    let mut runs = vec![
        ("kernel_device", vec![]),
        ("path_finding", paths),
        ("links", vec![link.as_str()]),
        (
            "lattice_ebpf",
            vec!["refusal::tcp_is_reset", "fragments::later_fragments", "the_verifier_has_little"],
        ),
        ("spine", vec![MAIN_JOB]),
        ("pods", vec![pods]),
    ];
    // What depends on the version of cgroups and not on the kernel's.
    if attach == "tcx" {
        runs.push(("calls", vec!["a_killed_run"]));
        runs.push(("lattice_shim", GROUPS.to_vec()));
        runs.push(("cri", vec!["lattice::memory_beyond_the_limit"]));
        // Nor VRFs on the kernel's version, but on its configuration.
        runs.push(("lattice_overlay", vec!["of_a_vrf"]));
    }
    for (test, filters) in runs {
        let Some(binary) = test_binary(test) else {
            let _ = writeln!(script, "echo {test} was not built: cargo test --workspace builds it; code=1");
            continue;
        };
        // Without one, all of them.
        for filter in if filters.is_empty() { vec![""] } else { filters } {
            let _ = writeln!(script, "run '{}' --show-output {filter}", binary.display());
        }
    }
    script.push_str("exit $code\n");
    script
}

/// The newest build of a test, among those beside the running one.
fn test_binary(name: &str) -> Option<PathBuf> {
    let dir = env::current_exe().ok()?.parent()?.to_owned();
    let candidates = fs::read_dir(dir).ok()?.flatten().filter(|entry| {
        let file = entry.file_name();
        let hash = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('-'));
        hash.is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
    });
    candidates
        .max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok())
        .map(|entry| entry.path())
}
