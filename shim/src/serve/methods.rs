//! The table of methods: one service under the names of both versions, which differ in nothing else.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use containerd_shim_protos::{
    shim_async::{Task, create_task},
    ttrpc::{
        Code, Request, Response, Result,
        r#async::{MethodHandler, Service, TtrpcContext},
        get_status,
    },
};

const NAMES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
/// containerd may ask for it; without a method each answer is "unimplemented", while an unknown service is an invalid argument.
const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// All of them.
pub(super) fn all(service: &Arc<dyn Task + Send + Sync>) -> HashMap<String, Service> {
    let mut all = HashMap::new();
    for name in NAMES {
        let made = create_task(Arc::clone(service)).into_values().flat_map(|service| service.methods);
        let methods = made
            .map(|(method, handler)| {
                (method, Box::new(Honest(handler)) as Box<dyn MethodHandler + Send + Sync>)
            })
            .collect();
        all.insert(name.to_owned(), Service { methods, streams: HashMap::new() });
    }
    all.insert(SANDBOX.to_owned(), Service { methods: HashMap::new(), streams: HashMap::new() });
    all
}

/// A method that we do not have answers "not found" by default, which containerd takes for a container that is gone.
struct Honest(Box<dyn MethodHandler + Send + Sync>);

#[async_trait]
impl MethodHandler for Honest {
    async fn handler(&self, context: TtrpcContext, request: Request) -> Result<Response> {
        let method = request.method.clone();
        let mut response = self.0.handler(context, request).await?;
        let (code, message) = (response.status().code(), response.status().message());
        if code == Code::NOT_FOUND && message.ends_with(&format!("/{method} is not supported")) {
            response.set_status(get_status(Code::UNIMPLEMENTED, format!("{method} is not implemented")));
        }
        Ok(response)
    }
}
