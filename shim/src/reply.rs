//! What `start` is told on standard input, and what it replies, by containerd's release. Pure.
