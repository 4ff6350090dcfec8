//! Peers in a little network in virtual time.

mod faults;
mod hostile;
mod idle;
mod nats;
mod network;
mod other_agent;
