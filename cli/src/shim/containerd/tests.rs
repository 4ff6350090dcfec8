//! With each containerd that this machine has.

use super::*;

/// The system's, and those that `make setup-test` fetched, each with its generation.
fn each(test: impl Fn(&Path, i64)) {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let fetched =
        ["containerd-trixie", "containerd-sid"].map(|name| tools.join(name).join("usr/bin/containerd"));
    let programs = [PathBuf::from("/usr/bin/containerd")].into_iter().chain(fetched);
    let mut tried = 0;
    for program in programs.filter(|path| path.exists()) {
        let output = Command::new(&program).arg("--version").output().unwrap();
        let is_second = String::from_utf8(output.stdout).unwrap().contains("containerd/v2");
        test(&program, if is_second { 2 } else { 1 });
        tried += 1;
    }
    if tried == 0 {
        println!("SKIPPED: imports of containerd: there is none, apt-get install containerd");
    }
}

fn mine(version: i64) -> String {
    let plugin = if version == 2 { "io.containerd.grpc.v1.cri" } else { "io.containerd.cri.v1.runtime" };
    format!("[plugins.\"{plugin}\".containerd.runtimes.mine]\n  runtime_type = \"io.containerd.runc.v2\"\n")
}

fn containerd(program: &Path, dir: &Path, config: &str) -> Containerd {
    let path = dir.join("config.toml");
    fs::write(&path, config).unwrap();
    Containerd { program: program.into(), config: path }
}

#[test]
fn a_file_is_imported_where_that_loses_nothing() {
    each(|program, generation| {
        for version in 2..=generation + 1 {
            let dir = tempfile::tempdir().unwrap();
            let text = format!("version = {version}\nimports = [\"conf.d/*.toml\"]\n{}", mine(version));
            let containerd = containerd(program, dir.path(), &text);
            let file = dir.path().join("conf.d/lattice.toml");
            let import = containerd.import(true).unwrap();
            assert!(!file.exists());
            if generation == 1 {
                assert!(matches!(import, Import::ByHand { .. }), "{import:?}");
            } else {
                assert_eq!(import, Import::Written(file.clone()), "{program:?} {version}");
                containerd.import(false).unwrap();
                let dump = containerd.dump(&containerd.config).unwrap();
                assert!(names_runtime(&dump) && dump.contains("runtimes.mine]"), "{dump}");
                assert_eq!(containerd.import(false).unwrap(), Import::Present);
            }
            assert_eq!(fs::read_to_string(&containerd.config).unwrap(), text);
        }
    });
}

#[test]
fn the_lines_that_are_told_are_right() {
    each(|program, generation| {
        for version in 2..=generation + 1 {
            let dir = tempfile::tempdir().unwrap();
            let text = format!("version = {version}\n{}", mine(version));
            let containerd = containerd(program, dir.path(), &text);
            let Import::ByHand { lines, .. } = containerd.import(false).unwrap() else {
                panic!("{program:?}")
            };
            fs::write(&containerd.config, text + &lines).unwrap();
            assert_eq!(containerd.import(false).unwrap(), Import::Present);
            let dump = containerd.dump(&containerd.config).unwrap();
            assert!(dump.contains("lattice.io/*") && dump.contains("runtimes.mine]"), "{dump}");
        }
    });
}

#[test]
fn what_cannot_be_read_is_named() {
    each(|program, _| {
        let dir = tempfile::tempdir().unwrap();
        let containerd = containerd(program, dir.path(), "version = [");
        assert!(containerd.import(false).unwrap_err().message.contains("config.toml"));
        fs::remove_file(&containerd.config).unwrap();
        assert!(containerd.import(false).unwrap_err().message.contains("containerd config default"));
    });
}
