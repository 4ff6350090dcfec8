//! How long `/bin/true` takes from nothing to its exit code: by our driver, and by bare `runsc run` of the same bundle.
//!
//! usage (root): runsc_bench ROOTFS [ROUNDS [RUNSC]]. The two alternate, so that a busy machine slows both alike.

use std::{
    error::Error,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lattice_bootstrap::Ready;
use lattice_overlay::netns::Netns;
use lattice_runsc::{AgentSpec, AgentStdio, Runsc, Writable};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let rootfs = args.next().ok_or("usage: runsc_bench ROOTFS [ROUNDS [RUNSC]]")?;
    let rounds = args.next().map_or(Ok(20), |rounds| rounds.parse::<usize>())?.max(1);
    let path = args.next();
    let runsc = Runsc::find(path.as_deref().map(Path::new), None)?;
    let dir = tempfile::tempdir()?;
    let netns = Netns::create()?;
    let ready = Ready::for_tests(netns.path());
    let spec = AgentSpec {
        name: "bench".into(),
        rootfs: rootfs.into(),
        binary: "/bin/true".into(),
        args: vec![],
        env: vec![],
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        memory_bytes: None,
        cpus: None,
        pids: None,
        rootfs_writable: Writable::Overlay,
        resolv_conf: None,
        hosts: None,
        terminal: false,
    };
    let state = dir.path().join("state");
    let bundle = dir.path().join("bundle");
    fs::create_dir(&bundle)?;

    let (mut ours, mut bare, mut prepare, mut create) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        let began = Instant::now();
        let stdio = AgentStdio::new(Stdio::null(), Stdio::null(), Stdio::null());
        let mut agent = runsc.start_with_stdio(&ready, &spec, &state, stdio)?;
        if round == 0 {
            let id = fs::read_dir(state.join("runsc"))?.next().ok_or("no bundle")??;
            fs::copy(id.path().join("config.json"), bundle.join("config.json"))?;
        }
        let code = agent.wait()?;
        ours.push(began.elapsed());
        prepare.push(agent.timings().bundle);
        create.push(agent.timings().create);
        drop(agent);
        if code != 0 {
            return Err(format!("/bin/true exited with {code}").into());
        }

        let began = Instant::now();
        let status = Command::new(&runsc.path)
            .arg(format!("--root={}", dir.path().join("root").display()))
            .args(["--network=host", "--host-uds=none", "--overlay2=root:memory", "--ignore-cgroups"])
            .arg(format!("--platform={}", runsc.platform))
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(format!("bench-{}", std::process::id()))
            .stdin(Stdio::null())
            .status()?;
        bare.push(began.elapsed());
        if !status.success() {
            return Err(format!("bare runsc: {status}").into());
        }
    }
    println!("runsc {} on {}, median of {rounds}", runsc.version, runsc.platform);
    for (what, times) in [
        ("ours, start to exit code", &mut ours),
        ("  of it: check and bundle", &mut prepare),
        ("  of it: sandbox stands", &mut create),
        ("bare runsc run", &mut bare),
    ] {
        println!("{what:<26} {:>8.1} ms", median(times).as_secs_f64() * 1e3);
    }
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
