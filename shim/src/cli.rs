//! The command line, as containerd gives it (Go's `flag` package: one dash or two).
