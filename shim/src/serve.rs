//! The shim process: the task service, version 2 and 3, on one socket.
