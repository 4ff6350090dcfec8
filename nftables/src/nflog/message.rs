//! Netlink messages of the log. Pure. Numbers of netlink itself are in host order, those of netfilter in network order.

use std::io;

/// `NFNL_SUBSYS_ULOG << 8` with `NFULNL_MSG_PACKET` and `NFULNL_MSG_CONFIG`.
const PACKET: u16 = 4 << 8;
const CONFIG: u16 = PACKET | 1;
const NLMSG_ERROR: u16 = 2;
const REQUEST_AND_ACK: u16 = 1 | 4;

/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADER: usize = 16;
const GENERIC: usize = 4;

/// `NFULA_CFG_*`.
const CFG_CMD: u16 = 1;
const CFG_MODE: u16 = 2;
const CFG_TIMEOUT: u16 = 4;
const CFG_QTHRESH: u16 = 5;
const CFG_FLAGS: u16 = 6;
const CMD_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const FLAG_SEQ: u16 = 1;

/// `NFULA_*`.
const PACKET_HDR: u16 = 1;
const MARK: u16 = 2;
const IFINDEX_INDEV: u16 = 4;
const IFINDEX_OUTDEV: u16 = 5;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;
const SEQ: u16 = 12;

/// Two flag bits above a type are none of it.
const TYPE_MASK: u16 = 0x3FFF;

/// One packet of the log, as far as it was told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Logged<'a> {
    /// `NF_INET_*`.
    pub(crate) hook: u8,
    pub(crate) mark: u32,
    pub(crate) link: u32,
    /// Its first bytes, from the IP header on.
    pub(crate) payload: &'a [u8],
    pub(crate) prefix: &'a [u8],
    /// Its number in the group, modulo 2^32.
    pub(crate) seq: Option<u32>,
}

/// What makes a socket the reader of `group`.
pub(super) fn requests(group: u16, gather: u32, gather_most: u32) -> [Vec<u8>; 2] {
    // The packet's range is in the rules; 0 is no limit.
    let mode = [0, 0, 0, 0, COPY_PACKET, 0];
    let settings: [(u16, &[u8]); 4] = [
        (CFG_MODE, &mode),
        (CFG_TIMEOUT, &gather.to_be_bytes()),
        (CFG_QTHRESH, &gather_most.to_be_bytes()),
        (CFG_FLAGS, &FLAG_SEQ.to_be_bytes()),
    ];
    [request(group, &[(CFG_CMD, &[CMD_BIND])]), request(group, &settings)]
}

