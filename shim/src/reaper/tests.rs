use super::*;

fn exit(status: u32) -> Exit {
    Exit { status, at: SystemTime::UNIX_EPOCH }
}

/// A pid that no process has: the kernel gives out none above 2^22.
const PID: Pid = Pid::from_raw(0x7fff_fff0);

fn idle() -> Reaper {
    Reaper { table: Arc::default(), thread: thread::current().id() }
}

#[tokio::test]
async fn an_end_counts_for_all_who_await_it_and_for_who_asks_later() {
    let reaper = idle();
    let (mut first, mut second) = (reaper.adopt(PID), reaper.adopt(PID));
    reaper.table().end(PID, exit(7));
    let mut third = reaper.adopt(PID);
    for awaited in [&mut first, &mut second, &mut third] {
        assert_eq!(awaited.exit().await.status, 7);
        assert_eq!(awaited.exit().await.status, 7, "it may be asked again");
    }
}

#[test]
fn what_is_kept_is_bounded() {
    let mut table = Table::default();
    for pid in 1..=2 * KEEP_MOST {
        table.end(Pid::from_raw(i32::try_from(pid).unwrap()), exit(0));
    }
    assert_eq!(table.ended.len(), KEEP_MOST);
    assert_eq!(table.end_of(Pid::from_raw(1)), None, "the oldest went");
}

#[test]
fn processes_nobody_awaits_any_more_take_no_memory() {
    let mut table = Table::default();
    for pid in 1..100 {
        drop(table.subscribe(Pid::from_raw(pid)));
    }
    assert!(table.awaited.len() <= 1);
}

#[tokio::test]
async fn an_end_kept_from_before_is_not_a_new_process_s() {
    let reaper = idle();
    // Twice the same pid cannot be had at will, so the earlier end is put there.
    let mut command = Command::new("sleep");
    let child = command.arg("60").spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    reaper.table().end(pid, exit(7));
    let mut adopted = reaper.adopt(pid);
    assert!(tokio::time::timeout(Duration::from_millis(1), adopted.exit()).await.is_err());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let mut child = child;
    child.wait().unwrap();
}

#[tokio::test]
async fn another_thread_may_not_spawn() {
    let reaper = idle();
    let refused = thread::spawn(move || reaper.spawn(&mut Command::new("true")).map(drop)).join().unwrap();
    assert!(refused.is_err());
}
