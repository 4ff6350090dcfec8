//! Destinations outside the overlay: reached where a rule names them, by NAT; everything beside them is refused and on
//! record, and the host stays as it was.

mod endings;
mod follow;
mod hindrances;
mod host;
mod reach;
mod world;
