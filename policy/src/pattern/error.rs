//! Why a text is no pattern of names.

use super::{MAX_LABEL, MAX_NAME};

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not a letter, digit or hyphen.
    #[error(
        "a name cannot contain the character {0:?}; its labels are made of a-z, 0-9 and '-', and other letters are written in \
         punycode, for example xn--bcher-kva.example"
    )]
    Character(char),
    /// Two dots, or one at the beginning.
    #[error("a label of the name is empty; write for example api.example.com")]
    EmptyLabel,
    /// A label begins or ends with a hyphen.
    #[error("a label of the name begins or ends with '-'; write for example my-api.example.com")]
    Hyphen,
    /// More than [`MAX_LABEL`] bytes.
    #[error("a label of the name is longer than {MAX_LABEL} bytes")]
    LongLabel,
    /// More than [`MAX_NAME`] bytes.
    #[error("the name is longer than {MAX_NAME} bytes")]
    TooLong,
    /// `localhost`.
    #[error(
        "{0:?} is a name of one label; write it in full, for example api.example.com, or write an address"
    )]
    OneLabel(String),
    /// Ends in a number, which some program reads as an address.
    #[error("{0:?} ends in a number, which some programs read as an address; write the address itself")]
    Number(String),
    /// A star elsewhere than in front.
    #[error(
        "'*' can only be the whole first label, and once; write *.example.com for every name below example.com"
    )]
    Star,
    /// `*.com`.
    #[error("*.{0} would open everything below {0}; name at least two labels, for example *.example.{0}")]
    WideStar(String),
    /// A name of the overlay.
    #[error(
        "names of the overlay (.lattice) stand for peers; write the peer's address, for example 10.42.0.10/32:8080, or, in \
         the control plane's policies, {{name=…}}"
    )]
    Overlay,
}
