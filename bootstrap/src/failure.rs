//! Why phase one failed, in one line that names the cause and the remedy.

use std::fmt;

/// In characters; the longest of our own messages, with two paths in it, is far below.
const MAX_MESSAGE: usize = 4096;

/// What kind of thing failed; each has its own exit code, documented in `docs/cli.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A flag or its value.
    Usage,
    /// The agent's rootfs or binary.
    Input,
    /// The server refused the token.
    Token,
    /// The server or NATS cannot be reached.
    Server,
    /// Lattice itself.
    Internal,
    /// The kernel lacks something, or forbids it.
    Kernel,
    /// A program that Lattice drives is missing.
    Program,
    /// The name or a resource is in use.
    Taken,
    /// A signal ended the start.
    Interrupted,
    /// Not root, or a capability is missing.
    Privilege,
    /// The stored credentials cannot be used.
    Credentials,
}

impl Kind {
    /// The process exit code. Above 63, so that an agent's own small codes stay recognisable; after `sysexits.h` where
    /// it has a fitting word.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 64,
            Self::Input => 66,
            Self::Token => 67,
            Self::Server => 69,
            Self::Internal => 70,
            Self::Kernel => 71,
            Self::Program => 72,
            Self::Taken => 73,
            Self::Interrupted => 75,
            Self::Privilege => 77,
            Self::Credentials => 78,
        }
    }
}

/// A failure to be shown to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its kind.
    pub kind: Kind,
    /// What failed, on what, and what to do; one line.
    pub message: String,
}

impl Failure {
    /// A failure of `kind`. Line breaks in `message` become spaces; parts of it may be a server's words, so other
    /// control characters are taken out, and it is cut where nobody would read on.
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        let message = message.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let message = message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
        Self { kind, message }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Joins an error and its sources, for errors that keep the reason in the source.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

/// That the kernel refused `what`, and why; with the remedy where rights are missing.
pub(crate) fn kernel(what: &str, error: &dyn std::error::Error) -> Failure {
    let reason = chain(error);
    let (kind, remedy) = if reason.contains("Operation not permitted") || reason.contains("EPERM") {
        (Kind::Privilege, "; run as root")
    } else {
        (Kind::Kernel, "")
    };
    Failure::new(kind, format!("{what}: {reason}{remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_server_does_not_reach_the_terminal() {
        let failure = Failure::new(Kind::Server, format!("no\x1b[2J\n  way\r{}", "x".repeat(1 << 20)));
        assert!(failure.message.starts_with("no[2J wayxxx"), "{:?}", &failure.message[..20]);
        assert_eq!(failure.message.len(), MAX_MESSAGE);
    }
}
