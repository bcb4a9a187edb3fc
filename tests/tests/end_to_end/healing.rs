//! A machine that has lost one of its sides takes a new one while it runs, any number of times, and
//! whatever happens to a newcomer harms nothing. The same command starts every side.

use super::web::{
    CLIENTS, LAG_MS_MIN, Web, expect_armed, expect_both_in_the_status, expect_good_end, expect_good_end_of,
    take_over,
};
use lockstep_tests::harness::{Client, Guest, Load, Pair, PairSpec, Reply, kvm, lockstep, wait_until};
use nix::sys::signal::Signal;

#[test]
fn the_same_command_begins_a_machine_joins_it_and_takes_over_again_and_again() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let mut holder = web.begin();
    assert_eq!(web.status()["protected"], false);
    let load = web.load();
    for (generation, name) in [(2, "second"), (3, "third"), (4, "fourth")] {
        let mut newcomer = web.join(name, &mut holder);
        load.wait_for_more(50);
        expect_both_in_the_status(&web, &holder, &newcomer);
        let live = take_over(&mut holder, &mut newcomer, &load);
        assert_eq!(live["generation"], generation);
        holder = newcomer;
    }
    let status = web.status();
    assert_eq!(status["generation"], 4, "{status}");
    assert_eq!(status["protected"], false, "{status}");
    expect_good_end_of(load, &mut holder);
}

#[test]
fn a_holder_outlives_backup_after_backup() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let mut holder = web.begin();
    let load = web.load();
    for (times, name) in [(1, "second"), (2, "third")] {
        let mut newcomer = web.start(name);
        newcomer.wait_for("armed");
        holder.wait_for_count("armed", times);
        load.wait_for_more(50);
        let _ = newcomer.process.kill();
        holder.wait_for_count("solo", times);
        load.wait_for_more(50);
    }
    expect_good_end_of(load, &mut holder);
}

#[test]
fn a_stopped_holder_that_wakes_after_its_backup_went_on_is_fenced() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let mut holder = web.begin();
    let mut newcomer = web.join("second", &mut holder);
    let load = web.load();
    holder.process.signal(Signal::SIGSTOP);
    newcomer.wait_for("live");
    load.wait_for_more(20);
    holder.process.signal(Signal::SIGCONT);
    let _ = holder.process.wait().expect_code(41);
    load.wait_for_more(20);
    expect_good_end_of(load, &mut newcomer);
}

#[test]
fn a_newcomer_that_dies_in_the_transfer_harms_nothing_and_the_next_one_joins() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let mut holder = web.begin_slowly();
    let load = web.load();
    load.wait_for_more(50);
    let mut struck = web.start("struck");
    struck.wait_for("receiving");
    wait_until(
        || {
            let status = web.status();
            let why = status["why_not"].as_str().unwrap_or_default().to_owned();
            let tells = why.contains("receiving the machine: ") && why.contains(" MiB left in round 1");
            (tells && status["sides"][1]["role"] == "newcomer").then_some(())
        },
        || format!("the progress in the status: {}", web.status()),
    );
    let _ = struck.process.kill();
    holder.wait_for("newcomer_lost");
    load.wait_for_more(50);
    let mut newcomer = web.start("second");
    newcomer.wait_for("armed");
    load.wait_for_more(50);
    take_over(&mut holder, &mut newcomer, &load);
    expect_good_end_of(load, &mut newcomer);
}

#[test]
fn a_newcomer_whose_holder_dies_before_it_is_armed_begins_the_machine_anew() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let mut holder = web.begin_slowly();
    let mut newcomer = web.start("second");
    newcomer.wait_for("receiving");
    let _ = holder.process.kill();
    // Both it and whoever could have taken over are proven dead: nothing is left to be lost.
    assert_eq!(newcomer.wait_for("begun")["generation"], 2);
    newcomer
        .process
        .wait_for_stderr("what ran in generation 1 is gone, with its memory");
    newcomer.wait_for("listening");
    let mut client = Client::connect(web.switch.client_address());
    assert_eq!(client.call(&["SET", "a", "1"]), Reply::ok());
    expect_good_end(&mut newcomer);
}

