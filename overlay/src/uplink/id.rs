//! The names of an uplink's parts.

use std::fmt;

use super::{PREFIX, TABLE_PREFIX};

/// Names one uplink's parts: unique in its underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UplinkId(u32);

impl UplinkId {
    const BITS: u32 = 28;

    /// From the lower 28 bits of `number`, which should come from a hash: they also say where the search for a free address
    /// begins.
    pub fn new(number: u32) -> Self {
        Self(number & ((1 << Self::BITS) - 1))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let id = u32::from_str_radix(text, 16).ok().map(Self::new)?;
        (id.to_string() == text).then_some(id)
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// The name of the link in the underlay. 15 bytes, the most there can be.
    pub fn link(self) -> String {
        format!("{PREFIX}{self}")
    }

    /// The name of the nftables table (family `inet`).
    pub fn table(self) -> String {
        format!("{TABLE_PREFIX}{self}")
    }
}

impl fmt::Display for UplinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:07x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_are_read_back() {
        let id = UplinkId::new(u32::MAX);
        assert_eq!((id.link().as_str(), id.table().as_str()), ("lattice-fffffff", "lattice-up-fffffff"));
        assert!(id.link().len() < libc::IFNAMSIZ);
        assert_eq!(UplinkId::parse("0000abc"), Some(UplinkId::new(0xabc)));
        for bad in ["", "abc", "0000ABC", "+000abc", "10000000", "lattice"] {
            assert_eq!(UplinkId::parse(bad), None, "{bad}");
        }
    }
}
