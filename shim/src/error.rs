//! What a request of containerd's can fail of. The one place where codes are chosen: containerd and kubelet act by them.

use containerd_shim_protos::ttrpc::{self, Code};

/// A refused or failed request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such container, exec or process; also a signal to one that has ended.
    #[error("{0}: not found")]
    NotFound(String),
    /// The id is in use.
    #[error("{0}: already exists")]
    AlreadyExists(String),
    /// The request cannot be served in the present state.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The request itself is wrong: a bundle, spec, annotation, option.
    #[error("{0}")]
    Invalid(String),
    /// This runtime does not do it.
    #[error("{0} is not implemented")]
    Unimplemented(String),
    /// It took longer than it may.
    #[error("{what} took longer than {seconds} s")]
    Timeout {
        /// What was tried.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// Phase one refused: which step, why and what to do.
    #[error("lattice network: {0}")]
    Network(String),
    /// runsc refused, by its own words.
    #[error("runsc {verb}: {reason}")]
    Runsc {
        /// Its command.
        verb: &'static str,
        /// The last error of its log, else of its standard error.
        reason: String,
    },
    /// A file operation of ours.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Of one request.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err`: says what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::NotFound(_) => Code::NOT_FOUND,
            Error::AlreadyExists(_) => Code::ALREADY_EXISTS,
            Error::FailedPrecondition(_) => Code::FAILED_PRECONDITION,
            Error::Invalid(_) => Code::INVALID_ARGUMENT,
            Error::Unimplemented(_) => Code::UNIMPLEMENTED,
            Error::Timeout { .. } => Code::DEADLINE_EXCEEDED,
            Error::Network(_) | Error::Runsc { .. } | Error::Io { .. } => Code::UNKNOWN,
        };
        Self::RpcStatus(ttrpc::get_status(code, error.to_string()))
    }
}
