//! Checkpoint mode: the backup does not run the guest, and takes it over where the last common
//! point is. Clients notice nothing, no line is lost, and a guest that cannot be replayed is
//! protected.

use super::web::Web;
use lockstep_logging_channel::Body;
use lockstep_tests::harness::bare::{CODE, elf};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{
    Guest, Load, Pair, PairSpec, Process, Replica, Reply, SLOWNESS, Scratch, kvm, lockstep, wait_until,
};
use std::path::Path;

const CLIENTS: usize = 8;
const CHECKPOINTS: [&str; 2] = ["--mode", "checkpoint"];

/// A guest whose common point takes a quarter of a second is to have as long for itself.
pub const EPOCH_MS: &str = if SLOWNESS > 1 { "250" } else { "20" };

fn spec(guest: Guest) -> PairSpec {
    PairSpec::new(guest)
        .setting("mode", "checkpoint")
        .setting("epoch-ms", EPOCH_MS)
}

fn load(pair: &Pair) -> Load {
    Load::start(pair.switch().client_address(), CLIENTS)
}

fn expect_good_end(load: Load, survivor: &mut Replica) {
    load.wait_for_more(20);
    load.stop_and_check();
    let _ = survivor.stop().expect_code(0);
}

/// Sides that find each other by a name.
fn web() -> Web {
    Web {
        settings: &CHECKPOINTS,
        ..Web::new()
    }
}

#[test]
fn a_killed_primary_is_not_missed() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = spec(Guest::KeyValue).with_switch().start();
    let load = load(&pair);
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");
    expect_good_end(load, &mut pair.backup);
}

#[test]
fn a_killed_backup_is_not_missed() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = spec(Guest::KeyValue).with_switch().start();
    let load = load(&pair);
    let _ = pair.backup.process.kill();
    pair.primary.wait_for("solo");
    expect_good_end(load, &mut pair.primary);
}

#[test]
fn newcomers_join_and_take_over_again_and_again() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = spec(Guest::KeyValue).with_switch().start();
    let load = load(&pair);
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("listening");
    let mut third = pair.another_backup("third");
    third.wait_for("armed");
    pair.backup.wait_for("armed");
    load.wait_for_more(20);
    let _ = pair.backup.process.kill();
    third.wait_for("live");
    load.wait_for_more(20);
    let mut fourth = pair.another_backup("fourth");
    fourth.wait_for("armed");
    third.wait_for("armed");
    load.wait_for_more(20);
    let _ = fourth.process.kill();
    third.wait_for("solo");
    expect_good_end(load, &mut third);
}

#[test]
fn a_machine_is_switched_over_and_back_under_load() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = web();
    let mut first = web.begin();
    let mut second = web.join("second", &mut first);
    let load = web.load();
    for _ in 0..2 {
        let mut command = lockstep();
        command.args(["switchover", "web", "--shared-directory"]);
        let _ = run(command.arg(web.scratch.join("shared"))).expect_code(0);
        load.wait_for_more(20);
    }
    load.stop_and_check();
    first.wait_for_count("handed_over", 1);
    second.wait_for_count("handed_over", 1);
    for side in [&mut first, &mut second] {
        assert!(side.event("noticed").is_none(), "{}", side.account());
    }
    let _ = first.stop().expect_code(0);
    second.wait_for("live");
    let _ = second.stop().expect_code(0);
}

#[test]
fn nothing_leaves_before_the_common_point_behind_it_is_acknowledged() {
    let Some(_kvm) = kvm::alone() else { return };
    let pair = spec(Guest::KeyValue).with_switch().with_proxy().start();
    let mut client = pair.client();
    assert_eq!(client.call(&["SET", "key", "before"]), Reply::ok());
    pair.proxy().hold_acknowledgements();
    let held_before = pair.proxy().acknowledgements_held();
    let before = pair.proxy().entries().len();
    client.send(&["SET", "key", "after"]).unwrap();
    wait_until(
        || {
            let entries = pair.proxy().entries();
            let mut later = entries[before..].iter().map(|entry| &entry.body);
            later
                .any(|body| matches!(body, Body::HeldOutput(_)))
                .then(|| later.any(|body| matches!(body, Body::CommonPoint(_))))
                .filter(|is_there| *is_there)
        },
        || "an answer of the guest and the common point behind it".to_owned(),
    );
    wait_until(
        || (pair.proxy().acknowledgements_held() > held_before).then_some(()),
        || "an acknowledgement".to_owned(),
    );
    assert!(!client.has_answer(), "it came before its acknowledgement");
    pair.proxy().release_acknowledgements();
    assert_eq!(client.receive().unwrap(), Reply::ok());
}

