use std::os::unix::net::UnixListener;

use super::*;

/// A root with a container `m` in sandbox `p`, whose socket is said to be ours.
fn root(pid: u32) -> (tempfile::TempDir, UnixListener) {
    let root = tempfile::tempdir().unwrap();
    let deep = root.path().join("d".repeat(150));
    fs::create_dir(&deep).unwrap();
    let dir = File::open(&deep).unwrap();
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/s", dir.as_raw_fd())).unwrap();
    let state = serde_json::json!({"sandbox": {"id": "p", "pid": pid, "controlSocketPath": deep.join("s")}});
    fs::write(root.path().join("m_sandbox:p.state"), state.to_string()).unwrap();
    (root, listener)
}

/// What a call makes of `reply`.
async fn call(reply: Vec<u8>) -> Result<u32, Failure> {
    let (root, listener) = root(std::process::id());
    let sandbox = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 256];
        let n = stream.read(&mut request).unwrap();
        // The caller may hang up before it has read all.
        let _ = stream.write_all(&reply);
        String::from_utf8(request[..n].to_vec()).unwrap()
    });
    let result = Control::connect(root.path(), "m").await.unwrap().wait("m").await;
    assert_eq!(sandbox.join().unwrap(), r#"{"method":"containerManager.Wait","arg":"m"}"#);
    result
}

#[tokio::test]
async fn replies_are_understood() {
    assert_eq!(call(br#"{"success":true,"err":"","result":1792}"#.to_vec()).await.unwrap(), 1792);
    let refused = call(br#"{"success":false,"err":"no such process","result":null}"#.to_vec()).await;
    assert!(matches!(refused, Err(Failure::Refused(reason)) if reason == "no such process"));
    let unknown = call(br#"{"success":false,"err":"unknown method","result":null}"#.to_vec()).await;
    assert!(matches!(unknown, Err(Failure::NotUnderstood)));
    assert!(matches!(call(br#"{"success":true,"res"#.to_vec()).await, Err(Failure::Ended)));
}

#[tokio::test]
async fn what_a_hostile_sandbox_says_is_bounded() {
    for reply in [
        br#"{"success":true,"result":"seven"}"#.to_vec(),
        b"\xff\xff\xff".to_vec(),
        [br#"{"success":false,"err":""#.to_vec(), vec![b'x'; 2 * MAX_REPLY]].concat(),
        vec![b'['; 2 * MAX_REPLY],
    ] {
        assert!(matches!(call(reply).await, Err(Failure::NotUnderstood)));
    }
}

#[tokio::test]
async fn a_socket_of_another_process_is_not_spoken_to() {
    let (root, _listener) = root(1);
    let error = Control::connect(root.path(), "m").await.unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
}

#[tokio::test]
async fn a_container_is_found_by_its_whole_id() {
    let (root, _listener) = root(std::process::id());
    assert!(state_file(root.path(), "m").is_some());
    assert!(state_file(root.path(), "m_sandbox:p").is_none());
    assert!(state_file(root.path(), "").is_none());
    assert_eq!(Control::connect(root.path(), "p").await.unwrap_err().kind(), io::ErrorKind::NotFound);
}
