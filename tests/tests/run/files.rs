//! What of its user's files a command can write, and what it does not see.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use crate::place::{Place, UID};

/// Tries to write to each argument's directory, and prints what came of it.
const WRITE: &str = r#"for dir in "$@"; do if (echo x > "$dir/written") 2>/dev/null; then echo "$dir: ok"; else echo "$dir: no"; fi; done"#;

pub(crate) fn dir(path: &Path) -> String {
    fs::create_dir_all(path).expect("a directory");
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("its mode");
    chown(path, Some(UID), Some(UID)).expect("root");
    path.display().to_string()
}

#[test]
fn a_command_writes_where_it_was_started_and_where_it_was_told_and_nowhere_else() {
    let mut place = Place::new();
    let home = place.path("home").display().to_string();
    let work = dir(&place.path("home/work"));
    let other = dir(&place.path("home/other"));
    let named = dir(&place.path("home/named"));
    let tried = [&*work, &*other, &*named, &*home, "/tmp", "/dev/shm", "/var/tmp"];
    let written = |place: &Place, flags: &[&str]| {
        let command = [&["sh", "-c", WRITE, "sh"][..], &tried].concat();
        let out = place.finish(place.run(true, &[&["--isolate", "netns"], flags].concat(), &command));
        assert_eq!(out.code, 0, "{}", out.stderr);
        let lines: Vec<bool> = out.stdout.lines().map(|line| line.ends_with(": ok")).collect();
        assert_eq!(lines.len(), tried.len(), "{}", out.stdout);
        place.assert_clean();
        (lines, out.stderr)
    };
    let (there, gone) = ([work.as_str(), &other, &named, &home], ["/tmp", "/dev/shm", "/var/tmp"]);
    let leftovers = || {
        let all = there.iter().chain(&gone).map(|dir| Path::new(dir).join("written"));
        let found: Vec<_> = all.filter(|file| file.exists()).collect();
        for file in &found {
            fs::remove_file(file).expect("a file of the test's");
        }
        found
    };
    place.cwd = "home/work".into();
    let (yes, no) = (true, false);
    assert_eq!(written(&place, &["--writable", &named]).0, [yes, no, yes, no, yes, yes, yes]);
    let files = [Path::new(&work).join("written"), Path::new(&named).join("written")];
    assert_eq!(leftovers(), files, "its /tmp is its own");
    assert_eq!(written(&place, &["--read-only"]).0, [no, no, no, no, yes, yes, yes]);
    assert!(leftovers().is_empty());
    assert_eq!(written(&place, &["--writable", &home]).0, [yes, yes, yes, yes, yes, yes, yes]);
    assert_eq!(leftovers().len(), 4);
    // Where a shell looks for what it runs, nothing is left for it, though that is where the command was started.
    place.cwd = "home".into();
    let (lines, said) = written(&place, &[]);
    assert_eq!(lines, [no, no, no, no, yes, yes, yes]);
    assert!(said.contains("may not write"), "{said}");
    assert!(leftovers().is_empty());
}

#[test]
fn a_command_that_is_started_in_tmp_sees_that_part_of_it() {
    let mut place = Place::new();
    let tmp = tempfile::Builder::new().prefix("lattice-run-").tempdir_in("/tmp").expect("a directory");
    dir(tmp.path());
    place.cwd = tmp.path().into();
    let script = "ls /tmp | wc -l; (echo x > written) 2>/dev/null && echo ok; pwd";
    for (flags, wrote) in [(&[][..], "ok\n"), (&["--read-only"], "")] {
        let run = place.run(true, &[&["--isolate", "netns"], flags].concat(), &["sh", "-c", script]);
        let out = place.finish(run);
        assert_eq!(out.stdout, format!("1\n{wrote}{}\n", tmp.path().display()), "{}", out.stderr);
        assert_eq!(fs::remove_file(tmp.path().join("written")).is_ok(), !wrote.is_empty());
        place.assert_clean();
    }
}

#[test]
fn keys_that_are_mounted_twice_are_hidden_twice() {
    let mut place = Place::new();
    let (etc, elsewhere, part) =
        (place.path("etc"), dir(&place.path("home/elsewhere")), dir(&place.path("home/part")));
    let deep = dir(&place.path("etc/deep"));
    fs::write(place.path("etc/deep/secret"), "secret").expect("a file");
    chown(place.path("etc/deep/secret"), Some(UID), Some(UID)).expect("root");
    place.before = format!("mount --bind {} {elsewhere}; mount --bind {deep} {part}; ", etc.display());
    let etc = etc.display().to_string();
    let script = r#"for dir in "$@"; do find "$dir" -type f | wc -l; done"#;
    let all = [&*etc, &*elsewhere, &*part];
    let seen = |isolate: &str| {
        let command = [&["sh", "-c", script, "sh"][..], &all].concat();
        let out = place.finish(place.run(true, &["--isolate", isolate], &command));
        assert_eq!(out.code, 0, "{}", out.stderr);
        out.stdout.split_whitespace().map(|count| count.parse::<u32>().expect("a count")).collect::<Vec<_>>()
    };
    assert!(seen("none").iter().all(|count| *count > 0), "the twin sees them everywhere");
    assert_eq!(seen("netns"), [0, 0, 0]);
}

