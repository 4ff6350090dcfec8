//! The mounts of the calling thread's namespace: `/proc/thread-self/mountinfo` (proc_pid_mountinfo(5)).

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// One mount that this process sees.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where it is.
    pub(crate) point: PathBuf,
    /// Of which type.
    pub(crate) kind: String,
    /// The file system's own options; of a version 1 group hierarchy, its controllers.
    pub(crate) options: Vec<String>,
}

/// All of them, in the kernel's order: a later one at the same place lies on top.
pub(crate) fn read() -> io::Result<Vec<Entry>> {
    Ok(fs::read("/proc/thread-self/mountinfo")?.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// Where something is mounted below `dir`, outer mounts first; not `dir` itself, and nothing where `dir` is a link.
pub(super) fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::Error::other("it has no parent directory"));
    };
    let dir = fs::canonicalize(parent)?.join(name);
    Ok(read()?
        .into_iter()
        .map(|entry| entry.point)
        .filter(|point| *point != dir && point.starts_with(&dir))
        .collect())
}

fn parse(line: &[u8]) -> Option<Entry> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    // Optional fields end with a lone hyphen.
    let end = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let text = |at: usize| fields.get(at).map(|field| OsString::from_vec(unescape(field)));
    let string = |at: usize| text(at).map(|field| field.to_string_lossy().into_owned());
    Some(Entry {
        point: text(4)?.into(),
        kind: string(end + 1)?,
        options: string(end + 3)?.split(',').map(str::to_owned).collect(),
    })
}

/// Blanks and backslashes are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_blanks_in_names_and_any_number_of_optional_fields() {
        let line = br"36 35 98:0 / /a\040b\134c rw,noatime shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct";
        let entry = parse(line).unwrap();
        assert_eq!(entry.point, Path::new(r"/a b\c"));
        assert_eq!(entry.kind, "cgroup");
        assert_eq!(entry.options, ["rw", "cpu", "cpuacct"]);
        let plain = parse(b"1 2 0:1 /sub /x rw - tmpfs none rw").unwrap();
        assert_eq!((plain.point.as_path(), plain.kind.as_str()), (Path::new("/x"), "tmpfs"));
        for bad in [&b""[..], b"1 2 0:1 / /x rw tmpfs none rw", b"1 2 0:1 / /x rw - tmpfs", br"1 2 - \0"] {
            assert_eq!(parse(bad), None);
        }
    }
}
