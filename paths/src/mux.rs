//! What a datagram of our one UDP socket is.

/// What to do with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// For the WireGuard layer.
    WireGuard,
    /// For [`crate::Paths::handle_stun`].
    Stun,
    /// For nobody: drop and count it.
    Garbage,
}

/// The cookie that every STUN message carries (RFC 8489 section 5).
pub const STUN_COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();

/// WireGuard is asked first: the receiver index of a data message, at the same place as STUN's cookie, may happen to equal it, but no STUN
/// message begins as WireGuard's do (a type of 1 to 4 and three zeros would be a message of 0 bytes of an unknown method).
pub fn classify(datagram: &[u8]) -> Kind {
    if let [1..=4, 0, 0, 0, ..] = datagram
        && datagram.len() >= 32
    {
        return Kind::WireGuard;
    }
    let is_stun = datagram.len() >= 20 && datagram[0] & 0b1100_0000 == 0 && datagram[4..8] == STUN_COOKIE;
    if is_stun { Kind::Stun } else { Kind::Garbage }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wireguard_goes_before_stun() {
        let mut data = [0; 32];
        data[0] = 4;
        assert_eq!(classify(&data), Kind::WireGuard);
        data[4..8].copy_from_slice(&STUN_COOKIE);
        assert_eq!(classify(&data), Kind::WireGuard, "an index that equals the cookie");
        let mut stun = [0; 20];
        stun[1] = 1;
        stun[4..8].copy_from_slice(&STUN_COOKIE);
        assert_eq!(classify(&stun), Kind::Stun);
        for (len, first) in [(31, 4), (19, 0), (32, 5), (32, 0), (0, 0)] {
            let mut garbage = vec![0; len];
            garbage.iter_mut().take(1).for_each(|byte| *byte = first);
            assert_eq!(classify(&garbage), Kind::Garbage, "{len} bytes beginning with {first}");
        }
        stun[0] = 0x80;
        assert_eq!(classify(&stun), Kind::Garbage);
    }
}
