//! The files of a group: short texts of numbers, written by the kernel, read with a bound all the same.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
};

use nix::errno::Errno;

use crate::error::{Error, Result};

/// The longest, of many disks on many processors, are some ten kilobytes.
const LIMIT: u64 = 1 << 20;

/// The text, or nothing where the kernel has no such file, no such feature, or the group no more.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    match File::open(path).and_then(|mut file| read_open(&mut file)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(Error::io(format!("read {}", path.display()))(error)),
    }
}

/// The text of a file that is read from where it stands.
pub(super) fn read_open(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.take(LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::ENOENT, Errno::ENOTDIR, Errno::ENODEV, Errno::EOPNOTSUPP];
    error.raw_os_error().is_some_and(|code| absent.contains(&Errno::from_raw(code)))
}

/// One number; `max` is the greatest.
pub(super) fn number(path: &Path) -> Result<Option<u64>> {
    Ok(read(path)?.and_then(|text| parse(text.trim())))
}

/// A number as the kernel writes limits: −1 or `max` for none.
pub(super) fn parse(text: &str) -> Option<u64> {
    match text {
        "max" | "-1" => Some(u64::MAX),
        digits => digits.parse().ok(),
    }
}

/// Lines of a name and a number.
#[derive(Debug, Default)]
pub(super) struct Table(HashMap<String, u64>);

impl Table {
    pub(super) fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), parse(value.trim())?))
        };
        Self(text.lines().filter_map(line).collect())
    }

    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        Ok(read(path)?.map(|text| Self::parse(&text)))
    }

    /// 0 for what is not counted.
    pub(super) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// Page sizes for which `group` has a file `hugetlb.<size>.<suffix>`.
pub(super) fn huge_page_sizes(group: &Path, suffix: &str) -> Vec<String> {
    let size = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?.strip_suffix('.')?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    let mut sizes: Vec<String> =
        fs::read_dir(group).into_iter().flatten().flatten().filter_map(size).collect();
    sizes.sort();
    sizes
}

/// The kernel takes a value by one write to a file that is there.
pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    try_write(path, value).map_err(failed(path, value))
}

pub(super) fn try_write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

pub(super) fn failed(path: &Path, value: &str) -> impl FnOnce(io::Error) -> Error {
    Error::io(format!("write {value:?} to {}", path.display()))
}

/// Names from a request become names of files: nothing that leads elsewhere, nothing of the group's own machinery.
pub(super) fn is_file_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) && !name.starts_with('.')
}