#[test]
fn a_guest_that_ends_ends_its_pair() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = spec(Guest::Compute)
        .setting("command-line", "megarounds=1")
        .setting("epoch-ms", "200")
        .start();
    let primary = pair.primary.process.wait().expect_code(0);
    let backup = pair.backup.process.wait().expect_code(0);
    assert!(primary.stdout.contains("checksum: "), "{primary}");
    assert_eq!(backup.stdout, "", "{backup}");
}

#[test]
fn a_guest_that_makes_no_exit_is_taken_over_with_its_interrupts() {
    let Some(_kvm) = kvm::alone() else { return };
    let interrupts = 300;
    let options = format!("interrupts={interrupts} passes=1000000000");
    let mut pair = spec(Guest::Steady).setting("command-line", &options).start();
    pair.primary.process.wait_for_stdout("steady: computes");
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");
    let ended = pair.backup.process.wait().expect_code(0);
    let counted = format!("steady: {interrupts} interrupts");
    assert!(ended.stdout.contains(&counted), "{ended}");
    assert!(ended.stdout.contains("are as computed"), "{ended}");
}

/// A guest that says lines for ever, each with its number, modulo 65,536, and a letter that comes
/// from the host's time-stamp counter. It reads that by an instruction within another, which nobody
/// rewrites.
fn unreplayable(scratch: &Scratch) -> std::path::PathBuf {
    #[rustfmt::skip]
    let code = [
        0x45, 0x31, 0xc0,                   // xor r8d, r8d
        0xb9, 0x00, 0x10, 0x00, 0x00,       // line: mov ecx, 0x1000
        0xff, 0xc9, 0x75, 0xfc,             // dec ecx; jnz -4
        0xeb, 0x01,                         // jmp +1, into the next instruction
        0xb8, 0x0f, 0x31, 0x90, 0x90,       // mov eax, 0x9090310f: rdtsc; nop; nop
        0xc1, 0xe8, 0x06, 0x41, 0x89, 0xc1, // shr eax, 6; mov r9d, eax
        0xba, 0xf8, 0x03, 0x00, 0x00,       // mov edx, 0x3f8
        0xb9, 0x0c, 0x00, 0x00, 0x00,       // mov ecx, 12
        0x44, 0x89, 0xc0, 0xd3, 0xe8,       // digit: mov eax, r8d; shr eax, cl
        0x24, 0x0f, 0x04, 0x61, 0xee,       // and al, 15; add al, 'a'; out dx, al
        0x83, 0xe9, 0x04, 0x79, 0xf1,       // sub ecx, 4; jns digit
        0x44, 0x89, 0xc8,                   // mov eax, r9d
        0x24, 0x0f, 0x04, 0x61, 0xee,       // and al, 15; add al, 'a'; out dx, al
        0xb0, 0x0a, 0xee, 0x41, 0xff, 0xc0, // mov al, '\n'; out dx, al; inc r8d
        0xeb, 0xc1,                         // jmp line
    ];
    scratch.write("unreplayable.elf", elf(&[(CODE, 5, &code)]))
}

/// Both sides of a pair of it, protected, with `settings`.
fn pair_of(image: &Path, scratch: &Scratch, settings: &[&str]) -> (Replica, Replica) {
    let side = |role: &str| {
        let report = scratch.join(&format!("{role}.jsonl"));
        let mut command = lockstep();
        let channel = format!("unix:{}", scratch.join("channel").display());
        command.arg(role).arg(image).args(["--channel", &channel]);
        command.arg("--shared-directory").arg(scratch.join("shared"));
        command.args(["--timeout-ms", "4000", "--lag-ms-max", "60000"]);
        command.args(settings).arg("--report").arg(&report);
        Replica::start(role, &mut command, report)
    };
    scratch.directory("shared");
    let mut primary = side("primary");
    primary.wait_for("listening");
    let mut backup = side("backup");
    primary.wait_for("protected");
    backup.wait_for("protected");
    (primary, backup)
}

