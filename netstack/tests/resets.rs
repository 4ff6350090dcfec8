//! What arrives of a stream that ends with a reset.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions marked #[test] as tests")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "virtual/net.rs"]
mod net;

use lattice_netstack::{Cause, Error, Event};
use net::{Conditions, Net};

#[test]
fn what_was_written_before_a_reset_arrives_before_it() {
    for v6 in [false, true] {
        for len in [3, 13_600, 20_000] {
            let mut net = Net::new(1, Conditions::default());
            let [a, b] = net.pair(v6);
            let answer = vec![7; len];
            let sent = net.stacks[1].send(net.now, b, &answer).unwrap();
            assert_eq!(sent, len);
            net.stacks[1].reset(b);
            // Everything comes before A reads any of it.
            net.run(std::time::Duration::from_secs(1));
            assert_eq!(net.stacks[1].flows(), 0);
            let broken = Event::Broken { flow: a, cause: Cause::Reset };
            assert!(net.was_told(0, broken));
            assert_eq!(net.stacks[0].flows(), 1, "there is something to be read");
            let mut got = vec![0; len + 1];
            // Of more than a first flight holds, as much as the congestion window of a new connection.
            let read = net.stacks[0].recv(a, &mut got).unwrap();
            assert!(read == len || (len > 14_600 && read >= 2048), "{read} of {len}");
            assert_eq!(got[..read], answer[..read]);
            net.poll();
            assert_eq!(net.stacks[0].recv(a, &mut got), Err(Error::Ended));
            assert_eq!(net.stacks[0].flows(), 0);
        }
    }
}

#[test]
fn who_leaves_what_came_before_a_reset_holds_nothing() {
    let mut net = Net::new(1, Conditions::default());
    let [a, b] = net.pair(false);
    net.stacks[1].send(net.now, b, b"413").unwrap();
    net.stacks[1].reset(b);
    net.until("A is told", |net| net.was_told(0, Event::Broken { flow: a, cause: Cause::Reset }));
    net.stacks[0].close(net.now, a);
    net.poll();
    assert_eq!(net.stacks[0].flows(), 0);
}
