use std::os::unix::net::UnixStream;

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{ConnectRequest, ConnectResponse, StateRequest, StateResponse},
    protobuf::Message as _,
    ttrpc::{
        self, Code, Request,
        r#async::{Client, TtrpcContext},
    },
};

use super::*;

/// Has two methods and no more.
struct Small;

#[async_trait]
impl Task for Small {
    async fn connect(&self, _: &TtrpcContext, _: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        Ok(ConnectResponse { shim_pid: 7, ..ConnectResponse::default() })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        Err(Error::NotFound(request.id).into())
    }
}

async fn ask(client: &Client, service: &str, method: &str) -> std::result::Result<Vec<u8>, (Code, String)> {
    let request = Request {
        service: service.to_owned(),
        method: method.to_owned(),
        timeout_nano: 60_000_000_000,
        ..Request::default()
    };
    match client.request(request).await {
        Ok(response) => Ok(response.payload),
        Err(ttrpc::Error::RpcStatus(status)) => Err((status.code(), status.message().to_owned())),
        Err(error) => panic!("{service}/{method}: {error}"),
    }
}

#[tokio::test]
async fn both_versions_are_served_and_what_is_missing_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _server = listen(UnixListener::bind(&path).unwrap(), Arc::new(Small)).await.unwrap();
    let stream = UnixStream::connect(&path).unwrap();
    let client = Client::new(stream.try_into().unwrap());
    for version in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        let connected = ask(&client, version, "Connect").await.unwrap();
        assert_eq!(ConnectResponse::parse_from_bytes(&connected).unwrap().shim_pid, 7, "{version}");
        assert_eq!(
            ask(&client, version, "State").await.unwrap_err().0,
            Code::NOT_FOUND,
            "our own word stands"
        );
        for missing in ["Checkpoint", "Pause", "NoSuchMethod"] {
            let (code, message) = ask(&client, version, missing).await.unwrap_err();
            assert_eq!(code, Code::UNIMPLEMENTED, "{version}/{missing}: {message}");
        }
    }
    let sandbox = ask(&client, "containerd.runtime.sandbox.v1.Sandbox", "CreateSandbox").await;
    assert_eq!(sandbox.unwrap_err().0, Code::UNIMPLEMENTED);
}
