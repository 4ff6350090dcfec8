//! Resource records, as far as we read them: addresses, aliases, and what the OPT record has in its header.
//!
//! Nothing else is decoded, whoever sent it. What is not understood cannot be misread, and cannot fill the log either.

use std::net::IpAddr;

use hickory_proto::{
    rr::Name,
    serialize::binary::{BinDecodable as _, BinDecoder},
};

/// Types (RFC 1035 §3.2.2, RFC 3596 §2.1, RFC 6891 §6.1.1) and the class IN.
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const OPT: u16 = 41;
const IN: u16 = 1;

/// A record. Its name is what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: Name,
    /// Seconds.
    pub(crate) ttl: u32,
    pub(crate) data: Data,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Address(IpAddr),
    Alias(Name),
    /// EDNS: what its sender takes by UDP, in octets, and the version it speaks.
    Opt {
        payload: u16,
        version: u8,
    },
    /// Anything else, or of another class.
    Other,
}

impl Record {
    /// Reads one; none when there is no whole one.
    pub(crate) fn read(decoder: &mut BinDecoder<'_>) -> Option<Self> {
        let name = Name::read(decoder).ok()?;
        let kind = u16(decoder)?;
        let class = u16(decoder)?;
        let ttl = decoder.read_u32().ok()?.unverified(/* any is valid */);
        let length = usize::from(u16(decoder)?);
        let data = match (kind, class) {
            (OPT, payload) => {
                let [_, version, ..] = ttl.to_be_bytes();
                skip(decoder, length)?;
                Data::Opt { payload, version }
            }
            (A, IN) => Data::Address(IpAddr::from(octets::<4>(decoder, length)?)),
            (AAAA, IN) => Data::Address(IpAddr::from(octets::<16>(decoder, length)?)),
            (CNAME, IN) => {
                let end = decoder.index() + length;
                let target = Name::read(decoder).ok().filter(|_| decoder.index() == end)?;
                Data::Alias(target)
            }
            _ => {
                skip(decoder, length)?;
                Data::Other
            }
        };
        Some(Self { name, ttl, data })
    }

    /// Reads `count`; none when there are not as many.
    pub(crate) fn read_all(decoder: &mut BinDecoder<'_>, count: u16) -> Option<Vec<Self>> {
        // Its capacity is not the count, which is only a claim.
        let mut records = Vec::new();
        for _ in 0..count {
            records.push(Self::read(decoder)?);
        }
        Some(records)
    }
}

fn u16(decoder: &mut BinDecoder<'_>) -> Option<u16> {
    Some(decoder.read_u16().ok()?.unverified(/* the caller knows what it may be */))
}

fn skip(decoder: &mut BinDecoder<'_>, length: usize) -> Option<()> {
    decoder.read_slice(length).ok().map(drop)
}

fn octets<const N: usize>(decoder: &mut BinDecoder<'_>, length: usize) -> Option<[u8; N]> {
    decoder.read_slice(length).ok()?.unverified(/* any octets are an address */).try_into().ok()
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::Edns,
        rr::{DNSClass, RData, Record as Full, rdata},
        serialize::binary::BinEncodable as _,
    };

    use super::*;

    fn read(bytes: &[u8]) -> Option<Record> {
        Record::read(&mut BinDecoder::new(bytes))
    }

    fn name() -> Name {
        Name::from_ascii("a.example.com.").unwrap()
    }

    fn full(data: RData) -> Full {
        Full::from_rdata(name(), 60, data)
    }

    #[test]
    fn it_agrees_with_the_whole_decoder() {
        let target = Name::from_ascii("b.example.com.").unwrap();
        for (data, expected) in [
            (RData::A("192.0.2.1".parse().unwrap()), Data::Address("192.0.2.1".parse().unwrap())),
            (RData::AAAA("2001:db8::1".parse().unwrap()), Data::Address("2001:db8::1".parse().unwrap())),
            (RData::CNAME(rdata::CNAME(target.clone())), Data::Alias(target.clone())),
            (RData::PTR(rdata::PTR(target)), Data::Other),
            (RData::TXT(rdata::TXT::new(vec!["text".into()])), Data::Other),
        ] {
            let bytes = full(data.clone()).to_bytes().unwrap();
            assert_eq!(read(&bytes), Some(Record { name: name(), ttl: 60, data: expected }));
            for length in 0..bytes.len() {
                assert_eq!(read(&bytes[..length]), None, "{data} cut to {length}");
            }
            let mut other_class = full(data);
            other_class.dns_class = DNSClass::CH;
            assert_eq!(read(&other_class.to_bytes().unwrap()).unwrap().data, Data::Other);
        }
        let mut edns = Edns::new();
        edns.set_max_payload(1232).set_version(3);
        let opt = read(&Full::from(&edns).to_bytes().unwrap()).unwrap();
        assert_eq!((opt.name.is_root(), opt.data), (true, Data::Opt { payload: 1232, version: 3 }));
    }

    #[test]
    fn data_of_another_length_is_not_an_address_or_an_alias() {
        // The alias is two octets: its own name once more, compressed.
        for (data, length) in
            [(RData::A("192.0.2.1".parse().unwrap()), 4), (RData::CNAME(rdata::CNAME(name())), 2)]
        {
            let whole = full(data).to_bytes().unwrap();
            let place = whole.len() - usize::from(length) - 1;
            assert_eq!(whole[place], length);
            for wrong in [0, length - 1, length + 1] {
                let mut bytes = [whole.as_slice(), &[0; 4]].concat();
                bytes[place] = wrong;
                assert_eq!(read(&bytes), None, "{wrong} instead of {length}");
            }
        }
    }
}
