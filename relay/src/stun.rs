//! A STUN server (RFC 8489): tells whoever asks from which address it is seen. Binding requests over UDP without authentication, as
//! section 12 has it, and nothing else; relaying is LRP's.
//!
//! An answer has at most [`MAX_ANSWER`] bytes for a question of at least 20, each source is answered so often and no more, and only
//! requests are answered: it neither amplifies nor talks to another server.

mod message;
mod server;

pub use message::{MAX_ANSWER, answer};
pub use server::{StunError, StunServer};