/// What others keep in the home, some of it by links to elsewhere.
fn secrets(place: &Place) -> Vec<String> {
    for name in [".ssh", ".config/gh", "keys/aws", "keys/ssh", "keys/more"] {
        dir(&place.path("home").join(name));
    }
    dir(&place.path("home/.config"));
    dir(&place.path("home/keys"));
    let files = [
        ".ssh/id",
        ".config/gh/hosts.yml",
        "keys/aws/credentials",
        "keys/netrc",
        "keys/ssh/id",
        "keys/more/id",
    ];
    for file in files {
        let path = place.path("home").join(file);
        fs::write(&path, "secret").expect("a file");
        chown(&path, Some(UID), Some(UID)).expect("root");
    }
    for (link, to) in [
        (".aws", "keys/aws"),
        (".netrc", "keys/netrc"),
        (".ssh/other", "../keys/ssh/id"),
        (".ssh/more", "../keys/more"),
        (".kube", "nowhere"),
    ] {
        std::os::unix::fs::symlink(to, place.path("home").join(link)).expect("a link");
    }
    let all = files.into_iter().chain([".aws/credentials", ".netrc", ".ssh/other", ".ssh/more/id"]);
    all.map(|name| place.path("home").join(name).display().to_string()).collect()
}

#[test]
fn what_other_programs_keep_secret_is_not_for_the_command() {
    let mut place = Place::new();
    dir(&place.path("home/work"));
    place.cwd = "home/work".into();
    let files = secrets(&place);
    let script = r#"for file in "$@"; do echo "${file##*/home/}: $(cat "$file" 2>/dev/null)"; done"#;
    let seen = |place: &Place, flags: &[&str]| {
        let command =
            [&["sh", "-c", script, "sh"][..], &files.iter().map(String::as_str).collect::<Vec<_>>()];
        let mut run = place.run(true, flags, &command.concat());
        if let Some(runsc) = lattice_tests::tools::runsc() {
            run.env("LATTICE_RUNSC", runsc);
        }
        let out = place.finish(run);
        assert_eq!(out.code, 0, "{flags:?}: {}", out.stderr);
        let lines = out.stdout.lines().filter_map(|line| line.strip_suffix(": secret"));
        let seen: Vec<String> = lines.map(str::to_owned).collect();
        place.assert_clean();
        (seen, out.stderr)
    };
    assert_eq!(seen(&place, &["--isolate", "none"]).0.len(), files.len(), "the twin sees all");
    for isolate in ["netns", "gvisor"] {
        assert_eq!(seen(&place, &["--isolate", isolate]).0, [""; 0], "{isolate}");
    }
    let home = place.path("home").display().to_string();
    let ssh = format!("{home}/.ssh");
    fn netns<'a>(flags: &[&'a str]) -> Vec<&'a str> {
        [&["--isolate", "netns"], flags].concat()
    }
    let shown = seen(&place, &netns(&["--readable", &ssh])).0;
    assert_eq!(
        shown,
        [".ssh/id", "keys/ssh/id", "keys/more/id", ".ssh/other", ".ssh/more/id"],
        "and where it leads"
    );
    assert_eq!(seen(&place, &netns(&["--readable", &home])).0.len(), files.len());
    // Where it was started, and what it may write, it sees.
    let (shown, said) = seen(&place, &netns(&["--writable", &format!("{home}/.config/gh")]));
    assert_eq!(shown, [".config/gh/hosts.yml"]);
    assert!(said.contains("the command sees") && said.contains("gh"), "{said}");
    place.cwd = "home/.aws".into();
    assert_eq!(seen(&place, &netns(&[])).0, ["keys/aws/credentials", ".aws/credentials"]);
    place.cwd = "home/work".into();
    for (path, text) in
        [(format!("{ssh}/id"), "as a whole"), (format!("{home}/nothing"), "name what is there")]
    {
        let out = place.finish(place.run(true, &netns(&["--readable", &path]), &["true"]));
        assert_eq!(out.code, 125, "{}", out.stderr);
        assert!(out.stderr.contains(text), "{}", out.stderr);
    }
    place.assert_clean();
}
