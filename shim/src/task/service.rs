//! containerd's messages, in and out.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use containerd_shim_protos::{
    api,
    protobuf::MessageField,
    shim_async::Task,
    ttrpc::{self, r#async::TtrpcContext},
};
use tokio::time::{sleep, timeout};

use super::{
    checkpoint, create, delete, exits, network,
    pod::{Pod, Settings},
    query, start,
};
use crate::error::Result;

/// A shim that nobody gives a container ends after this.
const UNUSED: Duration = Duration::from_secs(300);
/// How long the pod may take to end when we are told to.
const END: Duration = Duration::from_secs(10);

/// The service. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Service(Arc<Pod>);

impl Service {
    /// Inside a runtime.
    ///
    /// # Errors
    /// [`Error::Invalid`] for ids that are none.
    pub fn new(settings: Settings) -> Result<Self> {
        let pod = Arc::new(Pod::new(settings)?);
        let watched = pod.clone();
        tokio::spawn(async move {
            loop {
                sleep(UNUSED).await;
                if watched.is_empty() {
                    tracing::warn!("nobody gave this shim a container: it ends");
                    watched.end();
                }
            }
        });
        Ok(Self(pod))
    }

    /// Resolves when the process is to end.
    pub async fn ended(&self) {
        self.0.ended().await;
    }

    /// Ends the pod: for a signal to the shim. What is left on disk is removed by containerd's `delete`.
    pub async fn end(&self) {
        self.0.close();
        let ended = delete::end_sandbox(&self.0).await;
        for container in self.0.containers() {
            let _ = timeout(END, container.init.wait()).await;
        }
        let _ = match ended {
            Ok(()) => timeout(END, network::stop(&self.0)).await,
            Err(_) => timeout(END, network::leave(&self.0)).await,
        };
        self.0.settings.publisher.flush(END).await;
        self.0.end();
    }

    /// Runs `work` to its end, whatever becomes of the client.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> ttrpc::Result<T> {
        match tokio::spawn(work).await {
            Ok(done) => Ok(done.inspect_err(|error| tracing::info!(%error, "refused"))?),
            Err(error) => Err(ttrpc::Error::Others(format!("the shim failed: {error}"))),
        }
    }
}

#[async_trait]
impl Task for Service {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> ttrpc::Result<api::CreateTaskResponse> {
        let pid = self.run(create::create(self.0.clone(), request)).await?;
        Ok(api::CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: api::StartRequest) -> ttrpc::Result<api::StartResponse> {
        let pod = self.0.clone();
        let pid = self.run(async move { start::start(pod, &request.id, &request.exec_id).await }).await?;
        Ok(api::StartResponse { pid, ..Default::default() })
    }

    async fn exec(&self, _: &TtrpcContext, request: api::ExecProcessRequest) -> ttrpc::Result<api::Empty> {
        start::add_exec(&self.0, request)?;
        Ok(api::Empty::default())
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> ttrpc::Result<api::Empty> {
        let pod = self.0.clone();
        self.run(async move {
            start::kill(pod, &request.id, &request.exec_id, request.signal, request.all).await
        })
        .await?;
        Ok(api::Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, request: api::WaitRequest) -> ttrpc::Result<api::WaitResponse> {
        let process = self.0.container(&request.id)?.process(&request.exec_id)?;
        let exit = process.wait().await;
        Ok(api::WaitResponse {
            exit_status: exit.status,
            exited_at: exits::timestamp(exit.at),
            ..Default::default()
        })
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> ttrpc::Result<api::DeleteResponse> {
        let pod = self.0.clone();
        self.run(async move { delete::delete(pod, &request.id, &request.exec_id).await }).await
    }

    async fn state(&self, _: &TtrpcContext, request: api::StateRequest) -> ttrpc::Result<api::StateResponse> {
        Ok(query::state(&self.0, &request.id, &request.exec_id)?)
    }

    async fn pids(&self, _: &TtrpcContext, request: api::PidsRequest) -> ttrpc::Result<api::PidsResponse> {
        Ok(query::pids(&self.0, &request.id)?)
    }

    async fn stats(&self, _: &TtrpcContext, request: api::StatsRequest) -> ttrpc::Result<api::StatsResponse> {
        let metrics = query::metrics(&self.0, &request.id).await?;
        Ok(api::StatsResponse { stats: MessageField::some(metrics), ..Default::default() })
    }

    async fn update(&self, _: &TtrpcContext, request: api::UpdateTaskRequest) -> ttrpc::Result<api::Empty> {
        let pod = self.0.clone();
        self.run(async move { query::update(pod, &request.id, &request.resources.value).await }).await?;
        Ok(api::Empty::default())
    }

    async fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> ttrpc::Result<api::Empty> {
        let pod = self.0.clone();
        self.run(async move { start::pause(pod, &request.id, true).await }).await?;
        Ok(api::Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: api::ResumeRequest) -> ttrpc::Result<api::Empty> {
        let pod = self.0.clone();
        self.run(async move { start::pause(pod, &request.id, false).await }).await?;
        Ok(api::Empty::default())
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        request: api::CheckpointTaskRequest,
    ) -> ttrpc::Result<api::Empty> {
        self.run(checkpoint::checkpoint(self.0.clone(), request)).await?;
        Ok(api::Empty::default())
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: api::ResizePtyRequest,
    ) -> ttrpc::Result<api::Empty> {
        let process = self.0.container(&request.id)?.process(&request.exec_id)?;
        process.resize(request.width, request.height)?;
        Ok(api::Empty::default())
    }

    async fn close_io(&self, _: &TtrpcContext, request: api::CloseIORequest) -> ttrpc::Result<api::Empty> {
        let process = self.0.container(&request.id)?.process(&request.exec_id)?;
        if request.stdin {
            process.close_input();
        }
        Ok(api::Empty::default())
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: api::ConnectRequest,
    ) -> ttrpc::Result<api::ConnectResponse> {
        Ok(query::connect(&self.0, &request.id))
    }

    /// containerd asks after each deletion: only the last one ends the process.
    async fn shutdown(&self, _: &TtrpcContext, request: api::ShutdownRequest) -> ttrpc::Result<api::Empty> {
        if self.0.is_empty() {
            delete::finish(&self.0).await;
            self.0.settings.publisher.flush(END).await;
            self.0.end();
        } else if request.now {
            let service = self.clone();
            self.run(async move {
                service.end().await;
                Ok(())
            })
            .await?;
        }
        Ok(api::Empty::default())
    }
}
