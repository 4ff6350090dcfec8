//! Writing a container down, and beginning one from what was written.
//!
//! gVisor writes down a whole sandbox. One container of several cannot be told apart in that, so only a container that is alone in its
//! sandbox is written down, and only the first of a sandbox begins from what was.

use std::{fs, path::Path, sync::Arc};

use containerd_shim_protos::{
    api::CheckpointTaskRequest,
    events::task::TaskCheckpointed,
    protobuf::{Message as _, well_known_types::any::Any},
    shim::oci::CheckpointOptions,
};

use oci_spec::runtime::Spec;

use super::{
    pod::Pod,
    process::{Phase, Process},
};
use crate::{
    annotations::Role,
    error::{Error, Result},
    events::Event,
};

const OPTIONS: &str = "containerd.runc.v1.CheckpointOptions";
/// How runsc names the file, in a container's root file system, that holds what it wrote over that.
const FILESTORE: &str = ".gvisor.filestore.";

/// Writes a container down to the directory that containerd names.
pub(super) async fn checkpoint(pod: Arc<Pod>, request: CheckpointTaskRequest) -> Result<()> {
    let container = pod.container(&request.id)?;
    let _order = container.init.order.lock().await;
    may_be_written(&container.init, &request.id)?;
    if pod.containers().len() > 1 {
        return Err(Error::Unimplemented("checkpoint of one container of several in a sandbox".into()));
    }
    let exit = exits(request.options.as_ref())?;
    pod.runsc()?.checkpoint(&request.id, request.path.as_ref(), !exit).await?;
    pod.publish(Event::Checkpointed(TaskCheckpointed {
        container_id: request.id,
        checkpoint: request.path,
        ..TaskCheckpointed::default()
    }));
    Ok(())
}

fn may_be_written(init: &Process, id: &str) -> Result<()> {
    match init.phase() {
        // containerd pauses a container for it.
        Phase::Running | Phase::Paused => Ok(()),
        phase => Err(Error::FailedPrecondition(format!("container {id} is {phase:?}: it does not run"))),
    }
}

/// Whether the container shall end with it, as runc's options say; there are no others.
fn exits(options: Option<&Any>) -> Result<bool> {
    let Some(any) = options.filter(|any| !any.type_url.is_empty()) else { return Ok(false) };
    if any.type_url.rsplit('/').next() != Some(OPTIONS) {
        return Err(Error::Invalid(format!("checkpoint options are {}, not {OPTIONS}", any.type_url)));
    }
    let options = CheckpointOptions::parse_from_bytes(&any.value);
    options
        .map(|options| options.exit)
        .map_err(|error| Error::Invalid(format!("checkpoint options: {error}")))
}

/// Whether a container of this role may begin from an image, which must be there.
pub(super) fn check(image: &str, role: Role) -> Result<()> {
    match role {
        _ if image.is_empty() => Ok(()),
        Role::Member => Err(Error::Unimplemented("restore of one container of several in a sandbox".into())),
        Role::Root => fs::metadata(Path::new(image).join("checkpoint.img"))
            .map(drop)
            .map_err(|error| Error::Invalid(format!("checkpoint {image}: no checkpoint.img: {error}"))),
    }
}

/// Removes what the written container's runsc left in the root file system. What is in it is in the image too, and runsc refuses to
/// begin where such a file is.
pub(super) fn clear(spec: &Spec, bundle: &Path) -> Result<()> {
    let Some(root) = spec.root() else { return Ok(()) };
    let rootfs = &bundle.join(root.path());
    let failed = |error| Error::io(format!("clear {} for a restore", rootfs.display()))(error);
    for entry in fs::read_dir(rootfs).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_left = entry.file_name().to_string_lossy().starts_with(FILESTORE);
        if is_left && entry.file_type().map_err(failed)?.is_file() {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_options_only_runc_s_are_known() {
        let any = |name: &str, value| Any { type_url: name.into(), value, ..Any::default() };
        let exit =
            |exit| CheckpointOptions { exit, ..CheckpointOptions::default() }.write_to_bytes().unwrap();
        assert!(!exits(None).unwrap() && !exits(Some(&any("", vec![]))).unwrap());
        assert!(exits(Some(&any(OPTIONS, exit(true)))).unwrap());
        assert!(exits(Some(&any(&format!("types.containerd.io/{OPTIONS}"), exit(true)))).unwrap());
        assert!(!exits(Some(&any(OPTIONS, exit(false)))).unwrap());
        for wrong in [any("containerd.runc.v1.Options", exit(true)), any(OPTIONS, vec![0xff])] {
            assert!(matches!(exits(Some(&wrong)), Err(Error::Invalid(_))));
        }
    }

    #[test]
    fn an_image_is_of_a_sandbox_and_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert!(check("", Role::Member).is_ok());
        assert!(matches!(check(path, Role::Member), Err(Error::Unimplemented(_))));
        assert!(matches!(check(path, Role::Root), Err(Error::Invalid(_))));
        fs::write(dir.path().join("checkpoint.img"), "").unwrap();
        check(path, Role::Root).unwrap();
    }

    #[test]
    fn nothing_but_runsc_s_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        // Not where containerd's snapshot would be mounted: a spec may name its own.
        let spec: Spec = serde_json::from_str(r#"{"ociVersion": "1.1.0", "root": {"path": "own"}}"#).unwrap();
        let at = |name: &str| dir.path().join("own").join(name);
        fs::create_dir(at("")).unwrap();
        fs::write(at("kept"), "").unwrap();
        fs::write(at("target"), "").unwrap();
        fs::write(at(".gvisor.filestore.one"), "").unwrap();
        fs::create_dir(at(".gvisor.filestore.directory")).unwrap();
        std::os::unix::fs::symlink("target", at(".gvisor.filestore.link")).unwrap();
        clear(&spec, dir.path()).unwrap();
        assert!(!at(".gvisor.filestore.one").exists());
        for kept in ["kept", "target", ".gvisor.filestore.directory", ".gvisor.filestore.link"] {
            assert!(at(kept).exists(), "{kept}");
        }
        assert!(clear(&spec, &at("nowhere")).is_err());
    }
}
