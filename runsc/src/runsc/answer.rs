//! What runsc prints and logs. Pure. What an agent can bring into these answers is bounded by whoever reads them.

use serde::Deserialize;

/// What `runsc state` says of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Created, not started.
    #[serde(alias = "creating")]
    Created,
    /// Running.
    Running,
    /// Paused.
    Paused,
    /// Ended.
    Stopped,
}

/// The answer of `runsc state`.
///
/// # Errors
/// When it is none.
pub fn status(answer: &[u8]) -> serde_json::Result<Status> {
    #[derive(Deserialize)]
    struct State {
        status: Status,
    }
    serde_json::from_slice::<State>(answer).map(|state| state.status)
}

/// The answer of `runsc ps --format=json`: pids in the sandbox.
///
/// # Errors
/// When it is none.
pub fn pids(answer: &[u8]) -> serde_json::Result<Vec<i32>> {
    // A Go program prints an empty list as null.
    serde_json::from_slice::<Option<Vec<i32>>>(answer).map(Option::unwrap_or_default)
}

/// The answer of `runsc wait`: an exit status as a shell tells it.
///
/// # Errors
/// When it is none.
pub fn exit_status(answer: &[u8]) -> serde_json::Result<u32> {
    #[derive(Deserialize)]
    struct Wait {
        #[serde(rename = "exitStatus")]
        exit_status: u32,
    }
    serde_json::from_slice::<Wait>(answer).map(|wait| wait.exit_status)
}

/// The last error in a log that runsc wrote as JSON, on one line. Releases differ in whether entries are on lines of their own.
pub fn last_error(log: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Entry {
        level: String,
        msg: String,
    }
    serde_json::Deserializer::from_slice(log)
        .into_iter::<Entry>()
        .map_while(Result::ok)
        .filter(|entry| matches!(entry.level.as_str(), "error" | "warning"))
        .last()
        .map(|entry| one_line(&entry.msg))
        .filter(|reason| !reason.is_empty())
}

/// The last line of what runsc wrote to standard error.
pub fn last_line(stderr: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    text.lines().map(one_line).rfind(|line| !line.is_empty())
}

/// A reason as part of an error message: it may hold what an agent chose, such as a program's name.
pub fn one_line(text: &str) -> String {
    const MOST: usize = 500;
    let text = text.trim().trim_start_matches("FATAL ERROR: ");
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read() {
        let answer = br#"{"ociVersion":"1.0.2-dev","id":"a","status":"stopped","pid":-1}"#;
        assert_eq!(status(answer).unwrap(), Status::Stopped);
        assert_eq!(status(br#"{"status":"creating"}"#).unwrap(), Status::Created);
        assert!(status(br#"{"status":"dancing"}"#).is_err());
    }

    #[test]
    fn lists_and_ends_are_read() {
        assert_eq!(pids(b"[1,12]\n").unwrap(), [1, 12]);
        assert!(pids(b"null").unwrap().is_empty());
        assert!(pids(b"[\"1\"]").is_err());
        assert_eq!(exit_status(br#"{"id":"m1","exitStatus":143}"#).unwrap(), 143);
    }

    #[test]
    fn the_last_error_is_found_without_newlines_and_in_a_log_cut_short() {
        let log = br#"{"msg":"first","level":"error"}{"msg":"FATAL ERROR: no\nsuch \u001b[31m","level":"error","time":"x"}
            {"msg":"chatter","level":"info"}{"msg":"cut"#;
        assert_eq!(last_error(log).unwrap(), "no such  [31m");
        assert_eq!(last_error(b""), None);
        assert_eq!(last_error(b"not json"), None);
    }

    #[test]
    fn the_last_line_of_standard_error_is_found() {
        assert_eq!(last_line(b"usage\nloading container: no\n\n").unwrap(), "loading container: no");
        assert_eq!(last_line(b" \n"), None);
        assert_eq!(last_line(&[b'x'; 10_000]).unwrap().len(), 500);
    }
}
