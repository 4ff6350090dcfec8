//! The relay (LRP) and the STUN server: servers that need not be trusted with anything but to be there.

#![forbid(unsafe_code)]