/// Numbers and letters of its whole lines.
fn lines(text: &str) -> Vec<(u32, char)> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |line: &str| {
        let digits = line.chars().take(4).map(|digit| digit as u32 - 'a' as u32);
        (
            digits.fold(0, |number, digit| number << 4 | digit),
            line.chars().nth(4).unwrap(),
        )
    };
    whole.lines().map(line).collect()
}

#[test]
fn a_guest_that_cannot_be_replayed_diverges_in_the_other_mode() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let (mut primary, mut backup) = pair_of(&unreplayable(&scratch), &scratch, &[]);
    let _ = backup.process.wait().expect_code(40);
    primary.wait_for("solo");
    let _ = primary.stop().expect_code(0);
}

fn wait_for_lines(replica: &Replica) {
    wait_until(
        || (lines(&replica.process.stdout()).len() > 20).then_some(()),
        || "twenty lines".to_owned(),
    );
}

#[test]
fn a_guest_that_cannot_be_replayed_survives_its_primary() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let (mut primary, mut backup) = pair_of(&unreplayable(&scratch), &scratch, &CHECKPOINTS);
    wait_for_lines(&primary);
    let _ = primary.process.kill();
    let said = lines(&primary.process.stdout());
    wait_for_lines(&backup);
    let after = lines(&backup.stop().expect_code(0).stdout);
    // What left shortly before may be said again, with the same letters.
    let first = after.first().unwrap().0;
    let again = said.iter().rposition(|(number, _)| *number == first);
    let (whole, again) = said.split_at(again.unwrap_or(said.len()));
    assert!(after.starts_with(again), "{again:?} became {after:?}");
    let numbers: Vec<u32> = whole.iter().chain(&after).map(|(number, _)| *number).collect();
    assert_eq!(numbers[0], 0);
    assert!(
        numbers.windows(2).all(|pair| (pair[0] + 1) & 0xffff == pair[1]),
        "{said:?} and {after:?}"
    );
}

#[test]
fn a_server_that_cannot_be_replayed_stays_protected() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = spec(Guest::Diverging)
        .with_switch()
        .setting("command-line", "exits=200")
        .start();
    let load = load(&pair);
    let mut client = pair.client();
    for part in [
        "registers",
        "memory",
        "timer",
        "frame",
        "console",
        "execution",
        "question",
    ] {
        assert_eq!(client.call(&["SET", "diverge", part]), Reply::ok());
        load.wait_for_more(5);
    }
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");
    expect_good_end(load, &mut pair.backup);
    assert_eq!(pair.backup.summary()["divergences"], 0);
}

#[test]
fn what_a_killed_primary_had_not_said_is_said_by_its_backup() {
    let Some(_kvm) = kvm::alone() else { return };
    let options = "sources=halt rounds=200";
    let spec = spec(Guest::Entropy)
        .setting("command-line", options)
        .setting("memory-mib", "16");
    let mut pair = spec.with_held_acknowledgements().start();
    let mut said = String::new();
    wait_until(
        || {
            let entries = pair.proxy().entries();
            let last = entries
                .iter()
                .rposition(|entry| matches!(entry.body, Body::CommonPoint(_)))?;
            for entry in &entries[..last] {
                if let Body::HeldOutput(output) = &entry.body {
                    said.push_str(&String::from_utf8_lossy(&output.bytes));
                }
            }
            (!said.is_empty()).then_some(())
        },
        || "a first line and the common point behind it".to_owned(),
    );
    let _ = pair.primary.process.kill();
    let backup = pair.backup.process.wait().expect_code(0);
    assert_eq!(pair.primary.process.stdout(), "", "it was never acknowledged");
    assert!(backup.stdout.starts_with(&said), "{said} and {backup}");
    assert!(
        backup.stdout.starts_with(&format!("entropy: {options}\n")),
        "{backup}"
    );
    assert_eq!(backup.stdout.matches("entropy: ").count(), 2, "{backup}");
    assert!(
        backup.stdout.ends_with("entropy: 1 sources asked, 0 unknown\n"),
        "{backup}"
    );
}

