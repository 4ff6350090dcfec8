//! The real `latticed` with a real `nats-server`: each test starts its own, on free ports of the loopback, in a
//! directory of its own. Needs `nats-server` on PATH (`apt-get install nats-server`).

#![allow(unreachable_pub)] // nothing is outside a test binary
#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests

mod administration;
mod agent_enroll;
mod api;
mod backup;
mod bad_input;
mod clock;
#[path = "../../src/store/contract/cluster.rs"]
#[allow(dead_code)] // what the tests of the store do to it is not done here
mod cluster;
mod disk;
mod enrolment;
mod hostile;
mod membership;
mod nats_cluster;
mod owner;
mod peer;
mod postgres;
mod reach;
mod revocation;
mod roles;
mod server;
mod several;
mod signals;
mod start;
mod survival;
mod tls;
