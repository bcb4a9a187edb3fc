//! `lockstep demo`: what a program reads from it and what a person sees, whatever is lost.

use lockstep_tests::harness::process::{Redirect, Stream, run};
use lockstep_tests::harness::{Process, Scratch, kvm, lockstep, wait_until};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, ttyname};
use serde_json::Value;
use std::io::Read;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// Every key that the result for programs has beside the rounds.
const KEYS: [&str; 15] = [
    "ok",
    "clients",
    "connections_broken",
    "acknowledged_writes",
    "lost_writes",
    "wrong_reads",
    "detect_ms",
    "arbitrate_ms",
    "live_ms",
    "client_gap_ms",
    "divergences",
    "log_entries",
    "log_bytes",
    "held_us_p50",
    "held_us_p99",
];

/// Keys that are those of the first round as well.
const KEYS_OF_THE_FIRST: [&str; 4] = ["detect_ms", "arbitrate_ms", "live_ms", "client_gap_ms"];

/// Keys of a round that have no value where no new backup joined.
const KEYS_OF_JOINING: [&str; 6] = [
    "new_backup_process",
    "join_ms",
    "copied_bytes",
    "copy_ms",
    "arm_ms",
    "unprotected_ms",
];

fn demonstration(options: &[&str]) -> Command {
    let mut command = lockstep();
    command.args(["demo", "--json", "--seed", "7"]).args(options);
    command
}

/// The text for people of a demonstration that went well, and its last line.
fn told(options: &[&str]) -> (String, Value) {
    let ended = Process::start("demo", &mut demonstration(options))
        .wait()
        .expect_code(0);
    // There is no terminal: nothing is rewritten.
    assert!(!ended.stderr.contains('\r'), "{ended}");
    let last = ended.stdout.lines().last().unwrap_or_default();
    let result: Value = serde_json::from_str(last).unwrap_or_else(|why| panic!("{why}: {last}"));
    for key in KEYS {
        assert!(result.get(key).is_some(), "{key} is missing: {result}");
    }
    assert_eq!(result["ok"], true, "{result}");
    for key in ["connections_broken", "lost_writes", "wrong_reads", "divergences"] {
        assert_eq!(result[key], 0, "{key}: {result}");
    }
    assert!(
        result["acknowledged_writes"]
            .as_u64()
            .is_some_and(|writes| writes > 0),
        "{result}"
    );
    (ended.stdout, result)
}

/// The rounds of a result: so many, each with its generation, and with a new backup but the last.
fn rounds(result: &Value, count: usize) -> Vec<Value> {
    let rounds = result["rounds"].as_array().cloned().unwrap_or_default();
    assert_eq!(rounds.len(), count, "{result}");
    for (index, round) in rounds.iter().enumerate() {
        assert_eq!(round["round"], index + 1, "{result}");
        assert_eq!(round["generation"], index + 2, "{result}");
        for key in KEYS_OF_THE_FIRST {
            assert!(round[key].is_number(), "{key} of {round}");
        }
        for key in KEYS_OF_JOINING {
            assert_eq!(round[key].is_number(), index + 1 < count, "{key} of {round}");
        }
    }
    for key in KEYS_OF_THE_FIRST {
        assert_eq!(result[key], rounds[0][key], "{key}: {result}");
    }
    rounds
}

/// Fails unless `text` has these, one after another.
fn expect_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let (_, after) = rest
            .split_once(part)
            .unwrap_or_else(|| panic!("`{part}` is not where it belongs: {text}"));
        rest = after;
    }
}

#[test]
fn a_machine_outlives_its_sides_one_after_another() {
    let Some(_kvm) = kvm::alone() else { return };
    let (text, result) = told(&["--timeout-ms", "2000", "--after", "1", "--duration", "2"]);
    assert_eq!(result["clients"], 8);
    let rounds = rounds(&result, 3);
    // The survivor is lost next, and the side that joined is left then.
    for pair in rounds.windows(2) {
        assert_eq!(pair[0]["survivor_process"], pair[1]["lost_process"], "{result}");
        assert_eq!(
            pair[0]["new_backup_process"], pair[1]["survivor_process"],
            "{result}"
        );
        assert_eq!(pair[0]["lost"], "primary");
        assert!(pair[0]["copied_bytes"].as_u64() > Some(0), "{result}");
    }
    expect_in_order(
        &text,
        &[
            "8 clients, seed 7; 3 rounds: the primary is killed after 1 of 2 s, then a new backup joins",
            "round 1 of 3: process ",
            "primary killed (SIGKILL",
            "won the test-and-set for generation 2",
            "backup is live",
            "first reply to a client",
            "new backup started",
            "the machine is copied to it while the guest runs",
            "new backup is armed: the guest is protected again",
            "longest wait of a client: ",
            "round 2 of 3",
            "generation 3",
            "protected again",
            "round 3 of 3",
            "generation 4",
            "longest wait of a client: ",
            "8 clients, each on one TCP connection throughout: none broke",
            "verdict: the virtual machine outlived 3 losses; nothing was lost, broken or wrong",
        ],
    );
}

