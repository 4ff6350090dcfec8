//! `containerd-shim-lattice-v1`.

fn main() {}
