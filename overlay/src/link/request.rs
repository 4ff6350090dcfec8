//! Runs rtnetlink requests inside a namespace, and turns their errors into ours.

use std::io;

use rtnetlink::Handle;

use super::LinkError;
use crate::Netns;

/// Runs `work` with a netlink connection of `netns`.
pub(crate) fn run<T: Send>(
    netns: &Netns,
    work: impl AsyncFnOnce(Handle) -> Result<T, LinkError> + Send,
) -> Result<T, LinkError> {
    run_with(netns, false, work)
}

/// Runs `work` with a connection on which the kernel heeds what listings are narrowed to (`NETLINK_GET_STRICT_CHK`), and says how each ended.
pub(super) fn run_filtered<T: Send>(
    netns: &Netns,
    work: impl AsyncFnOnce(Handle) -> Result<T, LinkError> + Send,
) -> Result<T, LinkError> {
    run_with(netns, true, work)
}

fn run_with<T: Send>(
    netns: &Netns,
    filtered: bool,
    work: impl AsyncFnOnce(Handle) -> Result<T, LinkError> + Send,
) -> Result<T, LinkError> {
    netns
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .map_err(LinkError::Namespace)?;
            runtime.block_on(async {
                let made = if filtered {
                    rtnetlink::new_connection_with_strict_check()
                } else {
                    rtnetlink::new_connection()
                };
                let (mut connection, handle, _) = made.map_err(LinkError::Namespace)?;
                connection.set_forward_done(filtered);
                tokio::spawn(connection);
                work(handle).await
            })
        })
        .map_err(LinkError::Namespace)?
}

/// An rtnetlink error as an I/O error, which keeps the kernel's error number.
pub(super) struct Failed(pub(super) io::Error);

impl From<rtnetlink::Error> for Failed {
    fn from(error: rtnetlink::Error) -> Self {
        Self(match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        })
    }
}

/// For `map_err`: names the action that failed.
pub(super) fn failed(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let action = action.into();
    move |error| LinkError::Refused { action, source: Failed::from(error).0 }
}
