//! Packets of the link.

use std::{net::IpAddr, time::Instant};

use lattice_wire::WgPublicKey;

use crate::{Interface, Output, Packets, ip};

impl Interface {
    /// Encrypts packets of the link for the peer they are for. Says which that is, also when there is no way to it yet.
    pub fn handle_packets(
        &mut self,
        packets: &mut impl Packets,
        now: Instant,
        out: &mut impl Output,
    ) -> Option<WgPublicKey> {
        let Some(destination) = destination(packets) else {
            each(packets, |_| self.shared.drops.malformed += 1);
            return None;
        };
        let Some(slot) = self.routes.lookup(destination) else {
            each(packets, |packet| {
                self.shared.drops.no_route += 1;
                self.unreachables.refuse(packet, now, out);
            });
            return None;
        };
        let peer = self.slots[slot].as_mut()?;
        let key = peer.public_key();
        if !peer.is_reachable() {
            each(packets, |packet| {
                self.shared.drops.no_endpoint += 1;
                self.unreachables.refuse(packet, now, out);
            });
            return Some(key);
        }
        let mtu = self.shared.mtu;
        let mut any = false;
        while let Some(len) = packets.next_len() {
            if peer.send(len, mtu, now, out, |room| packets.write(room)) {
                any = true;
            } else {
                let mut packet = vec![0; len].into_boxed_slice();
                packets.write(&mut packet);
                peer.queue(packet, now, &mut self.shared, out);
            }
        }
        if any {
            peer.data_sent(now, &mut self.shared, out);
        }
        self.deadlines.schedule(peer);
        Some(key)
    }
}

/// Where packets go. One that is all there must be as long as it says.
fn destination(packets: &impl Packets) -> Option<IpAddr> {
    let head = packets.head();
    if packets.next_len() == Some(head.len()) {
        return ip::parse(head).map(|header| header.destination);
    }
    ip::destination(head)
}

/// For packets that are not sent.
fn each(packets: &mut impl Packets, mut work: impl FnMut(&[u8])) {
    let mut packet = Vec::new();
    while let Some(len) = packets.next_len() {
        packet.resize(len, 0);
        packets.write(&mut packet);
        work(&packet);
    }
}
