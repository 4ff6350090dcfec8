//! The chain of IPv6 extension headers (RFC 8200, section 4).

use lattice_policy::Reason;

use super::{Fragment, Packet, u32_at};

/// How far a chain is followed. Longer ones are refused: no honest sender makes them.
const MAX_HEADERS: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

impl Packet<'_> {
    pub(super) fn read_extensions(&mut self, mut next: u8) -> Result<(), Reason> {
        let mut fragmented = false;
        for place in 0..MAX_HEADERS {
            self.key.proto = next;
            if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
                return Ok(());
            }
            let header: &[u8; 4] = self.load(self.transport)?;
            if next == HOP_BY_HOP && place > 0 {
                return Err(Reason::Malformed);
            }
            if next == FRAGMENT {
                if fragmented {
                    return Err(Reason::Malformed);
                }
                fragmented = true;
                self.fragment_id = u32_at(self.load::<4>(self.transport + 4)?, 0);
                self.transport += 8;
                let offset = u16::from_be_bytes([header[2], header[3]]);
                if offset >> 3 != 0 {
                    self.fragment = Fragment::Later;
                    self.key.proto = header[0];
                    return Ok(());
                }
                if offset & 1 != 0 {
                    self.fragment = Fragment::First;
                }
            } else {
                // Segments left: the packet goes on to a destination that is not in the header.
                if next == ROUTING && header[3] != 0 {
                    return Err(Reason::Protocol);
                }
                self.transport += (usize::from(header[1]) + 1) * 8;
            }
            next = header[0];
        }
        Err(Reason::Malformed)
    }
}
