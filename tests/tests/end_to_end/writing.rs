//! What is written for people never stops the machine: standard output and standard error that are full, gone, or not read.

use lockstep_logging_channel::{Body, LogReader};
use lockstep_tests::harness::process::{Redirect, Stream};
use lockstep_tests::harness::{
    Client, Ended, Guest, PairSpec, Process, Reply, Scratch, kvm, lockstep, wait_until,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::termios::{FlowArg, tcflow};
use nix::unistd::{mkfifo, ttyname};
use std::fs::File;
use std::io::{PipeReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const FULL: &str = "/dev/full";

/// Bytes of a line of the compute guest, with its end.
const LINE_BYTES: usize = 64;

fn on_full(stream: Stream, command: &mut Command) -> Ended {
    let path = PathBuf::from(FULL);
    Process::start_redirected("on /dev/full", command, &[Redirect { stream, path }]).wait()
}

/// Runs `command` with a pipe for `stream` that nobody reads.
fn on_broken_pipe(stream: Stream, command: &mut Command) -> Ended {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdin(Stdio::null());
    match stream {
        Stream::Output => command.stdout(writer).stderr(Stdio::piped()),
        Stream::Error => command.stderr(writer).stdout(Stdio::piped()),
    };
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended {
        name: format!("{command:?}"),
        status: output.status,
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn smoke() -> Command {
    let mut command = lockstep();
    command.arg("run").arg(Guest::Smoke.image());
    command
}

#[test]
fn messages_that_cannot_be_written_change_nothing() {
    let Some(_kvm) = kvm::shared() else { return };
    let ended = on_full(Stream::Error, &mut smoke()).expect_code(0);
    assert!(ended.stdout.starts_with("lockstep smoke guest\n"), "{ended}");
    let ended = on_broken_pipe(Stream::Error, &mut smoke()).expect_code(0);
    assert!(ended.stdout.starts_with("lockstep smoke guest\n"), "{ended}");
    let mut failing = lockstep();
    failing.args(["run", "/no/such/image"]);
    let _ = on_full(Stream::Error, &mut failing).expect_code(3);
    let mut unknown = lockstep();
    unknown.arg("nonsense");
    let _ = on_full(Stream::Error, &mut unknown).expect_code(2);
}

#[test]
fn a_console_that_cannot_be_written_is_said_once_and_the_guest_runs() {
    let Some(_kvm) = kvm::shared() else { return };
    let ways = [on_full, on_broken_pipe];
    for ended in ways.map(|run| run(Stream::Output, &mut smoke())) {
        let ended = ended.expect_code(0);
        ended.expect_named(&["the guest powered off"]);
        let said = ended.stderr.matches("standard output cannot be written").count();
        assert_eq!(said, 1, "{ended}");
    }
}

/// A log, and the commands that do nothing but print.
fn printing(log: &Path) -> Vec<Command> {
    let command = |arguments: &[&str]| {
        let mut command = lockstep();
        command.args(arguments);
        command
    };
    let log = log.to_str().unwrap();
    vec![
        command(&["log", "info", log]),
        command(&["log", "info", log, "--json"]),
        command(&["log", "dump", log]),
        command(&["log", "diff", log, log]),
        command(&["run", "image", "--print-config"]),
        command(&["--help"]),
        command(&["--version"]),
    ]
}

#[test]
fn a_command_that_cannot_print_fails_in_a_line() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = record(&scratch);
    for mut command in printing(&log) {
        let ended = on_full(Stream::Output, &mut command).expect_code(1);
        ended.expect_named(&["cannot write to standard output", "No space left on device"]);
        assert_eq!(ended.stderr.lines().count(), 1, "{ended}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = record(&scratch);
    for mut command in printing(&log) {
        let ended = on_broken_pipe(Stream::Output, &mut command).expect_code(0);
        assert_eq!(ended.stderr, "", "{ended}");
    }
}

fn record(scratch: &Scratch) -> PathBuf {
    let log = scratch.join("log");
    let mut record = lockstep();
    record
        .arg("record")
        .arg(Guest::Smoke.image())
        .arg("--log")
        .arg(&log);
    let _ = Process::start("record", &mut record).wait().expect_code(0);
    log
}

fn set(client: &mut Client, key: &str, value: &str) {
    assert_eq!(client.call(&["SET", key, value]), Reply::ok());
}

#[test]
fn a_survivor_that_can_say_nothing_wins_and_serves() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = PairSpec::new(Guest::KeyValue)
        .with_switch()
        .redirect("backup", Stream::Error, FULL)
        .redirect("backup", Stream::Output, FULL)
        .start();
    let mut client = pair.client();
    set(&mut client, "before", "1");
    let _ = pair.primary.process.kill();
    set(&mut client, "after", "2");
    assert_eq!(client.call(&["GET", "before"]), Reply::bulk("1"));
    assert_eq!(client.call(&["GET", "after"]), Reply::bulk("2"));
    let _ = pair.backup.stop().expect_code(0);
    assert!(pair.backup.event("won").is_some(), "{}", pair.backup.account());
    let summary = pair.backup.summary();
    assert!(summary["message_bytes_dropped"].as_u64() > Some(0), "{summary}");
    assert!(summary["console_bytes_dropped"].as_u64() > Some(0), "{summary}");
}

#[test]
fn a_stopped_terminal_neither_stops_a_pair_nor_keeps_its_primary() {
    let Some(_kvm) = kvm::alone() else { return };
    let terminal = openpty(None, None).unwrap();
    tcflow(&terminal.slave, FlowArg::TCOOFF).unwrap();
    let path = ttyname(&terminal.slave).unwrap();
    let mut pair = PairSpec::new(Guest::KeyValue)
        .with_switch()
        .redirect("primary", Stream::Output, path.clone())
        .redirect("primary", Stream::Error, path)
        .start();
    // The guest's first lines are released before its first answer.
    let mut client = pair.client();
    set(&mut client, "greeting", "hello");
    assert_eq!(client.call(&["GET", "greeting"]), Reply::bulk("hello"));
    for side in [&pair.primary, &pair.backup] {
        assert!(side.event("noticed").is_none(), "{}", side.account());
    }
    let _ = pair.primary.stop().expect_code(0);
    pair.backup.wait_for("live");
    assert_eq!(client.call(&["GET", "greeting"]), Reply::bulk("hello"));
    let summary = pair.primary.summary();
    assert!(summary["message_bytes_dropped"].is_u64(), "{summary}");
}

/// The text of `lines=N`, without what the guest says before and after.
fn numbered(text: &str) -> Vec<&str> {
    let is_line =
        |line: &&str| line.len() == LINE_BYTES - 1 && line.bytes().all(|byte| byte.is_ascii_digit());
    text.lines().filter(is_line).collect()
}

/// What the marks in `text` say, in all.
fn marked_bytes(text: &str) -> usize {
    let marks = text.lines().filter_map(|line| {
        let number = line.strip_prefix("[lockstep: ")?;
        number.strip_suffix(" bytes of console text dropped]")
    });
    marks.map(|number| number.parse::<usize>().unwrap()).sum()
}

fn reader_of(fifo: &Path) -> File {
    let nonblocking = OFlag::O_NONBLOCK.bits();
    let mut options = File::options();
    options.read(true).custom_flags(nonblocking).open(fifo).unwrap()
}

/// Reads what is there.
fn read_more(reader: &mut impl Read, text: &mut Vec<u8>) -> String {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        text.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(text).into_owned()
}

#[test]
fn text_lost_while_nobody_read_is_counted_where_it_is_missing() {
    // The guest needs seconds for them, statistics come ten times a second.
    const LINES: usize = 2_000;
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let fifo = scratch.join("console");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut reader = reader_of(&fifo);
    let mut pair = PairSpec::new(Guest::Compute)
        .setting("command-line", &format!("lines={LINES} megarounds=1"))
        .setting("memory-mib", "16")
        .redirect("primary", Stream::Output, fifo.clone())
        .start();
    let mut text = Vec::new();
    wait_until(
        || (!numbered(&read_more(&mut reader, &mut text)).is_empty()).then_some(()),
        || "a first line".to_owned(),
    );
    drop(reader);
    pair.primary
        .wait_for_statistics(|now| now["console_bytes_dropped"].as_u64() > Some(0));
    let mut reader = reader_of(&fifo);
    wait_until(
        || {
            let running = pair.primary.process.is_running();
            read_more(&mut reader, &mut text);
            (!running).then_some(())
        },
        || "its end".to_owned(),
    );
    let text = read_more(&mut reader, &mut text);
    pair.primary
        .process
        .wait()
        .expect_code(0)
        .expect_named(&["standard output cannot be written"]);
    let lines = numbered(&text);
    assert!(lines.is_sorted() && text.contains("checksum: "), "{text}");
    let marked = marked_bytes(&text);
    assert_eq!(lines.len() * LINE_BYTES + marked, LINES * LINE_BYTES, "{text}");
    let dropped = pair.primary.summary()["console_bytes_dropped"].as_u64();
    assert_eq!(dropped, Some(marked as u64), "{text}");
}

/// A recording that prints more than its pipe holds, when its guest has ended; and that pipe, of which nothing was read.
fn recorded_into_pipe(scratch: &Scratch) -> (Process, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).unwrap();
    let redirect = Redirect {
        stream: Stream::Output,
        path: format!("/proc/self/fd/{}", writer.as_raw_fd()).into(),
    };
    let log = scratch.join("log");
    let mut command = lockstep();
    command
        .arg("record")
        .arg(Guest::Compute.image())
        .args(["--memory-mib", "16", "--command-line"])
        .arg(format!("lines={MORE_THAN_A_PIPE} megarounds=1"))
        .arg("--log")
        .arg(&log);
    let mut process = Process::start_redirected("record", &mut command, &[redirect]);
    wait_until(
        || {
            assert!(process.is_running(), "its reader has not read");
            let entries = LogReader::open(&log).into_iter().flatten().flatten();
            entries.last().filter(|last| matches!(last.body, Body::End(_)))
        },
        || "the end of the guest".to_owned(),
    );
    assert!(process.is_running(), "its reader has not read");
    (process, reader)
}

const PIPE_BYTES: i32 = 4096;
const MORE_THAN_A_PIPE: usize = 300;

#[test]
fn an_unprotected_guest_waits_for_a_slow_reader() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let (mut process, mut reader) = recorded_into_pipe(&scratch);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let _ = process.wait().expect_code(0);
    assert_eq!(numbered(&text).len(), MORE_THAN_A_PIPE, "{text}");
    assert_eq!(marked_bytes(&text), 0, "{text}");
}

#[test]
fn a_signal_ends_the_wait_for_a_slow_reader() {
    let Some(_kvm) = kvm::shared() else { return };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let scratch = Scratch::new();
        let (mut process, _reader) = recorded_into_pipe(&scratch);
        process.signal(signal);
        process
            .wait()
            .expect_code(0)
            .expect_named(&["standard output is not read"]);
    }
}
