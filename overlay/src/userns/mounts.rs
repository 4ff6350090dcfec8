//! Where else a file is: what is mounted, as `proc_pid_mountinfo(5)` has it.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

/// All that is mounted in a mount namespace.
#[derive(Debug, Default)]
pub(super) struct Mounts(Vec<Mounted>);

#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    /// Of the file system, as `major:minor`.
    device: OsString,
    /// What of the file system is mounted.
    root: PathBuf,
    at: PathBuf,
}

impl Mounts {
    /// Those of the calling process.
    pub(super) fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read("/proc/self/mountinfo")?))
    }

    fn parse(text: &[u8]) -> Self {
        let mounted = |line: &[u8]| {
            let mut fields = line.split(|byte| *byte == b' ').skip(2);
            let device = OsString::from_vec(fields.next()?.to_vec());
            Some(Mounted { device, root: unescaped(fields.next()?), at: unescaped(fields.next()?) })
        };
        Self(text.split(|byte| *byte == b'\n').filter_map(mounted).collect())
    }

    /// Every path at which `path`, which no symbolic link is part of, can be seen, or a part of it; first `path` itself.
    pub(super) fn places_of(&self, path: &Path) -> Vec<PathBuf> {
        let mut places = vec![path.to_owned()];
        // Of those at the same place the last one covers the others.
        let over = self.0.iter().filter(|mounted| path.starts_with(&mounted.at));
        let Some(here) = over.max_by_key(|mounted| mounted.at.as_os_str().len()) else { return places };
        let Ok(below) = path.strip_prefix(&here.at) else { return places };
        let inside = joined(&here.root, below);
        for other in self.0.iter().filter(|other| other.device == here.device) {
            let place = match inside.strip_prefix(&other.root) {
                Ok(below) => joined(&other.at, below),
                Err(_) if other.root.starts_with(&inside) => other.at.clone(),
                Err(_) => continue,
            };
            if !places.contains(&place) && (other.root.starts_with(&inside) || is_same(&place, path)) {
                places.push(place);
            }
        }
        places
    }
}

/// Not another file that happens to have that path, as below a mount that covers it.
fn is_same(place: &Path, path: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    match (id(place), id(path)) {
        (Ok(place), Ok(path)) => place == path,
        _ => false,
    }
}

/// Without a slash at its end, which an empty part would leave.
fn joined(path: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) }
}

/// Without the octal numbers that stand for spaces, tabs, line ends and backslashes.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let number = after.first_chunk::<3>().filter(|digits| *first == b'\\' && digits.iter().all(is_octal));
        match number {
            Some([high, middle, low]) => {
                bytes.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

fn is_octal(digit: &u8) -> bool {
    (b'0'..=b'7').contains(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let text = b"36 35 98:0 /mnt1 /mnt\\040two rw,noatime master:1 - ext3 /dev/root rw\n\nshort line\n";
        let wanted = Mounted { device: "98:0".into(), root: "/mnt1".into(), at: "/mnt two".into() };
        assert_eq!(Mounts::parse(text).0[0], wanted);
        assert_eq!(unescaped(br"\134a\9\11"), PathBuf::from(r"\a\9\11"));
    }

    #[test]
    fn a_part_that_is_mounted_elsewhere_is_found() {
        let text =
            b"1 0 8:1 / / rw\n2 1 8:1 /home/me/keys/deep /srv/deep rw\n3 1 8:2 /home/me/keys /other rw\n\
            4 1 0:9 / /home/me/other rw\n";
        let mounts = Mounts::parse(text);
        let places = mounts.places_of(Path::new("/home/me/keys"));
        assert_eq!(places, [PathBuf::from("/home/me/keys"), PathBuf::from("/srv/deep")]);
    }
}
