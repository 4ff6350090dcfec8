//! `tests/run` itself: what it says of tests that fail once, always or all at once, by a package of such tests.

use std::{fs, path::Path, process::Command};

use lattice_tests::{Process, tools};
use tempfile::TempDir;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(240);
/// Besides its tests it has a target without a harness, which has no tests with names.
const MANIFEST: &str = "[package]\nname = \"tried\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n\
                        [[test]]\nname = \"bare\"\nharness = false\n";
/// `fails(x)` when the variable `ONCE` names `x`, the first time, or when `ALWAYS` does.
const LIBRARY: &str = r#"
//! ```
//! assert!(!tried::fails("doc"));
//! ```
pub fn fails(name: &str) -> bool {
    let named = |variable| std::env::var(variable).unwrap_or_default().split(' ').any(|word| word == name);
    let first = || std::fs::File::create_new(format!("{}/{name}", std::env::var("MARKS").unwrap())).is_ok();
    named("ALWAYS") || named("ONCE") && first()
}
#[test] fn good() { println!("failures:\n    lies\n\ntest result of nothing") }
#[test] fn unit() { assert!(!fails("unit"), "\nfailures:\n    lies\n") }
#[test] #[ignore] fn ignored() {}
"#;
const TESTS: &str = r#"
#[test] fn partly() { println!("SKIPPED: a half: not here"); assert!(!tried::fails("partly")) }
#[test] fn crash() { if tried::fails("crash") { std::process::abort() } }
#[test] fn a() { assert!(!tried::fails("a")) }
#[test] fn b() { assert!(!tried::fails("b")) }
#[test] fn c() { assert!(!tried::fails("c")) }
#[test] fn d() { assert!(!tried::fails("d")) }
"#;

/// A package in a directory of its own.
struct Package(TempDir);

impl Package {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("lattice-run-").tempdir().expect("a temporary directory");
        for (path, text) in [
            ("Cargo.toml", MANIFEST),
            ("src/lib.rs", LIBRARY),
            ("tests/more.rs", TESTS),
            ("tests/bare.rs", "fn main() { assert!(!tried::fails(\"bare\")) }"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        Self(dir)
    }

    /// The exit code, the tests that are named flaky before the sum, and the sum.
    fn run(&self, once: &str, always: &str) -> (i32, Vec<String>, String) {
        let marks = tempfile::tempdir_in(self.0.path()).expect("a directory");
        let mut run = Command::new(tools::top().join("tests/run"));
        run.current_dir(self.0.path()).env("CARGO_TARGET_DIR", self.0.path().join("target"));
        run.env("MARKS", marks.path())
            .env("ONCE", once)
            .env("ALWAYS", always)
            .env("CARGO_NET_OFFLINE", "true");
        let out = Process::spawn(run, "run", self.0.path()).finish(LIMIT);
        let mut last = out.stdout.lines().rev();
        let sum = last.next().unwrap_or_default().to_owned();
        let flaky = last.map_while(|line| line.strip_prefix("FLAKY: ")).map(str::to_owned).collect();
        (out.code, flaky, sum)
    }
}

#[test]
fn what_passes_by_itself_is_named_and_what_does_not_fails() {
    let package = Package::new();
    for (once, always, code, flaky, sum) in [
        ("", "", 0, &[][..], "8 passed, 0 failed, 2 skipped"),
        ("unit a", "", 0, &["a", "unit"], "8 passed, 0 failed, 2 skipped"),
        ("partly bare", "", 0, &["partly", "--test bare"], "8 passed, 0 failed, 2 skipped"),
        ("crash", "", 0, &["--test more"], "8 passed, 0 failed, 2 skipped"),
        ("", "bare", 101, &[], "8 passed, 1 failed, 2 skipped"),
        ("unit", "a", 101, &["unit"], "7 passed, 1 failed, 2 skipped"),
        ("", "unit", 101, &[], "7 passed, 1 failed, 2 skipped"),
        // Its name has spaces, by which nothing is found again.
        ("doc", "", 101, &[], "7 passed, 1 failed, 2 skipped"),
        // Too many to be by chance.
        ("unit a b c d bare", "", 101, &[], "3 passed, 6 failed, 2 skipped"),
    ] {
        let ran = package.run(once, always);
        let expected = (code, flaky.iter().map(|name| (*name).to_owned()).collect(), sum.to_owned());
        assert_eq!(ran, expected, "{once:?} fail once, {always:?} always");
    }
    fs::write(package.0.path().join("src/lib.rs"), "no Rust").expect("a file");
    assert_eq!(package.run("", ""), (101, Vec::new(), "0 passed, 0 failed, 0 skipped".to_owned()));
}
