//! The command line, as containerd gives it (Go's `flag` package: one dash or two). Pure.

use std::path::PathBuf;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// To be the pod's shim: how `start` runs this program.
    #[default]
    Serve,
    /// To start one, or to name the one that the pod has.
    Start,
    /// To clean up.
    Delete,
    /// To say what this runtime is, for a program.
    Info,
    /// To say which version this is, for a person.
    Version,
}

/// The command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flags {
    /// What is asked for.
    pub action: Action,
    /// containerd's namespace.
    pub namespace: String,
    /// containerd's gRPC socket.
    pub address: String,
    /// containerd itself, which can publish events; ours go to its socket.
    pub publish_binary: String,
    /// The container; for [`Action::Serve`] the pod.
    pub id: String,
    /// The bundle, else the working directory is.
    pub bundle: Option<PathBuf>,
    /// For [`Action::Serve`]: the path of our socket.
    pub socket: Option<PathBuf>,
    /// For [`Action::Serve`]: where `shim.toml` is, if not at its place. Only `start` gives it.
    pub config: Option<PathBuf>,
    /// Whether to log more.
    pub debug: bool,
}

/// What is wrong with a command line, for the person who typed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; containerd runs this program: usage is -namespace NS -address SOCKET -id ID [-bundle DIR] [-debug] start|delete, or -v, or -info"
)]
pub struct Misuse(String);

impl Flags {
    /// Reads the arguments, without the program's name.
    ///
    /// # Errors
    /// Names the argument.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, Misuse> {
        let mut arguments = arguments.into_iter();
        let mut flags = Self::default();
        while let Some(argument) = arguments.next() {
            let Some(flag) = flag_of(&argument) else {
                flags.set_action(&argument)?;
                return match arguments.next() {
                    Some(extra) => Err(Misuse(format!("unexpected argument {extra:?}"))),
                    None => Ok(flags),
                };
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            flags.set(name, value, &mut arguments)?;
        }
        Ok(flags)
    }

    fn set(
        &mut self,
        name: &str,
        value: Option<String>,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), Misuse> {
        let mut text = |value: Option<String>| {
            value.or_else(|| rest.next()).ok_or_else(|| Misuse(format!("flag -{name} needs a value")))
        };
        match name {
            "debug" => self.debug = truth(name, value)?,
            "v" if truth(name, value.clone())? => self.action = Action::Version,
            "info" if truth(name, value.clone())? => self.action = Action::Info,
            "v" | "info" => {}
            "namespace" => self.namespace = text(value)?,
            "address" => self.address = text(value)?,
            "publish-binary" => self.publish_binary = text(value)?,
            "id" => self.id = text(value)?,
            "bundle" => self.bundle = path(text(value)?),
            "socket" => self.socket = path(text(value)?),
            "config" => self.config = path(text(value)?),
            _ => return Err(Misuse(format!("unknown flag -{name}"))),
        }
        Ok(())
    }

    /// `-v` and `-info` prevail.
    fn set_action(&mut self, word: &str) -> Result<(), Misuse> {
        let action = match word {
            "start" => Action::Start,
            "delete" => Action::Delete,
            _ => return Err(Misuse(format!("unknown action {word:?}"))),
        };
        if self.action == Action::Serve {
            self.action = action;
        }
        Ok(())
    }
}

fn flag_of(argument: &str) -> Option<&str> {
    let name = argument.strip_prefix('-')?;
    let name = name.strip_prefix('-').unwrap_or(name);
    (!name.is_empty()).then_some(name)
}

fn path(text: String) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

fn truth(name: &str, value: Option<String>) -> Result<bool, Misuse> {
    match value.as_deref() {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(Misuse(format!("flag -{name} is true or false, not {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, Misuse> {
        Flags::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_way_in_which_go_writes_flags_is_read() {
        let wanted = Flags {
            action: Action::Start,
            namespace: "k8s.io".into(),
            address: "/run/c.sock".into(),
            publish_binary: "/usr/bin/containerd".into(),
            id: "abc".into(),
            debug: true,
            ..Flags::default()
        };
        for line in [
            "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id abc -debug start",
            "--namespace=k8s.io --address=/run/c.sock --publish-binary=/usr/bin/containerd --id=abc --debug=true start",
            "-id=abc -debug=1 -namespace k8s.io -address=/run/c.sock -publish-binary /usr/bin/containerd start",
        ] {
            assert_eq!(parse(line), Ok(wanted.clone()), "{line}");
        }
    }

    #[test]
    fn actions_are_told_apart() {
        for (line, action) in [
            ("", Action::Serve),
            ("-id a -socket /s", Action::Serve),
            ("-id a -bundle /b delete", Action::Delete),
            ("-v", Action::Version),
            ("--v", Action::Version),
            ("-info", Action::Info),
            ("-v=false -id a start", Action::Start),
            ("-info -id a start", Action::Info),
        ] {
            assert_eq!(parse(line).unwrap().action, action, "{line}");
        }
        let delete = parse("-id a -bundle /b delete").unwrap();
        assert_eq!(delete.bundle.as_deref(), Some(std::path::Path::new("/b")));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (line, named) in [
            ("-nonsense start", "-nonsense"),
            ("--nonsense=1", "-nonsense"),
            ("-id", "-id"),
            ("-debug=maybe", "maybe"),
            ("restart", "restart"),
            ("-", "\"-\""),
            ("--", "\"--\""),
            ("start -id a", "-id"),
        ] {
            let refused = parse(line).unwrap_err().to_string();
            assert!(refused.contains(named), "{line}: {refused}");
        }
    }

    #[test]
    fn a_value_may_look_like_a_flag_or_hold_an_equals_sign() {
        assert_eq!(parse("-id -v").unwrap().id, "-v");
        assert_eq!(parse("-id=a=b").unwrap().id, "a=b");
        assert_eq!(parse("-id=").unwrap().id, "");
    }
}
