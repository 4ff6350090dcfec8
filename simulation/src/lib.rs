//! A network in virtual time: hosts, NATs, loss and partitions from a seed, for tests of the data plane.

#![forbid(unsafe_code)]
