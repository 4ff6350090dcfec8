//! What the device's owner, and that of its filter, want done.

use std::time::Instant;

use super::{Core, Inside, Io};
use crate::device::commands::Command;

/// What came of commands, for who has more to do than [`Core`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// It is time to stop.
    pub(crate) stop: bool,
    /// There may be other peers.
    pub(crate) peers: bool,
    /// There is another policy.
    pub(crate) policy: bool,
    /// There may be other relays.
    pub(crate) relays: bool,
}

impl Core {
    /// Does what is asked for. `dropped` is how many packets the inside did not take so far. An answer nobody waits for any more is
    /// no error.
    pub(crate) fn handle_commands(&mut self, inside: &mut impl Inside, dropped: u64, now: Instant) -> Done {
        let mut done = Done::default();
        // Reading resets the counter; that it is zero already is no error either.
        let _ = self.wake.read();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::SetPeers(mut peers, reply) => {
                    done.peers = true;
                    let Self { interface, outside, ways, .. } = self;
                    // A path is looked for when there is traffic, from either end: no hole need be kept open for it.
                    if ways.is_some() {
                        peers.iter_mut().for_each(|peer| peer.keepalive = None);
                    }
                    interface.set_peers(&peers, now, &mut Io { outside, inside: &mut *inside });
                    if let Some(ways) = ways {
                        ways.set_peers(&peers, now);
                    }
                    let _ = reply.send(Ok(()));
                }
                Command::Peers(reply) => drop(reply.send(Ok(self.peers()))),
                Command::Drops(reply) => drop(reply.send(Ok(self.drops(dropped)))),
                // Without a gate nobody has a handle to ask with; the sender that is dropped says so.
                Command::Apply(program, old) => {
                    if let Some(gate) = &mut self.outside.gate {
                        done.policy = true;
                        let _ = old.send(gate.switch(*program));
                    }
                }
                Command::Pin(pins, reply) => {
                    // Nothing is judged anew for it: pins only add to what is permitted.
                    if let Some(gate) = &mut self.outside.gate {
                        gate.pin(&pins);
                        let _ = reply.send(());
                    }
                }
                Command::Counters(reply) => {
                    if let Some(gate) = &self.outside.gate {
                        let _ = reply.send(gate.counters());
                    }
                }
                Command::Deny(firsts, reply) => {
                    if let Some(gate) = &mut self.outside.gate {
                        let denied = firsts.iter().map(|first| gate.denial(first.bytes()).is_some());
                        let _ = reply.send(denied.collect());
                    }
                }
                Command::Relays(reply) => drop(reply.send(self.outside.relays.status())),
                // Without path finding nobody has a handle to ask with.
                Command::SetLocal(addresses) => {
                    self.ways.iter_mut().for_each(|ways| ways.set_local(&addresses, now));
                }
                Command::SetServers(servers) => {
                    if let Some(ways) = &mut self.ways {
                        done.relays = true;
                        ways.set_servers(*servers, &mut self.outside.relays, now);
                    }
                }
                Command::Signal(from, signal) => {
                    if let Some(ways) = &mut self.ways {
                        ways.handle_signal(&from, *signal, now);
                    }
                }
                Command::Stop => {
                    done.stop = true;
                    return done;
                }
            }
        }
        done
    }
}
