//! Which path to take to each peer: a state machine of ICE, STUN queries and relays, without I/O.

#![forbid(unsafe_code)]
