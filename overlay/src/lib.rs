//! The overlay's data plane: the WireGuard device with its two backends, and the network namespaces it joins.

pub mod netns;

pub use netns::Netns;
