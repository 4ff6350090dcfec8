//! Further processes of a container.

use std::time::Duration;

use lattice_shim::{error::Error, reaper::Awaited, runsc::Streams, spec};

use crate::place::{Output, Place, line, names, oci_process, pipes, process};

async fn begin(place: &Place, id: &str, script: &str) -> (Awaited, i32, Output) {
    let (ends, output) = pipes();
    let dir = place.pod.bundle(id).unwrap();
    let (awaited, pid) = place.runsc.exec(id, &oci_process(script), &dir, Streams::Ends(ends)).await.unwrap();
    (awaited, pid, output)
}

pub(crate) async fn exit_codes_are_right(place: Place) {
    place.pause().await;
    place.run("m", "exec sleep 600").await;
    for id in [place.id.as_str(), "m"] {
        for (script, code) in [
            ("exit 0", 0),
            ("exit 7", 7),
            ("exit 128", 128),
            ("kill -TERM $$; sleep 9", 143),
            ("kill -KILL $$; sleep 9", 137),
        ] {
            let (mut awaited, ..) = begin(&place, id, script).await;
            assert_eq!(awaited.exit().await.status, code, "{script}");
        }
    }
    place.clean_up(&["m"]).await;
}

pub(crate) async fn a_program_that_is_not_there_is_no_exit_code(place: Place) {
    place.pause().await;
    let dir = place.pod.bundle(&place.id).unwrap();
    let before = names(&dir);
    let mut absent = process("");
    absent["args"] = serde_json::json!(["no-such-program"]);
    let absent = serde_json::from_value(absent).unwrap();
    let error = place.runsc.exec(&place.id, &absent, &dir, Streams::Ends(pipes().0)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Runsc { verb: "exec", reason } if reason.contains("no-such-program")),
        "{error}"
    );
    let error = place.runsc.exec("nobody", &absent, &dir, Streams::Ends(pipes().0)).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    assert_eq!(names(&dir), before);
    place.clean_up(&[]).await;
}

pub(crate) async fn fifty_short_ones_leave_nothing(place: Place) {
    place.pause().await;
    let dir = place.pod.bundle(&place.id).unwrap();
    let before = names(&dir);
    let open = || names(std::path::Path::new("/proc/self/fd")).len();
    let descriptors = open();
    for code in 0..50 {
        let (mut awaited, pid, output) = begin(&place, &place.id, &format!("echo $$; exit {code}")).await;
        assert_eq!(names(&dir), before, "what it was told is removed while it runs");
        assert_eq!(awaited.exit().await.status, code);
        assert!(pid > 1);
        assert!(output.text().await.0.ends_with('\n'));
    }
    assert!(open() <= descriptors + 2, "descriptors leak");
    place.clean_up(&[]).await;
}

pub(crate) async fn capabilities_asked_for_are_not_had(place: Place) {
    place.pause().await;
    let all = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_CHOWN"];
    let mut asked = process("grep CapEff /proc/self/status; ip link set lo down 2>&1; exit 0");
    asked["capabilities"] = serde_json::json!({
        "bounding": all, "effective": all, "permitted": all, "inheritable": all, "ambient": all
    });
    let mut asked = serde_json::from_value(asked).unwrap();
    spec::edit_exec(&mut asked);
    let (ends, output) = pipes();
    let dir = place.pod.bundle(&place.id).unwrap();
    let (mut awaited, _) = place.runsc.exec(&place.id, &asked, &dir, Streams::Ends(ends)).await.unwrap();
    awaited.exit().await;
    let (text, _) = output.text().await;
    assert!(text.contains("CapEff:\t0000000000000001\n"), "CAP_CHOWN alone: {text}");
    place.clean_up(&[]).await;
}

pub(crate) async fn one_that_is_killed_by_its_pid_ends(place: Place) {
    place.pause().await;
    let (mut awaited, pid, output) = begin(&place, &place.id, "echo up; exec sleep 600").await;
    assert_eq!(line(&output.stdout).await, "up");
    assert!(place.runsc.processes(&place.id).await.unwrap().contains(&pid));
    assert!(tokio::time::timeout(Duration::from_millis(20), awaited.exit()).await.is_err());
    place.runsc.kill(&place.id, 15, Some(pid), false).await.unwrap();
    assert_eq!(awaited.exit().await.status, 143);
    place.clean_up(&[]).await;
}
