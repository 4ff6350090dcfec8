//! What `/proc/<pid>/stat` says of a process (`proc_pid_stat(5)`).

use nix::unistd::Pid;

/// Some of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Whether it has ended, and only its parent has not asked yet: a zombie.
    pub ended: bool,
    /// Its parent.
    pub parent: Pid,
    /// When it began, in clock ticks since the machine did: with its pid, this names one process for good.
    pub started: u64,
}

/// Reads them; `None` when there is no such process, not even a zombie.
pub fn stat(pid: Pid) -> Option<Stat> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field is a name in parentheses that may itself hold any characters.
fn parse(line: &str) -> Option<Stat> {
    let mut fields = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    let parent = Pid::from_raw(fields.next()?.parse().ok()?);
    Some(Stat { ended, parent, started: fields.nth(17)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_fields() {
        let line =
            "7 (a) R 1 1) S 5 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 3 4 18446744073709551615\n";
        assert_eq!(parse(line), Some(Stat { ended: false, parent: Pid::from_raw(5), started: 4242 }));
        assert!(parse(&line.replace(" S 5", " Z 5")).unwrap().ended);
        assert_eq!(parse("7 (a"), None);
        assert_eq!(parse("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_found_and_no_process_0() {
        assert_eq!(stat(Pid::this()).unwrap().parent, Pid::parent());
        assert_eq!(stat(Pid::from_raw(0)), None);
    }
}