#[test]
fn a_newcomer_that_loses_the_machine_while_it_catches_up_may_not_go_on_and_starts_again() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web {
        lag_ms_max: LAG_MS_MIN,
        ..Web::new()
    };
    let mut holder = web.begin_slowly();
    // Entries that they write while the machine is sent are the log that the newcomer lacks. They
    // end with their connections.
    for client in 0..4 {
        let address = web.switch.client_address();
        std::thread::spawn(move || {
            let mut writer = Client::connect(address);
            while writer.try_call(&["INCR", &format!("count{client}")]).is_ok() {}
        });
    }
    let mut newcomer = web.start("second");
    let process = newcomer.process.id();
    newcomer.wait_for("joining");
    let _ = holder.process.kill();
    // It found out either while it sent `Loaded`, or while it replayed.
    newcomer.wait_for("not_armed");
    assert_eq!(newcomer.wait_for("begun")["generation"], 2);
    newcomer.wait_for_count("listening", 1);
    assert_eq!((newcomer.process.id(), newcomer.count("won")), (process, 0));
    let mut client = Client::connect(web.switch.client_address());
    assert_eq!(client.call(&["GET", "count0"]), Reply::Bulk(None));
    let _ = newcomer.stop().expect_code(0);
}

#[test]
fn a_third_side_waits_for_a_protected_pair_and_does_not_take_it_at_its_word_when_it_is_silent() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let mut holder = web.begin();
    let mut second = web.join("second", &mut holder);
    let mut third = web.start("third");
    third.process.wait_for_stderr("waits until it is needed");
    for side in [&holder, &second] {
        side.process.signal(Signal::SIGSTOP);
    }
    third.process.wait_for_stderr("--afresh begins a new machine");
    assert_eq!(third.count("begun"), 0);
    let _ = third.stop().expect_code(0);
    let _ = (holder.process.kill(), second.process.kill());
}

#[test]
fn newcomers_that_differ_are_refused_and_the_machine_runs_on() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let mut holder = web.begin();
    let load = web.load();
    let mut memory = web.command("memory");
    memory.args(["--memory-mib", "32"]);
    web.expect_refused("memory", memory, 43, &["guest memory in bytes"]);
    let image = web.command_with(Guest::Smoke, "image");
    web.expect_refused("image", image, 43, &["guest image digest"]);
    load.wait_for_more(50);
    expect_good_end_of(load, &mut holder);
}

#[test]
fn afresh_beside_a_living_holder_is_refused() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let mut holder = web.begin();
    let mut command = web.command("afresh");
    command.arg("--afresh");
    web.expect_refused("afresh", command, 3, &["afresh", "alive"]);
    expect_good_end(&mut holder);
}

#[test]
fn two_starts_at_the_same_moment_are_one_machine() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let mut sides = [web.start("left"), web.start("right")];
    let begun = wait_until(
        || sides.iter().position(|side| side.event("begun").is_some()),
        || "one that begins the machine".to_owned(),
    );
    let [left, right] = &mut sides;
    let (holder, newcomer) = if begun == 0 { (left, right) } else { (right, left) };
    expect_armed(holder, newcomer);
    assert_eq!(newcomer.count("begun"), 0);
    let load = web.load();
    load.wait_for_more(50);
    take_over(holder, newcomer, &load);
    expect_good_end_of(load, newcomer);
}

#[test]
fn a_machine_that_waits_for_its_backup_begins_with_it() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let start = |name: &str| {
        let mut command = web.command(name);
        command.arg("--wait-for-backup");
        web.start_by(name, command)
    };
    let mut first = start("first");
    first.wait_for("listening");
    let mut second = start("second");
    first.wait_for("protected");
    second.wait_for("protected");
    let load = web.load();
    let _ = first.process.kill();
    second.wait_for("live");
    let mut third = start("third");
    expect_armed(&mut second, &mut third);
    load.wait_for_more(50);
    load.stop_and_check();
    let _ = second.stop().expect_code(0);
    third.wait_for("live");
    expect_good_end(&mut third);
}

#[test]
fn a_pair_that_was_begun_by_role_is_healed_by_its_own_commands() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair: Pair = PairSpec::new(Guest::KeyValue).with_switch().start();
    let load = Load::start(pair.switch().client_address(), CLIENTS);
    let _ = pair.backup.process.kill();
    pair.primary.wait_for("solo");
    let mut second = pair.another_backup("second");
    expect_armed(&mut pair.primary, &mut second);
    load.wait_for_more(50);
    take_over(&mut pair.primary, &mut second, &load);
    let mut third = pair.another_backup("third");
    expect_armed(&mut second, &mut third);
    load.wait_for_more(50);
    take_over(&mut second, &mut third, &load);
    expect_good_end_of(load, &mut third);
}

#[test]
fn a_second_primary_beside_a_living_holder_is_refused_by_name() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let mut holder = web.begin();
    let mut command = lockstep();
    command
        .arg("primary")
        .arg(Guest::KeyValue.image())
        .args(["--name", "web", "--channel"])
        .arg(format!("unix:{}", web.scratch.text("channel")))
        .arg("--shared-directory")
        .arg(web.scratch.join("shared"));
    let named = ["name", "web", "lockstep replica --name web"];
    web.expect_refused("primary", command, 3, &named);
    expect_good_end(&mut holder);
}
