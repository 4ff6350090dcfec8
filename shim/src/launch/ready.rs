//! The pipe by which a server says that it serves, or why it does not.

use std::{
    io::{PipeReader, Read as _},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::error::{Error, Result};

/// What a server writes that serves. Anything else is the reason why not.
pub const READY: &[u8] = b"ready";
/// A reason is one line.
const MOST: usize = 4096;

/// Waits for it.
///
/// # Errors
/// The server's own reason.
pub(super) fn wait(pipe: &PipeReader, limit: Duration) -> Result<()> {
    let mut told = Vec::new();
    let deadline = Instant::now() + limit;
    while told.len() < MOST {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => {
                return Err(Error::Timeout { what: "the shim's start".into(), seconds: limit.as_secs() });
            }
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(Error::io("await the shim's server")(error.into())),
            Ok(_) => {}
        }
        let mut some = [0; 512];
        let mut pipe = pipe;
        match pipe.read(&mut some).map_err(Error::io("await the shim's server"))? {
            0 => break,
            length => told.extend_from_slice(&some[..length]),
        }
    }
    if told == READY {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&told);
    let reason = if reason.is_empty() { "the shim's server ended before it served" } else { reason.trim() };
    Err(Error::FailedPrecondition(reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::{Write as _, pipe};

    use super::*;

    #[test]
    fn a_server_is_ready_when_it_says_so_and_nothing_else() {
        let limit = Duration::from_secs(60);
        for (told, reason) in
            [(&b"ready"[..], None), (b"no room", Some("no room")), (b"", Some("before it served"))]
        {
            let (reader, mut writer) = pipe().unwrap();
            writer.write_all(told).unwrap();
            drop(writer);
            let waited = wait(&reader, limit).map_err(|error| error.to_string());
            match reason {
                None => waited.unwrap(),
                Some(reason) => assert!(waited.unwrap_err().contains(reason)),
            }
        }
    }

    #[test]
    fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
        let (reader, _writer) = pipe().unwrap();
        assert!(matches!(wait(&reader, Duration::from_millis(5)), Err(Error::Timeout { .. })));
    }
}
