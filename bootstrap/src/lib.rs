//! Phase one: everything that must stand before an agent may start, as one ordered list of named steps, each with its
//! undo.

mod ready;

pub use ready::Ready;