#[test]
fn a_killed_primary_is_outlived() {
    let Some(_kvm) = kvm::alone() else { return };
    let times = ["--timeout-ms", "2000", "--after", "1", "--duration", "3"];
    let (text, result) = told(&[&times[..], &["--rounds", "1"]].concat());
    assert_eq!(result["clients"], 8);
    rounds(&result, 1);
    expect_in_order(
        &text,
        &[
            "8 clients, seed 7; the primary is killed after 1 of 3 s\n     0.000 ms  primary killed (SIGKILL, process ",
            "backup noticed: it closed the connection",
            "backup won the test-and-set for generation 2",
            "backup replayed everything received, to entry ",
            "backup is live",
            "first reply to a client\n8 clients, each on one TCP connection throughout: none broke",
            "longest wait for a reply: ",
            "outputs waited in the gate: ",
            "log: ",
            "verdict: the virtual machine outlived the loss; nothing was lost, broken or wrong",
        ],
    );
    assert!(!text.contains("new backup"), "{text}");
}

#[test]
fn stopped_primaries_are_outlived_and_fenced_when_they_wake() {
    let Some(_kvm) = kvm::alone() else { return };
    let times = ["--timeout-ms", "1500", "--after", "1", "--duration", "7"];
    let (text, result) = told(&[&times[..], &["--rounds", "2", "--signal", "stop"]].concat());
    rounds(&result, 2);
    let fenced = "primary lost the test-and-set: fenced";
    expect_in_order(
        &text,
        &["primary woken (SIGCONT)", fenced, "new backup started", fenced],
    );
}

#[test]
fn killed_backups_are_outlived_by_one_primary() {
    let Some(_kvm) = kvm::alone() else { return };
    let times = ["--timeout-ms", "2000", "--after", "1", "--duration", "3"];
    let options = ["--rounds", "2", "--kill", "backup", "--clients", "12"];
    let (_, result) = told(&[&times[..], &options].concat());
    assert_eq!(result["clients"], 12);
    let rounds = rounds(&result, 2);
    assert_eq!(rounds[0]["lost"], "backup");
    assert_eq!(rounds[0]["survivor_process"], rounds[1]["survivor_process"]);
    assert_eq!(rounds[0]["new_backup_process"], rounds[1]["lost_process"]);
}

#[test]
fn primaries_are_outlived_by_backups_that_are_sent_checkpoints() {
    let Some(_kvm) = kvm::alone() else { return };
    let times = ["--timeout-ms", "2000", "--after", "1", "--duration", "3"];
    let mode = ["--rounds", "2", "--mode", "checkpoint", "--epoch-ms", "10"];
    let (text, result) = told(&[&times[..], &mode].concat());
    rounds(&result, 2);
    expect_in_order(
        &text,
        &[
            "8 clients, seed 7, checkpoints every 10 ms; 2 rounds: the primary is killed",
            "backup is at the last whole checkpoint, entry ",
            "backup is live",
            "protected again",
            "backup is at the last whole checkpoint, entry ",
            "backup is live",
            "verdict: the virtual machine outlived 2 losses; nothing was lost, broken or wrong",
        ],
    );
    // Nobody replays.
    assert!(!text.contains("replayed"), "{text}");
}

#[test]
fn an_epoch_that_nothing_uses_is_refused_with_a_hint() {
    let refused = run(lockstep().args(["demo", "--epoch-ms", "20"])).expect_code(3);
    refused.expect_named(&["--epoch-ms 20", "--mode replay", "--mode checkpoint"]);
}

