//! What containerd's name of a stream means. Pure.
//!
//! Names are paths, or URLs as containerd's shims read them: `fifo://`, `file://`, `binary://`, `binary-v2://`.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Nowhere.
    Null,
    /// What is there already: a FIFO, or a file to append to.
    Existing(PathBuf),
    /// A file to append to, made when it is missing.
    File(PathBuf),
    /// A program that reads it.
    Logger(LoggerCommand),
}

/// A logger's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoggerCommand {
    /// An absolute path.
    pub(super) program: PathBuf,
    /// Each key of the query and its first value, in order; a key without a value is followed by an empty argument.
    pub(super) arguments: Vec<OsString>,
    /// Whether the logger must write a byte when it is ready: closing the descriptor is enough without (`binary-v2`).
    pub(super) must_answer: bool,
}

impl Target {
    /// Reads `name`; `stream` is for the message.
    pub(super) fn parse(stream: &str, name: &str) -> Result<Self> {
        if name.is_empty() {
            return Ok(Self::Null);
        }
        let Some((scheme, rest)) = split_scheme(name) else { return Ok(Self::Existing(name.into())) };
        let refuse = |reason: &str| Error::Invalid(format!("{stream} {name:?}: {reason}"));
        if !["fifo", "file", "binary", "binary-v2"].contains(&scheme) {
            return Err(refuse("the scheme is not one of fifo, file, binary and binary-v2"));
        }
        let rest = rest.split_once('#').map_or(rest, |(rest, _fragment)| rest);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = decode(path, false).ok_or_else(|| refuse("a wrong %-escape"))?;
        if !Path::new(&path).is_absolute() {
            return Err(refuse("the path must be absolute, as in file:///var/log/a"));
        }
        let path = PathBuf::from(path);
        Ok(match scheme {
            "fifo" => Self::Existing(path),
            "file" => Self::File(path),
            _ => Self::Logger(LoggerCommand {
                program: path,
                arguments: arguments(query).ok_or_else(|| refuse("a wrong %-escape"))?,
                must_answer: scheme == "binary-v2",
            }),
        })
    }

    /// Where the standard input's FIFO is, if there is to be one.
    pub(super) fn parse_input(name: &str) -> Result<Option<PathBuf>> {
        match Self::parse("stdin", name)? {
            Self::Null => Ok(None),
            Self::Existing(path) => Ok(Some(path)),
            Self::File(_) | Self::Logger(_) => {
                Err(Error::Invalid(format!("stdin {name:?}: standard input comes from a FIFO, name one")))
            }
        }
    }
}

fn split_scheme(name: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = name.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some((scheme, rest))
}

fn arguments(query: &str) -> Option<Vec<OsString>> {
    let mut pairs: Vec<(OsString, OsString)> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let (key, value) = (decode(key, true)?, decode(value, true)?);
        if !pairs.iter().any(|(known, _)| *known == key) {
            pairs.push((key, value));
        }
    }
    Some(pairs.into_iter().flat_map(|(key, value)| [key, value]).collect())
}

/// RFC 3986, section 2.1; in queries a plus is a space. `None` for what no path and no argument can be.
fn decode(text: &str, plus_is_space: bool) -> Option<OsString> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                out.push(hex::decode(digits).ok()?[0]);
                rest = after;
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(*byte),
        }
    }
    (!OsStr::from_bytes(&out).as_bytes().contains(&0)).then(|| OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Result<Target> {
        Target::parse("stdout", name)
    }

    #[test]
    fn names_mean_what_containerd_means() {
        for (name, expected) in [
            ("", Target::Null),
            ("/run/fifo/a", Target::Existing("/run/fifo/a".into())),
            ("/run/100%/a", Target::Existing("/run/100%/a".into())),
            ("/run/b://a", Target::Existing("/run/b://a".into())),
            ("fifo:///run/a", Target::Existing("/run/a".into())),
            ("file:///var/log/a%20b", Target::File("/var/log/a b".into())),
            ("file:///var/log/a?x=y#z", Target::File("/var/log/a".into())),
        ] {
            assert_eq!(parse(name).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn a_loggers_arguments_come_from_the_query() {
        for (name, must_answer, expected) in [
            ("binary:///bin/logger", false, &[][..]),
            (
                "binary:///bin/logger?id=7&verbose&id=8&a%3db=c+d%2F",
                false,
                &["id", "7", "verbose", "", "a=b", "c d/"],
            ),
            ("binary-v2:///bin/logger?&&k=", true, &["k", ""]),
        ] {
            let arguments = expected.iter().map(OsString::from).collect();
            let command = LoggerCommand { program: "/bin/logger".into(), arguments, must_answer };
            assert_eq!(parse(name).unwrap(), Target::Logger(command), "{name}");
        }
    }

    #[test]
    fn what_is_none_of_these_is_refused_by_name() {
        for bad in [
            "http://a/b",
            "npipe:////./pipe/a",
            "file://relative",
            "binary://logger?x",
            "file:///a%0",
            "file:///a%zz",
            "file:///a%00",
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains("stdout") && error.contains(bad), "{error}");
        }
        assert!(Target::parse_input("file:///a").is_err());
        assert_eq!(Target::parse_input("fifo:///a").unwrap(), Some("/a".into()));
        assert_eq!(Target::parse_input("").unwrap(), None);
    }
}
