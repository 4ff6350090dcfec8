//! Pins of links: what a program is attached to for as long as the pin is there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::links::FdLink;

use crate::syscall;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Every name of a pinned link begins with this; no map's does.
const PREFIX: &str = "link-";

/// Where the link of `what` is pinned.
pub(crate) fn path(pins: &Path, what: std::fmt::Arguments<'_>) -> PathBuf {
    pins.join(format!("{PREFIX}{what}"))
}

/// Pins a link in the place of the one of before, if any, which is thereby detached: at no instant is there none.
pub(crate) fn replace(link: FdLink, pin: &Path) -> Result<(), Source> {
    let fresh = pin.with_file_name(format!("{}-new", pin.file_name().unwrap_or_default().display()));
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    link.pin(&fresh)?;
    Ok(fs::rename(&fresh, pin)?)
}

/// Removes the pins of links whose device or cgroup has gone: they hold programs and police nothing.
pub(crate) fn remove_gone(pins: &Path) -> io::Result<()> {
    for entry in fs::read_dir(pins)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && syscall::is_gone(&entry.path())?
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
