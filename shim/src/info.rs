//! `-info` and `-v`: what this runtime is.
