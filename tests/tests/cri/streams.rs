//! What a container writes and reads.

use std::{io::Write as _, process::Stdio, thread, time::Duration};

use lattice_tests::{
    containerd::{Daemon, Options, Pod},
    lab::wait_until,
};

use crate::{LIMIT, ctr::Ctr};

/// Each stream by itself is complete and in order; each line says which stream it came from.
pub(crate) fn output_is_whole_and_in_order(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let script = "n=0; while [ $n -lt 500 ]; do echo out $n; echo err $n >&2; n=$((n+1)); done; printf unfinished; exit 0";
    let container = pod.start("writer", &Options::shell(script));
    assert_eq!(container.wait(LIMIT).0, 0);
    let expected = |word: &str| (0..500).map(|n| format!("{word} {n}\n")).collect::<String>();
    // The exit is told at once; the last of the output may follow it.
    wait_until(LIMIT, "the last word", || container.logged("stdout").contains("unfinished"));
    assert_eq!(container.logged("stdout").trim_end(), format!("{}unfinished", expected("out")));
    wait_until(LIMIT, "the last error", || container.logged("stderr").ends_with("499\n"));
    assert_eq!(container.logged("stderr"), expected("err"));
    pod.remove();
}

/// It ends only when all is read: CRI of containerd 1.6 takes no more of a container that has ended.
pub(crate) fn ten_megabytes(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let container = pod.start("writer", &Options::shell("seq 1000001 2310720; exec sleep inf"));
    wait_until(Duration::from_secs(120), "the last line", || container.last_logged() == "2310720");
    let text = container.logged("stdout");
    assert_eq!(text.len(), 10 << 20);
    let numbers: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]) && numbers.len() == 1_310_720, "in order");
    pod.remove();
}

/// `ctr run` closes the container's standard input at the end of its own.
pub(crate) fn standard_input_until_it_is_closed(daemon: &mut Daemon) {
    let ctr = Ctr::new(daemon);
    let mut run = ctr.run_command(&["--rm"], "reader", "wc -c; echo closed; exit 5");
    let mut child =
        run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ctr");
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = thread::spawn(move || {
        for _ in 0..300 {
            stdin.write_all(&[b'x'; 1000]).expect("written");
        }
    });
    let out = ctr.finish(child);
    writer.join().expect("the writer");
    assert_eq!((out.stdout.trim(), out.code), ("300000\nclosed", 5), "{}", out.stderr);
}

pub(crate) fn a_terminal(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let script = "test -t 0 && test -t 1 && test -t 2 && echo terminal; echo to stderr >&2; exit 8";
    let container = pod.start("terminal", &Options { tty: true, ..Options::shell(script) });
    assert_eq!(container.wait(LIMIT).0, 8);
    wait_until(LIMIT, "two lines", || container.logged("stdout").lines().count() == 2);
    assert_eq!(container.logged("stdout").replace('\r', ""), "terminal\nto stderr\n", "both streams are one");
    pod.remove();
}

/// `script` gives `ctr` a terminal; `ctr` gives the container's its size.
pub(crate) fn a_terminal_has_the_size_of_its_window(daemon: &mut Daemon) {
    let ctr = Ctr::new(daemon);
    let program = "n=0; while [ \"$(stty size 2>/dev/null)\" != \"33 77\" ] && [ $n -lt 200 ]; do sleep 0.1; n=$((n+1)); done; stty size";
    let run = ctr.run_command(&["--rm", "--tty"], "window", program);
    let words = std::iter::once(run.get_program()).chain(run.get_args());
    let line: Vec<String> =
        words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))).collect();
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &format!("stty rows 33 cols 77; exec {}", line.join(" ")), "/dev/null"]);
    for (key, value) in run.get_envs() {
        script.env(key, value.unwrap_or_default());
    }
    let child =
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("script");
    let out = ctr.finish(child);
    assert_eq!((out.stdout.trim(), out.code), ("33 77", 0), "{}", out.stderr);
}
