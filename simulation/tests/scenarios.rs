//! Random scenarios, by the thousand.

use std::time::Duration;

use lattice_simulation::{
    Bare,
    scenario::{self, Expectations, Outcome},
};

#[test]
fn wireguard_alone_survives_whatever_happens() {
    let expect = Expectations {
        finds_paths: false,
        delivers_after: Duration::from_secs(20),
        direct_after: Duration::from_secs(0),
    };
    for seed in 0..20 {
        match scenario::run(seed, Bare::boxed, &expect) {
            Ok(Outcome { .. }) => {}
            Err(failure) => panic!("{failure}"),
        }
    }
}
