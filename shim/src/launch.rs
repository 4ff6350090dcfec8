//! `start`: finds or begins the pod's shim process, and replies with its address.
