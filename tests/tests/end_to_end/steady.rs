//! The guest that computes and checks itself: interrupts, typed text and frames reach it between
//! two passes of its computation, at exits or, where it makes none, at common points, and nothing
//! of the computation is lost.

use lockstep_logging_channel::Body;
use lockstep_network::Attachment;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{
    Guest, PATIENCE, PairSpec, Process, SLOWNESS, Scratch, Switch, kvm, lockstep, logs,
};
use nix::sys::signal::{SigSet, SigmaskHow};
use std::path::Path;

/// An exit each so many passes, a fraction of a millisecond: every host can enter an event there.
const EXITS: &str = "exit_passes=2000";
/// Ctrl-C.
const INTERRUPT: &str = "\u{3}";

#[test]
fn its_interrupts_are_counted_and_its_computation_is_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    for clock in ["page", "ask"] {
        let options = format!("interrupts=20 pages=40 clock={clock}");
        let log = scratch.join(clock);
        let [recorded, replayed] = ["record", "replay"].map(|verb| {
            let mut command = lockstep();
            command.arg(verb).arg(Guest::Steady.image());
            command.args(["--command-line", &options]).arg("--log").arg(&log);
            run(&mut command).expect_code(0)
        });
        assert!(recorded.stdout.contains("steady: 20 interrupts"), "{recorded}");
        assert!(
            recorded.stdout.contains("over 40 pages are as computed"),
            "{recorded}"
        );
        assert_eq!(replayed.stdout, recorded.stdout);
        assert!(common_points(&log) >= 20, "an interrupt each");
    }
}

/// Common points in a log.
fn common_points(log: &Path) -> u64 {
    let mut command = lockstep();
    command.args(["log", "info", "--json"]).arg(log);
    let ended = run(&mut command).expect_code(0);
    let info: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    info["kinds"]["common point"]["entries"].as_u64().unwrap_or(0)
}

/// An interrupt that comes late has the next sooner behind it: one of many does not.
#[test]
fn its_timer_has_the_period_that_it_is_told() {
    let Some(_kvm) = kvm::shared() else { return };
    let steady = |options: &str| {
        let mut command = lockstep();
        command.arg("run").arg(Guest::Steady.image());
        run(command.args(["--command-line", options]))
    };
    let ended = steady("interrupts=8 period_us=50000").expect_code(0);
    let (_, longest) = ended.stdout.split_once("longest ").unwrap();
    let longest_us: u64 = longest.split(' ').next().unwrap().parse().unwrap();
    assert!(longest_us >= 49_999, "{ended}");
    for period in ["99", "50001", "soon"] {
        let ended = steady(&format!("period_us={period}")).expect_code(1);
        assert!(ended.stdout.contains(&format!("period_us={period}")), "{ended}");
    }
}

#[test]
fn it_is_replayed_again_and_again() {
    let Some(_kvm) = kvm::shared() else { return };
    let runs = 20 / SLOWNESS;
    let mut verify = lockstep();
    verify.arg("verify").arg(Guest::Steady.image());
    verify.args(["--runs", &runs.to_string(), "--command-line", "interrupts=30"]);
    let ended = run(&mut verify).expect_code(0);
    let said = format!("replayed {runs} times without divergence");
    assert!(ended.stdout.contains(&said), "{ended}");
}

/// More pages than are taken at one pause: it stands for shares of them.
#[test]
fn one_that_writes_much_is_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    for verb in ["record", "replay"] {
        let mut command = lockstep();
        command
            .arg(verb)
            .arg(Guest::Steady.image())
            .arg("--log")
            .arg(&log);
        command.args(["--command-line", "interrupts=10 pages=2000"]);
        let _ = run(&mut command).expect_code(0);
    }
    assert!(common_points(&log) > 0);
}

#[test]
fn with_exits_enough_there_is_no_common_point() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let mut command = lockstep();
    command
        .arg("record")
        .arg(Guest::Steady.image())
        .arg("--log")
        .arg(&log);
    // As long as that: a busy host may let the guest stand for many of the usual ones.
    command.args(["--event-latency-ms", "10000"]);
    command.args(["--command-line", &format!("interrupts=20 {EXITS}")]);
    let _ = run(&mut command).expect_code(0);
    assert_eq!(common_points(&log), 0);
}

#[test]
fn without_a_bound_nothing_enters_until_it_exits() {
    let Some(_kvm) = kvm::shared() else { return };
    let mut command = lockstep();
    command.arg("run").arg(Guest::Steady.image());
    command.args(["--event-latency-ms", "0"]);
    // Passes for many interrupts, none of which comes.
    let ended = run(command.args(["--command-line", "interrupts=2 passes=300000"])).expect_code(1);
    ended.expect_named(&["status=3"]);
    let mut refused = lockstep();
    refused.arg("run").arg(Guest::Steady.image());
    let ended = run(refused.args(["--event-latency-ms", "10001"])).expect_code(3);
    ended.expect_named(&["event-latency-ms", "10001"]);
}