/// In a file, where settings of a pair stand beside others.
#[test]
fn what_has_no_backup_has_no_checkpoints() {
    let scratch = Scratch::new();
    let file = scratch.write("pair.toml", "mode = \"checkpoint\"\n");
    for verb in ["record", "replay", "verify"] {
        let start = || {
            let mut command = lockstep();
            command.arg(verb).arg(Guest::Smoke.image());
            if verb != "verify" {
                command.arg("--log").arg(scratch.join("log"));
            }
            command
        };
        let ended = run(start().arg("--config").arg(&file)).expect_code(3);
        ended.expect_named(&["mode", verb]);
        let ended = run(start().args(CHECKPOINTS)).expect_code(2);
        ended.expect_named(&["--mode", "pair"]);
    }
}

#[test]
fn an_epoch_out_of_range_and_a_clock_are_refused() {
    let refused = |settings: &[&str], named: &[&str]| {
        let mut command = lockstep();
        command.arg("primary").arg(Guest::Smoke.image());
        run(command.args(settings)).expect_code(3).expect_named(named);
    };
    for epoch in ["4", "10001"] {
        refused(&["--epoch-ms", epoch], &["epoch-ms", epoch]);
    }
    refused(&["--mode=checkpoint", "--clock=step"], &["mode", "step"]);
}

#[test]
fn sides_of_different_modes_refuse_each_other() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let shared = scratch.directory("shared");
    let side = |role: &'static str, settings: &[&str]| {
        let mut command = lockstep();
        let channel = format!("unix:{}", scratch.join("channel").display());
        command.arg(role).arg(Guest::Smoke.image());
        command.args(["--channel", &channel]).args(settings);
        command.arg("--shared-directory").arg(&shared);
        Process::start(role, &mut command)
    };
    let mut primary = side("primary", &CHECKPOINTS);
    let mut backup = side("backup", &["--mode=replay-then-checkpoint"]);
    for side in [&mut primary, &mut backup] {
        let named = "differ in mode: primary `checkpoint`, backup `replay-then-checkpoint`";
        side.wait().expect_code(43).expect_named(&[named]);
    }
}

/// The machine has its backup, so nobody answers whoever comes as a third.
#[test]
fn a_third_side_that_would_be_refused_does_not_wait_until_it_is_needed() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = web();
    let mut first = web.begin();
    let mut second = web.join("second", &mut first);
    let other_mode = web.command_with_settings("third", &["--mode=replay"]);
    let named = "differ in mode: primary `checkpoint`, backup `replay`";
    web.expect_refused("third", other_mode, 43, &[named]);
    let mut other_memory = web.command("third");
    other_memory.arg("--memory-mib=16");
    let named = "differ in guest memory in bytes: primary `67108864`, backup `16777216`";
    web.expect_refused("third", other_memory, 43, &[named]);
    let mut third = web.start("fourth");
    third
        .process
        .wait_for_stderr("this side waits until it is needed");
    let _ = third.stop().expect_code(0);
    assert_eq!(web.status()["protected"], true);
    let _ = second.stop().expect_code(0);
    first.wait_for("solo");
    let _ = first.stop().expect_code(0);
}

#[test]
fn messages_of_checkpoints_name_no_replay() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = web();
    let mut first = web.begin();
    let mut second = web.join("second", &mut first);
    let load = web.load();
    let status = web.status();
    assert_eq!(
        (&status["mode"], &status["mode_why"]),
        (&"checkpoint".into(), &"it was started so".into())
    );
    load.wait_for_more(20);
    let _ = first.process.kill();
    second.wait_for("live");
    load.wait_for_more(20);
    load.stop_and_check();
    let said = second.stop().expect_code(0);
    for expected in [
        "this side takes the checkpoints that it has missed",
        "protected from here on, by checkpoints",
        "the machine is where the last whole checkpoint is",
    ] {
        assert!(said.stderr.contains(expected), "{expected}: {said}");
    }
    for side in [&said.stderr, &first.process.stderr()] {
        assert!(!side.contains("replay"), "{side}");
    }
}
