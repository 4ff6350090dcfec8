//! The Container Runtime Interface, version 1, as far as the tests speak it.
//!
//! The numbers are those of `k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`; protobuf skips the fields that are left out here.

mod containers;
mod pods;

use std::{path::Path, time::Duration};

pub use containers::*;
pub use pods::*;

use super::grpc::{Client, Status};
use crate::process::patience;

/// A kubelet waits two minutes for a container and four for a pod.
const LIMIT: Duration = Duration::from_secs(120);

/// The kubelet's side of CRI.
#[derive(Debug, Clone)]
pub struct Cri {
    client: Client,
}

impl Cri {
    /// CRI at containerd's socket.
    pub fn new(socket: &Path) -> Self {
        Self { client: Client::new(socket) }
    }

    /// A call of the runtime service that may take as long as a kubelet would wait.
    ///
    /// # Errors
    /// What containerd answered, or that it did not in time.
    pub fn call<A: prost::Message + Default>(
        &self,
        method: &str,
        request: &impl prost::Message,
    ) -> Result<A, Status> {
        self.client.call(&format!("/runtime.v1.RuntimeService/{method}"), request, patience(LIMIT))
    }

    /// Whether CRI is served.
    ///
    /// # Errors
    /// When it is not yet.
    pub fn version(&self) -> Result<VersionResponse, Status> {
        let limit = Duration::from_secs(2);
        self.client.call("/runtime.v1.RuntimeService/Version", &VersionRequest {}, limit)
    }

    /// Whether the image of that name is here.
    pub fn has_image(&self, name: &str) -> bool {
        let request = ImageStatusRequest { image: Some(ImageSpec { image: name.into() }) };
        let answer: Result<ImageStatusResponse, _> =
            self.client.call("/runtime.v1.ImageService/ImageStatus", &request, patience(LIMIT));
        answer.is_ok_and(|answer| answer.image.is_some())
    }
}
