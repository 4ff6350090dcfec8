//! A STUN server as a function (RFC 8489): the answer to a Binding request says from where the request came.

use std::net::{IpAddr, SocketAddr};

/// The port STUN servers listen on.
pub const PORT: u16 = 3478;

const MAGIC_COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const XOR_MAPPED_ADDRESS: [u8; 2] = [0x00, 0x20];

/// The answer to `request`, which came from `remote`. `None` when it is no Binding request.
pub fn answer(request: &[u8], remote: SocketAddr) -> Option<Vec<u8>> {
    let header: &[u8; 20] = request.first_chunk()?;
    let body = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let cookie = MAGIC_COOKIE.to_be_bytes();
    if header[..2] != BINDING_REQUEST || header[4..8] != cookie || request.len() != 20 + body {
        return None;
    }
    let (family, octets) = match remote.ip() {
        IpAddr::V4(v4) => (1, v4.octets().to_vec()),
        IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    let value_len = 4 + octets.len() as u16;
    let mut answer = Vec::with_capacity(44);
    answer.extend(BINDING_SUCCESS);
    answer.extend((4 + value_len).to_be_bytes());
    answer.extend(&header[4..]);
    answer.extend(XOR_MAPPED_ADDRESS);
    answer.extend(value_len.to_be_bytes());
    answer.extend([0, family]);
    answer.extend((remote.port() ^ (MAGIC_COOKIE >> 16) as u16).to_be_bytes());
    // The mask is the cookie and the transaction id (section 14.2).
    answer.extend(octets.iter().zip(&header[4..]).map(|(octet, mask)| octet ^ mask));
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 sections 2.2 and 2.3: the transaction id, and the attribute that stands for each address.
    #[test]
    fn answers_with_the_attributes_of_the_rfc() {
        let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        request.extend([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);
        let v4 = answer(&request, "192.0.2.1:32853".parse().unwrap()).unwrap();
        assert_eq!(v4[..4], [1, 1, 0, 12]);
        assert_eq!(v4[4..20], request[4..]);
        assert_eq!(v4[20..], [0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        let v6 = answer(&request, "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap()).unwrap();
        let expected = [
            0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79,
            0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9,
        ];
        assert_eq!(v6[20..], expected);
        for len in 0..request.len() {
            assert_eq!(answer(&request[..len], "192.0.2.1:1".parse().unwrap()), None);
        }
        assert_eq!(answer(&v4, "192.0.2.1:1".parse().unwrap()), None, "an answer was answered");
    }
}