#[test]
fn a_damaged_part_is_refused_and_named() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let mut record = lockstep();
    record
        .arg("record")
        .arg(Guest::Steady.image())
        .arg("--log")
        .arg(&log);
    let _ = run(record.args(["--command-line", "interrupts=5"])).expect_code(0);
    let mut entries = logs::read(&log);
    let part = entries.iter_mut().find_map(|entry| match &mut entry.body {
        Body::Part(part) => Some((entry.sequence, part)),
        _ => None,
    });
    let (sequence, part) = part.expect("a part");
    part.raw_bytes -= 1;
    logs::write(&log, &entries);
    let mut replay = lockstep();
    replay
        .arg("replay")
        .arg(Guest::Steady.image())
        .arg("--log")
        .arg(&log);
    let ended = run(replay.args(["--command-line", "interrupts=5"])).expect_code(42);
    ended.expect_named(&[&format!("entry {}", sequence.0)]);
}

#[test]
fn its_interrupts_go_on_across_a_failover() {
    let Some(_kvm) = kvm::alone() else { return };
    // Long enough for the failover: a host on which that is slow takes longer for each of them too.
    let interrupts = 300;
    let options = format!("interrupts={interrupts} passes=1000000000");
    let mut pair = PairSpec::new(Guest::Steady)
        .setting("command-line", &options)
        .start();
    pair.primary.process.wait_for_stdout("steady: computes");
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");
    let ended = pair.backup.process.wait().expect_code(0);
    let counted = format!("steady: {interrupts} interrupts");
    assert!(ended.stdout.contains(&counted), "{ended}");
    assert!(ended.stdout.contains("are as computed"), "{ended}");
    assert_eq!(pair.backup.summary()["divergences"], 0);
}

#[test]
fn it_says_that_interrupts_did_not_come() {
    let Some(_kvm) = kvm::shared() else { return };
    let mut command = lockstep();
    command.arg("run").arg(Guest::Steady.image());
    // Too few passes for an interrupt to be due.
    let ended = run(command.args(["--command-line", "interrupts=5 passes=10"])).expect_code(1);
    assert!(
        ended.stdout.contains("steady: gave up waiting for interrupts"),
        "{ended}"
    );
    ended.expect_named(&["status=3"]);
}

#[test]
fn what_is_typed_reaches_it_while_it_computes() {
    let Some(_kvm) = kvm::shared() else { return };
    let mut command = lockstep();
    command.arg("run").arg(Guest::Steady.image());
    let options = ["--command-line", "interrupts=0 echo=console"];
    let mut guest = Process::start("run", command.args(options));
    guest.type_in("a line of more than one load of the FIFO\n");
    guest.wait_for_stdout("a line of more than one load of the FIFO\n");
    guest.type_in(INTERRUPT);
    let ended = guest.wait_with_input().expect_code(0);
    assert!(ended.stdout.contains("steady: 42 bytes typed"), "{ended}");
    assert!(ended.stdout.contains("are as computed"), "{ended}");
}

#[test]
fn frames_reach_it_while_it_computes() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let switch = Switch::start(&scratch);
    let mut command = lockstep();
    command.arg("run").arg(Guest::Steady.image());
    command.arg("--network").arg(switch.attachment());
    let options = ["--command-line", "interrupts=0 echo=console,network"];
    let mut guest = Process::start("run", command.args(options));
    guest.wait_for_stdout("steady: computes");
    let socket = switch
        .attachment()
        .strip_prefix("switch:")
        .map(Into::into)
        .unwrap();
    let (mut sender, mut receiver) = Attachment::Switch(socket).attach().unwrap().split_blocking();
    // The echo protocol over UDP, from 10.0.2.77; the sums are left out, as the guest does not look
    // at them.
    let [guest_mac, station_mac] = [[0x52, 0x54, 0, 0x4c, 0x53, 1], [2, 0, 0, 0, 0, 0x77]];
    let [guest_ip, station_ip] = [[10, 0, 2, 15], [10, 0, 2, 77]];
    let datagram = |round: u8, from: [[u8; 4]; 2], ports: [u8; 4]| {
        let header = [0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
        let content = [&ports[..], &[0, 12, 0, 0, round, round, round, round]].concat();
        [&header[..], &from.concat(), &content].concat()
    };
    for round in 0..20 {
        let question = datagram(round, [station_ip, guest_ip], [0x30, 0x39, 0, 7]);
        let answer = datagram(round, [guest_ip, station_ip], [0, 7, 0x30, 0x39]);
        sender
            .send(&[&guest_mac[..], &station_mac, &[8, 0], &question].concat())
            .unwrap();
        let expected = [&station_mac[..], &guest_mac, &[8, 0], &answer].concat();
        loop {
            let frame = receiver.recv(PATIENCE).unwrap().expect("an answer");
            if frame == expected {
                break;
            }
        }
    }
    guest.type_in(INTERRUPT);
    let ended = guest.wait_with_input().expect_code(0);
    assert!(ended.stdout.contains("steady: 20 frames answered"), "{ended}");
    assert!(ended.stdout.contains("are as computed"), "{ended}");
}

#[test]
fn its_interrupts_come_where_a_parent_has_all_signals_blocked() {
    let Some(_kvm) = kvm::shared() else { return };
    let mut command = lockstep();
    command.arg("run").arg(Guest::Steady.image());
    command.args(["--command-line", "interrupts=20 pages=3"]);
    // A child has the mask of the thread that starts it.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).unwrap();
    let mut guest = Process::start("run", &mut command);
    before.thread_set_mask().unwrap();
    let ended = guest.wait().expect_code(0);
    assert!(ended.stdout.contains("steady: 20 interrupts"), "{ended}");
}
