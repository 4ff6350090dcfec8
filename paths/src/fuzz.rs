//! What hostile datagrams and signals must not do. For the fuzzer alone.
