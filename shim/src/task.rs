//! containerd's task service, for the containers of one pod.
