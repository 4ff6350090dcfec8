//! Our log: lines to the FIFO `log` of the bundle, which containerd reads.