#[test]
fn without_a_loss_there_is_nothing_to_notice() {
    let Some(_kvm) = kvm::alone() else { return };
    let (_, result) = told(&["--timeout-ms", "2000", "--duration", "2", "--kill", "none"]);
    assert!(result["detect_ms"].is_null(), "{result}");
    assert_eq!(result["rounds"], serde_json::json!([]));
}

#[test]
fn numbers_of_rounds_that_make_no_sense_are_refused_with_a_hint() {
    for rounds in ["0", "-1", "101", "18446744073709551616", "three"] {
        let refused = run(lockstep().args(["demo", &format!("--rounds={rounds}")])).expect_code(2);
        refused.expect_named(&["--rounds", rounds, "write a number from 1 to 100"]);
    }
}

/// A demonstration that has a terminal for its standard error.
struct OnATerminal {
    demo: Process,
    seen: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

impl OnATerminal {
    fn start(options: &[&str]) -> Self {
        let terminal = openpty(None, None).unwrap();
        let redirect = Redirect {
            stream: Stream::Error,
            path: ttyname(&terminal.slave).unwrap(),
        };
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut screen, place) = (std::fs::File::from(terminal.master), seen.clone());
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of a terminal that nobody has open any more is an error.
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                place.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        let demo = Process::start_redirected("demo", &mut demonstration(options), &[redirect]);
        Self { demo, seen, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// All text, once it has ended with `code`.
    fn end(mut self, code: i32) -> String {
        let _ = self.demo.wait().expect_code(code);
        let seen = self.seen.clone();
        self.reader.join().unwrap();
        let bytes = seen.lock().unwrap().clone();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[test]
fn a_message_does_not_stick_to_the_line_that_is_rewritten() {
    let Some(_kvm) = kvm::alone() else { return };
    let terminal = OnATerminal::start(&["--timeout-ms", "2000", "--duration", "60", "--kill", "none"]);
    wait_until(
        || terminal.text().contains("writes acknowledged").then_some(()),
        || format!("a line of progress: {}", terminal.text()),
    );
    terminal.demo.signal(Signal::SIGINT);
    let seen = terminal.end(1);
    let message = seen.lines().find(|line| line.contains("SIGINT"));
    let message = message.and_then(|line| line.rsplit("\u{1b}[K").next());
    let message = message.unwrap_or_else(|| panic!("nothing of the signal: {seen}"));
    // The time is what a message begins with.
    assert!(
        message.starts_with("20") && !message.contains("acknowledged"),
        "{seen}"
    );
}

#[test]
fn a_terminal_shows_how_far_the_copy_is_in_one_line() {
    let Some(_kvm) = kvm::alone() else { return };
    let times = ["--timeout-ms", "2000", "--after", "500ms", "--duration", "1"];
    let terminal = OnATerminal::start(&[&times[..], &["--rounds", "2", "--transfer-mbit", "1"]].concat());
    let seen = terminal.end(0);
    let copied: Vec<&str> = seen
        .split("\r\u{1b}[K")
        .filter(|line| line.contains("new backup joins: ") && line.contains("MiB copied"))
        .collect();
    assert!(
        copied.iter().any(|line| *line != copied[0]),
        "it does not move: {seen}"
    );
    // Messages end their line; what is rewritten never does.
    assert!(copied.iter().all(|line| !line.contains('\n')), "{seen}");
}

/// The process among the children of `parent` that reports into the file `report`.
fn child(parent: u32, report: &str) -> Option<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let reports = |id: &&str| {
        let command = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        command.split('\0').any(|argument| argument.ends_with(report))
    };
    let id = children.split_whitespace().find(reports)?;
    id.parse().ok().map(Pid::from_raw)
}

#[test]
fn a_pair_that_parts_by_itself_is_no_demonstration() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let mut command = demonstration(&["--kill", "none", "--duration", "5", "--timeout-ms", "1000"]);
    let mut demo = Process::start("demo", command.env("TMPDIR", scratch.path()));
    let backup = wait_until(
        || child(demo.id(), "replica-2.report").filter(|_| demo.stdout().contains("nothing is lost")),
        || "the demonstration's backup".to_owned(),
    );
    kill(backup, Signal::SIGSTOP).expect("it runs");
    let ended = demo.wait().expect_code(1);
    ended.expect_named(&["the pair parted before anything was done to it", "--timeout-ms"]);
}
