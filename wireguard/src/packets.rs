//! Packets on their way to where they are sealed.

/// One packet of the link, or several that segmentation made of one: they go to the same address, and none is longer than
/// the link's MTU. Each is written straight to where it is sealed.
pub trait Packets {
    /// The next one's length in bytes; `None` when there is no more.
    fn next_len(&self) -> Option<usize>;
    /// Their destination and IP version as the first bytes of any of them say: at least an IP header, where there is one.
    fn head(&self) -> &[u8];
    /// Writes the next one to `room`, which has its length, and moves on.
    fn write(&mut self, room: &mut [u8]);
}

/// One packet.
#[derive(Debug, Clone, Copy)]
pub struct Single<'a>(Option<&'a [u8]>);

impl<'a> Single<'a> {
    /// That packet.
    pub fn new(packet: &'a [u8]) -> Self {
        Self(Some(packet))
    }
}

impl Packets for Single<'_> {
    fn next_len(&self) -> Option<usize> {
        self.0.map(<[u8]>::len)
    }

    fn head(&self) -> &[u8] {
        self.0.unwrap_or_default()
    }

    fn write(&mut self, room: &mut [u8]) {
        if let Some(packet) = self.0.take() {
            room.copy_from_slice(packet);
        }
    }
}