fn request(group: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend(group.to_be_bytes());
    for (kind, value) in attributes {
        body.extend((4 + value.len() as u16).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(CONFIG.to_ne_bytes());
    message.extend(REQUEST_AND_ACK.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// Reads the answer to a request.
pub(super) fn acknowledged(answer: &[u8]) -> io::Result<()> {
    match messages(answer).next() {
        Some((NLMSG_ERROR, body)) => match array(body).map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(error) => Err(io::Error::from_raw_os_error(error.checked_neg().unwrap_or_default())),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Hands every packet of a datagram to `f`. What cannot be read is passed over.
pub(crate) fn each(datagram: &[u8], f: &mut dyn FnMut(Logged<'_>)) {
    for (kind, body) in messages(datagram) {
        if let Some(attributes) = body.get(GENERIC..).filter(|_| kind == PACKET) {
            f(logged(attributes));
        }
    }
}

fn logged(attributes: &[u8]) -> Logged<'_> {
    let mut logged = Logged::default();
    let number = |value: &[u8]| array(value).map(u32::from_be_bytes);
    for (kind, value) in pieces(attributes, attribute) {
        match kind & TYPE_MASK {
            PACKET_HDR => logged.hook = value.get(2).copied().unwrap_or(u8::MAX),
            MARK => logged.mark = number(value).unwrap_or_default(),
            IFINDEX_INDEV | IFINDEX_OUTDEV => logged.link = number(value).unwrap_or_default(),
            PAYLOAD => logged.payload = value,
            PREFIX => logged.prefix = value.split(|&b| b == 0).next().unwrap_or_default(),
            SEQ => logged.seq = number(value),
            _ => {}
        }
    }
    logged
}

fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    pieces(datagram, |bytes| {
        let length = array(bytes).map(u32::from_ne_bytes)?;
        let kind = array(bytes.get(4..)?).map(u16::from_ne_bytes)?;
        Some((usize::try_from(length).ok()?, HEADER, kind))
    })
}

fn attribute(bytes: &[u8]) -> Option<(usize, usize, u16)> {
    let length = array(bytes).map(u16::from_ne_bytes)?;
    Some((length.into(), 4, array(bytes.get(2..)?).map(u16::from_ne_bytes)?))
}

/// Walks along pieces that begin with their length; ends at the first that is not whole. `head` reads the length of a
/// piece, that of its header, and its type.
fn pieces(
    mut bytes: &[u8],
    head: impl Fn(&[u8]) -> Option<(usize, usize, u16)>,
) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, header, kind) = head(bytes)?;
        let value = bytes.get(..length)?.get(header..)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    fn packet(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        // The body of a request is that of a packet.
        message(PACKET, &request(7, attributes)[HEADER..])
    }

    fn count(datagram: &[u8]) -> usize {
        let mut n = 0;
        each(datagram, &mut |_| n += 1);
        n
    }

    #[test]
    fn packets_are_read_and_others_are_not() {
        let told = packet(&[
            (PACKET_HDR, &[8, 0, 3, 0]),
            (MARK, &[0, 0, 1, 2]),
            (IFINDEX_OUTDEV, &[0, 0, 0, 9]),
            (PAYLOAD, b"packet"),
            (PREFIX, b"lattice+ 7\0"),
            (SEQ, &[0, 0, 0, 5]),
            (99, b"?"),
        ]);
        let datagram = [told, message(3, b"done"), packet(&[])].concat();
        let mut seen = 0;
        each(&datagram, &mut |logged| {
            seen += 1;
            if seen == 1 {
                let prefix = &b"lattice+ 7"[..];
                let expected =
                    Logged { hook: 3, mark: 258, link: 9, payload: b"packet", prefix, seq: Some(5) };
                assert_eq!(logged, expected);
            }
        });
        assert_eq!(seen, 2);
    }

    #[test]
    fn an_answer_is_good_or_says_why() {
        acknowledged(&message(NLMSG_ERROR, &[0; 20])).unwrap();
        let busy = acknowledged(&message(NLMSG_ERROR, &(-16i32).to_ne_bytes())).unwrap_err();
        assert_eq!(busy.raw_os_error(), Some(16));
        acknowledged(&message(NLMSG_ERROR, &[])).unwrap_err();
        acknowledged(&message(PACKET, &[0; 20])).unwrap_err();
        acknowledged(&[]).unwrap_err();
    }

    #[test]
    fn lengths_that_lie_end_the_datagram() {
        let mut short = packet(&[(MARK, &[0; 4])]);
        let whole = short.len() as u32;
        for lie in [0, 3, 15, whole + 1, u32::MAX] {
            short[..4].copy_from_slice(&lie.to_ne_bytes());
            assert_eq!(count(&short), 0, "length {lie}");
        }
        let mut inner = packet(&[(MARK, &[1; 4]), (SEQ, &[0; 4])]);
        inner[HEADER + GENERIC..][..2].copy_from_slice(&0xFFFFu16.to_ne_bytes());
        each(&inner, &mut |logged| assert_eq!(logged, Logged::default()));
    }

    proptest! {
        #[test]
        fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            count(&bytes);
            let _ = acknowledged(&bytes);
        }

        #[test]
        fn damaged_packets_are_survived(at in 0usize..60, with: u8, cut in 0usize..80) {
            let mut bytes = packet(&[(PREFIX, b"lattice- 1\0"), (PAYLOAD, &[0x45; 20]), (SEQ, &[0; 4])]);
            let at = at % bytes.len();
            bytes[at] = with;
            bytes.truncate(cut);
            count(&bytes);
        }
    }
}
