//! The sandbox's resolver.

use lattice_dns::fuzz;

/// A message of an agent to the resolver.
pub(crate) fn query(bytes: &[u8]) -> bool {
    fuzz::query(bytes)
}

/// A message of a nameserver, or of somebody who guesses, to the resolver.
pub(crate) fn answer(bytes: &[u8]) -> bool {
    fuzz::answer(bytes)
}
