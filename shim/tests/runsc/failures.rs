//! What goes wrong, and is told.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use lattice_shim::{error::Error, runsc::Streams};
use oci_spec::runtime::LinuxResources;

use crate::place::{Place, driver, eventually, pipes, processes_with};

pub(crate) async fn a_create_that_fails_leaves_nothing(place: Place) {
    let mut spec = place.spec(&place.id, "true");
    spec["linux"]["namespaces"][4]["path"] = "/run/netns/none-of-that-name".into();
    let bundle = place.bundle(&place.id, &spec);
    let error = place.runsc.create(&place.id, &bundle, Streams::Ends(pipes().0), None).await.unwrap_err();
    assert!(
        matches!(&error, Error::Runsc { verb: "create", reason } if reason.contains("none-of-that-name")),
        "{error}"
    );
    assert!(place.records().is_empty());
    assert!(processes_with(&place.root_flag()).is_empty());

    place.pause().await;
    let mut spec = place.spec("m", "true");
    spec["process"]["args"] = serde_json::json!(["no-such-program"]);
    let bundle = place.bundle("m", &spec);
    // runsc dies of writing to a pipe that nobody reads before it has written its log.
    let (ends, _output) = pipes();
    let created = place.runsc.create("m", &bundle, Streams::Ends(ends), None).await;
    let error = match created {
        Ok(_) => place.runsc.start("m", &bundle).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(&error, Error::Runsc { reason, .. } if reason.contains("no-such-program")), "{error}");
    let twice = place.runsc.create(&place.id, &bundle, Streams::Ends(pipes().0), None).await.unwrap_err();
    assert!(matches!(twice, Error::AlreadyExists(_)), "{twice}");
    assert_eq!(place.runsc.processes(&place.id).await.unwrap().len(), 1, "the first one goes on");
    place.clean_up(&["m"]).await;
}

/// A runsc that answers as one, and then starts what never ends.
fn hanging(place: &Place, mark: &str) -> std::path::PathBuf {
    let path = place.dir.path().join("hangs");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in --version) echo runsc version 1;; 'help platforms') echo ptrace;;\n\
         *) sleep {mark} & sleep {mark}; exit 0;; esac\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

pub(crate) async fn a_runsc_that_hangs_is_killed_with_all_it_started(place: Place) {
    let mark = format!("7{}", std::process::id());
    let hangs = driver(&hanging(&place, &mark), place.pod.runsc_root(), &place.reaper)
        .with_limit(Duration::from_millis(500));
    let bundle = place.bundle(&place.id, &place.spec(&place.id, "true"));
    let error = hangs.create(&place.id, &bundle, Streams::Ends(pipes().0), None).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    let error = hangs.status(&place.id).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    eventually("all it started has ended", || processes_with(&mark).is_empty()).await;
    // Whoever asked may go away.
    let asked = hangs.clone().with_limit(Duration::from_secs(600));
    assert!(tokio::time::timeout(Duration::from_millis(200), asked.status(&place.id)).await.is_err());
    eventually("all it started has ended", || processes_with(&mark).is_empty()).await;
    place.clean_up(&[]).await;
}

pub(crate) async fn an_old_reason_is_not_taken_for_a_new_one(place: Place) {
    let mut spec = place.spec(&place.id, "true");
    spec["linux"]["namespaces"][4]["path"] = "/run/netns/first".into();
    let bundle = place.bundle(&place.id, &spec);
    fs::write(bundle.join("log.json"), r#"{"msg":"stale","level":"error"}{"msg":"#).unwrap();
    for name in ["first", "second"] {
        spec["linux"]["namespaces"][4]["path"] = format!("/run/netns/{name}").into();
        place.bundle(&place.id, &spec);
        let error = place
            .runsc
            .create(&place.id, &bundle, Streams::Ends(pipes().0), None)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(name) && !error.contains("stale"), "{error}");
        assert!(!error.contains('\n'));
    }
    let size = fs::metadata(bundle.join("log.json")).unwrap().len();
    assert!(size < 4096, "the log grows: {size}");
    place.clean_up(&[]).await;
}

pub(crate) async fn hostile_ids_are_refused(place: Place) {
    let bundle = place.bundle(&place.id, &place.spec(&place.id, "true"));
    for id in ["", "..", "../x", "a/b", "a b", "a\0", "--root=/", "-m", "a:b", &"a".repeat(129)] {
        for error in [
            place.runsc.create(id, &bundle, Streams::Ends(pipes().0), None).await.unwrap_err(),
            place.runsc.start(id, &bundle).await.unwrap_err(),
            place.runsc.kill(id, 9, None, true).await.unwrap_err(),
            place.runsc.delete(id).await.unwrap_err(),
            place.runsc.status(id).await.unwrap_err(),
            place.runsc.wait(id).await.unwrap_err(),
            place.runsc.processes(id).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::Invalid(_)), "{id:?}: {error}");
        }
    }
    place.clean_up(&[]).await;
}

pub(crate) async fn what_this_release_lacks_is_unimplemented(place: Place) {
    place.pause().await;
    let image = place.dir.path().join("image");
    fs::create_dir(&image).unwrap();
    let error = place.runsc.checkpoint(&place.id, &image, true).await.unwrap_err();
    assert!(matches!(error, Error::Unimplemented(_)), "{error}");
    let error = place.runsc.update(&place.id, &LinuxResources::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unimplemented(_)), "{error}");
    place.clean_up(&[]).await;
}
