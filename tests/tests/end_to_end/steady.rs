//! The guest that computes and checks itself: interrupts, typed text and frames reach it between two
//! passes of its computation, and nothing of the computation is lost.

use lockstep_network::Attachment;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Guest, PATIENCE, Process, Scratch, Switch, kvm, lockstep};

/// An exit each so many passes, a fraction of a millisecond: every host can enter an event there.
const EXITS: &str = "exit_passes=2000";
/// Ctrl-C.
const INTERRUPT: &str = "\u{3}";

#[test]
fn its_interrupts_are_counted_and_its_computation_is_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    for clock in ["page", "ask"] {
        let options = format!("interrupts=20 pages=40 clock={clock} {EXITS}");
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
    }
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
    let options = format!("interrupts=0 echo=console {EXITS}");
    let mut guest = Process::start("run", command.args(["--command-line", &options]));
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
    let options = format!("interrupts=0 echo=console,network {EXITS}");
    let mut guest = Process::start("run", command.args(["--command-line", &options]));
    guest.wait_for_stdout("steady: computes");
    let socket = switch
        .attachment()
        .strip_prefix("switch:")
        .map(Into::into)
        .unwrap();
    let (mut sender, mut receiver) = Attachment::Switch(socket).attach().unwrap().split_blocking();
    // The echo protocol over UDP, from 10.0.2.77; the sums are left out, as the guest does not look at them.
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
