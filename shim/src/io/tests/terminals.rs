//! Terminals, with this test in place of runsc: it makes the terminal and sends the master side.

use std::{
    fs,
    io::IoSlice,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::net::UnixStream,
    },
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::{OpenptyResult, openpty},
    sys::{
        socket::{ControlMessage, MsgFlags, sendmsg},
        termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr},
    },
};

use super::*;

/// Sends `descriptors` as runsc sends one: in one message, with a name.
fn send(socket: &Path, descriptors: &[RawFd]) {
    let stream = UnixStream::connect(socket).unwrap();
    let rights = [ControlMessage::ScmRights(descriptors)];
    let rights = if descriptors.is_empty() { &[][..] } else { &rights };
    sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(b"/dev/ptmx")], rights, MsgFlags::empty(), None)
        .unwrap();
}

fn new_terminal() -> OpenptyResult {
    let terminal = openpty(None, None).unwrap();
    for fd in [&terminal.master, &terminal.slave] {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    terminal
}

fn raw_terminal() -> OpenptyResult {
    let terminal = new_terminal();
    let mut settings = tcgetattr(&terminal.slave).unwrap();
    cfmakeraw(&mut settings);
    tcsetattr(&terminal.slave, SetArg::TCSANOW, &settings).unwrap();
    terminal
}

fn ends(terminal: OwnedFd) -> ChildEnds {
    let [stdin, stdout] = [(); 2].map(|()| terminal.try_clone().unwrap());
    ChildEnds { stdin, stdout, stderr: terminal }
}

impl Fifos {
    fn terminal(&self) -> Stdio {
        Stdio { stderr: String::new(), terminal: true, ..self.stdio() }
    }

    async fn accept(&self, stdio: &Stdio, terminal: OpenptyResult) -> (ChildEnds, Copies) {
        let socket = stdio.listen(self.dir.path()).unwrap();
        send(&socket.path(), &[terminal.master.as_raw_fd()]);
        drop(terminal.master);
        let copies = within(socket.accept(stdio, "default", "a", &self.reaper, LONG)).await.unwrap();
        (ends(terminal.slave), copies)
    }
}

#[tokio::test]
async fn a_megabyte_goes_each_way() {
    let fifos = Fifos::new();
    let reader = fifos.reader("stdout");
    let (ends, copies) = fifos.accept(&fifos.terminal(), raw_terminal()).await;
    let sent = pattern(1 << 20);
    let mut process = fifos.shell("exec head -c 1048576", ends);
    let mut writer = fifos.writer();
    let ((), received) = tokio::join!(
        async { within(writer.write_all(&sent)).await.unwrap() },
        read_all(reader), // to its end, which is the terminal's
    );
    assert!(received == sent, "{} bytes are not what was sent", received.len());
    assert_eq!(process.end().await, 0);
    within(copies.drain(LONG)).await;
    copies.resize(80, 24).unwrap();
}

#[tokio::test]
async fn much_output_is_complete() {
    let fifos = Fifos::new();
    let reader = fifos.reader("stdout");
    let (ends, copies) = fifos.accept(&fifos.terminal(), raw_terminal()).await;
    let mut process = fifos.shell("head -c 10485760 /dev/zero; echo end", ends);
    let received = read_all(reader).await;
    assert_eq!(received.len(), (10 << 20) + 4);
    assert!(received.ends_with(b"\0end\n"));
    assert_eq!(process.end().await, 0);
    within(copies.drain(LONG)).await;
}

#[tokio::test]
async fn it_has_the_size_that_it_was_given() {
    let fifos = Fifos::new();
    let reader = fifos.reader("stdout");
    let (ends, copies) = fifos.accept(&fifos.terminal(), new_terminal()).await;
    copies.resize(123, 45).unwrap();
    let _process = fifos.shell("exec stty size", ends);
    assert_eq!(read_all(reader).await, b"45 123\r\n");
}

#[tokio::test]
async fn it_hangs_up_when_its_input_is_closed() {
    let fifos = Fifos::new();
    let mut reader = fifos.reader("stdout");
    let (ends, copies) = fifos.accept(&fifos.terminal(), raw_terminal()).await;
    let mut process = fifos.shell("echo before; cat; exit 7", ends);
    let mut seen = [0; 7];
    within(reader.read_exact(&mut seen)).await.unwrap();
    let mut writer = fifos.writer();
    within(writer.write_all(b"seen")).await.unwrap();
    drop(writer);
    within(reader.read_exact(&mut seen[..4])).await.unwrap();
    assert_eq!(&seen, b"seenre\n");
    assert!(timeout(A_WHILE, reader.read_u8()).await.is_err(), "the input ended with its writer");
    copies.close_input();
    assert_eq!(read_all(reader).await, b"");
    process.end().await;
}

#[tokio::test]
async fn it_may_have_no_input_and_no_output() {
    let fifos = Fifos::new();
    let (ends, copies) = fifos.accept(&Stdio { terminal: true, ..Stdio::default() }, raw_terminal()).await;
    let mut process = fifos.shell("head -c 1048576 /dev/zero", ends);
    assert_eq!(process.end().await, 0);
    within(copies.drain(LONG)).await;
    copies.close_input();
}

#[tokio::test]
async fn its_output_may_go_to_a_file_or_a_logger() {
    let fifos = Fifos::new();
    let (name, log) = fifos.logger("binary", r#"exec 5>&-; cat <&3 > "$2""#);
    let file = fifos.path("file");
    for (name, path) in [(name, log), (format!("file://{}", file.display()), file)] {
        let (ends, copies) =
            fifos.accept(&Stdio { terminal: true, stdout: name, ..Stdio::default() }, raw_terminal()).await;
        let mut process = fifos.shell("head -c 1048576 /dev/zero", ends);
        assert_eq!(process.end().await, 0);
        within(copies.drain(LONG)).await;
        assert_eq!(fs::metadata(path).unwrap().len(), 1 << 20);
    }
}

#[tokio::test]
async fn what_is_not_one_terminal_is_refused() {
    let fifos = Fifos::new();
    let (stdio, terminal) = (fifos.terminal(), new_terminal());
    let (pipe, _writer) = std::io::pipe().unwrap();
    let (master, other) = (terminal.master.as_raw_fd(), pipe.as_raw_fd());
    for descriptors in [&[][..], &[other], &[other, master], &[other, master, other, other]] {
        let socket = stdio.listen(fifos.dir.path()).unwrap();
        send(&socket.path(), descriptors);
        let error =
            within(socket.accept(&stdio, "default", "a", &fifos.reaper, LONG)).await.unwrap_err().to_string();
        assert!(error.contains("terminal"), "{descriptors:?}: {error}");
    }
    let socket = stdio.listen(fifos.dir.path()).unwrap();
    let path = socket.path();
    let error = socket.accept(&stdio, "default", "a", &fifos.reaper, Duration::from_millis(10)).await;
    assert!(matches!(error, Err(Error::Timeout { .. })));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_long_directory_gets_a_short_socket() {
    let fifos = Fifos::new();
    let dir = fifos.dir.path().join("a".repeat(100));
    fs::create_dir(&dir).unwrap();
    let stdio = fifos.terminal();
    let socket = stdio.listen(&dir).unwrap();
    let path = socket.path();
    assert!(UnixStream::connect(&path).is_ok());
    drop(socket);
    assert!(!path.parent().unwrap().exists());
}
