//! Every start measures what it depends on, once a boot, and refuses by name what the host was not
//! found to do.

use lockstep_logging_channel::{
    Body, Digest, Entry, Environment, EnvironmentField, Existing, LogReader, LogWriter,
};
use lockstep_tests::harness::bare::{Code, Form};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Ended, Guest, Scratch, kvm, lockstep};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Starts whose findings are kept in a place of this test's own.
struct Host {
    scratch: Scratch,
}

impl Host {
    fn new() -> Self {
        Self {
            scratch: Scratch::new(),
        }
    }

    fn cache(&self) -> PathBuf {
        self.scratch.join("lockstep").join("host")
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = lockstep();
        command.env("XDG_CACHE_HOME", self.scratch.path());
        command.args([verb, "-v"]).arg(Guest::Smoke.image());
        command
    }

    fn start(&self, arguments: &[&str]) -> Ended {
        run(self.command("run").args(arguments))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn record(&self, log: &Path, arguments: &[&str]) -> Ended {
        run(self.command("record").args(arguments).arg("--log").arg(log))
    }

    fn replay(&self, log: &Path, arguments: &[&str]) -> Ended {
        run(self.command("replay").args(arguments).arg("--log").arg(log))
    }

    /// Puts `(property, judgement)` among what is kept of this host, as if it had been found.
    fn has_found(&self, findings: &[(&str, &str)]) {
        self.start(&[]).expect_code(0).expect_named(&[]);
        let text = std::fs::read_to_string(self.cache()).unwrap();
        let (_, body) = text.split_once('\n').unwrap();
        let mut kept: serde_json::Value = serde_json::from_str(body).unwrap();
        let all = kept["findings"].as_array_mut().unwrap();
        for (property, judgement) in findings {
            let found = serde_json::json!({
                "property": property, "judgement": judgement, "seen": "what this test says",
            });
            all.retain(|finding| finding["property"] != *property);
            all.push(found);
        }
        let body = kept.to_string();
        let sealed = format!("lockstep-host-1 {}\n{body}", Digest::of(body.as_bytes()));
        std::fs::write(self.cache(), sealed).unwrap();
    }
}

/// Properties that a start without a clock depends on.
const MEASURED: usize = 4;

fn expect_measured(ended: &Ended, measured: usize) {
    let wanted = format!("measured={measured} ");
    assert!(ended.stderr.contains(&wanted), "{wanted}: {ended}");
}

/// Copies `log` with another environment.
fn with_environment(log: &Path, to: &Path, change: impl Fn(&mut Environment)) {
    let mut writer = LogWriter::create(to, Existing::Refuse).unwrap();
    for entry in LogReader::open(log).unwrap() {
        let mut entry: Entry = entry.unwrap();
        if let Body::Environment(environment) = &mut entry.body {
            change(environment);
        }
        writer.append(&entry).unwrap();
    }
    writer.sync().unwrap();
}

fn set(fields: &mut [EnvironmentField], name: &str, value: &str) {
    let field = fields.iter_mut().find(|field| field.name == name);
    field.unwrap().value = value.to_owned();
}

#[test]
fn a_host_is_measured_once_a_boot_and_anew_where_asked() {
    let Some(_kvm) = kvm::shared() else { return };
    let host = Host::new();
    let first = host.start(&[]).expect_code(0);
    expect_measured(&first, MEASURED);
    assert!(first.stderr.contains("determinism: yes"), "{first}");
    assert!(first.stderr.contains("events enter at exits"), "{first}");
    expect_measured(&host.start(&[]).expect_code(0), 0);
    expect_measured(&host.start(&["--requalify"]).expect_code(0), MEASURED);
}

#[test]
fn what_is_kept_is_not_believed_where_it_is_damaged_old_or_others_may_write_it() {
    let Some(_kvm) = kvm::shared() else { return };
    let host = Host::new();
    expect_measured(&host.start(&[]).expect_code(0), MEASURED);
    let good = std::fs::read_to_string(host.cache()).unwrap();
    let earlier_boot = {
        let (_, body) = good.split_once('\n').unwrap();
        let mut kept: serde_json::Value = serde_json::from_str(body).unwrap();
        kept["host"]["boot"] = "another".into();
        let body = kept.to_string();
        format!("lockstep-host-1 {}\n{body}", Digest::of(body.as_bytes()))
    };
    let bad = [
        String::new(),
        "nonsense".to_owned(),
        good.replace("yes", "not"),
        good[..good.len() / 2].to_owned(),
        " ".repeat(1 << 20),
        earlier_boot,
    ];
    for text in bad {
        std::fs::write(host.cache(), text).unwrap();
        expect_measured(&host.start(&[]).expect_code(0), MEASURED);
        expect_measured(&host.start(&[]).expect_code(0), 0);
    }
    std::fs::set_permissions(host.cache(), std::fs::Permissions::from_mode(0o666)).unwrap();
    expect_measured(&host.start(&[]).expect_code(0), MEASURED);
}

#[test]
fn a_place_that_cannot_be_written_costs_time_and_nothing_else() {
    let Some(_kvm) = kvm::shared() else { return };
    let host = Host::new();
    host.scratch.write("lockstep", "no directory");
    for _ in 0..2 {
        expect_measured(&host.start(&[]).expect_code(0), MEASURED);
    }
}

#[test]
fn what_the_host_was_not_found_to_do_is_refused_by_its_name() {
    let Some(_kvm) = kvm::shared() else { return };
    let host = Host::new();
    host.has_found(&[
        ("clock.step.ring0", "wrong"),
        ("clock.step.ring3", "no"),
        ("clock.statistic.ring0", "no"),
        ("clock.statistic.ring3", "no"),
        ("irq_window.ring0", "wrong"),
        ("irq_window.ring3", "yes"),
    ]);
    let cases = [
        ("--clock=step", "clock `step` in ring 0"),
        ("--clock=statistic", "clock `statistic` in ring 0"),
        ("--window-exits", "IRQ-window exits in ring 0"),
    ];
    for (argument, property) in cases {
        let ended = host.start(&[argument]).expect_code(4);
        assert_eq!(ended.stdout, "", "the guest ran");
        ended.expect_named(&[property, "what this test says", "--requalify"]);
        let log = host.log("log");
        host.record(&log, &[argument])
            .expect_code(4)
            .expect_named(&[property]);
        assert!(!log.exists(), "a log was left");
    }
    // Nothing else depends on them.
    host.start(&[]).expect_code(0).expect_named(&[]);
}

#[test]
fn a_kernel_is_refused_before_it_boots_where_the_host_cannot_run_one() {
    let Some(_kvm) = kvm::shared() else { return };
    let host = Host::new();
    host.has_found(&[("kernel_instructions.ring0", "no")]);
    let kernel = host.log("vmlinux");
    std::fs::write(&kernel, Form::Kernel.file(&Code::default().raw(&[0xf4]))).unwrap();
    let (log, shared) = (host.log("log"), host.scratch.directory("shared"));
    let of_kernel = |verb: &str, more: &[&OsStr]| {
        let mut command = lockstep();
        command.env("XDG_CACHE_HOME", host.scratch.path());
        command.args([verb, "--kernel"]).arg(&kernel).args(more);
        run(&mut command)
    };
    for ended in [
        of_kernel("run", &[]),
        of_kernel("record", &["--log".as_ref(), log.as_ref()]),
        of_kernel("replica", &["--shared-directory".as_ref(), shared.as_ref()]),
    ] {
        let ended = ended.expect_code(4);
        ended.expect_named(&["kernel instructions in ring 0", "what this test says", "make lab"]);
        assert_eq!(ended.stdout, "", "the kernel ran");
    }
    assert!(!log.exists(), "a log was left");
    assert_eq!(shared.read_dir().unwrap().count(), 0, "a machine was left");
    // What has no meaning for a kernel is refused wherever it is.
    for setting in ["--clock=step", "--window-exits"] {
        let ended = of_kernel("run", &[setting.as_ref()]).expect_code(3);
        ended.expect_named(&[
            setting.trim_start_matches("--").split('=').next().unwrap(),
            "leave it out",
        ]);
    }
}

#[test]
fn a_host_on_which_two_runs_differ_runs_no_guest_until_it_is_measured_anew() {
    let Some(_kvm) = kvm::shared() else { return };
    let host = Host::new();
    host.has_found(&[("determinism", "wrong")]);
    host.start(&[]).expect_code(4).expect_named(&["determinism"]);
    expect_measured(&host.start(&["--requalify"]).expect_code(0), MEASURED);
    expect_measured(&host.start(&[]).expect_code(0), 0);
}

#[test]
fn a_dirty_log_that_is_not_exact_runs_nothing_live_and_replays() {
    let Some(_kvm) = kvm::shared() else { return };
    let host = Host::new();
    let (log, other) = (host.log("log"), host.log("other"));
    host.record(&log, &[]).expect_code(0).expect_named(&[]);
    host.has_found(&[("dirty_log", "wrong")]);
    for ended in [host.start(&[]), host.record(&other, &[])] {
        let ended = ended.expect_code(4);
        ended.expect_named(&[
            "every guest that runs live needs dirty logging",
            "what this test says",
        ]);
    }
    assert!(!other.exists(), "a log was left");
    host.replay(&log, &[]).expect_code(0).expect_named(&[]);
    expect_measured(&host.start(&["--requalify"]).expect_code(0), MEASURED);
}

#[test]
fn a_log_names_its_strategies_and_what_they_rest_on() {
    let Some(_kvm) = kvm::shared() else { return };
    let host = Host::new();
    let log = host.log("log");
    host.record(&log, &[]).expect_code(0).expect_named(&[]);
    let info = run(lockstep().args(["log", "info"]).arg(&log)).expect_code(0);
    for text in [
        "instruction clock = none",
        "IRQ-window exits = false",
        "position strategy = ",
        "found: determinism = yes: ",
        "found: ports in ring 3 = yes: ",
        "found: dirty logging = yes: exactly those, each time",
        "found: cost of a first write to a page = -: median ",
    ] {
        assert!(info.stdout.contains(text), "{text}: {info}");
    }
}

#[test]
fn a_replay_takes_the_strategies_of_its_log_and_needs_them() {
    let Some(_kvm) = kvm::shared() else { return };
    let host = Host::new();
    let (log, stepped, windows) = (host.log("log"), host.log("stepped"), host.log("windows"));
    host.record(&log, &[]).expect_code(0).expect_named(&[]);
    with_environment(&log, &stepped, |environment| {
        set(&mut environment.compared, "instruction clock", "step in ring 0");
    });
    with_environment(&log, &windows, |environment| {
        set(&mut environment.compared, "IRQ-window exits", "true");
    });
    host.has_found(&[
        ("clock.step.ring0", "wrong"),
        ("clock.step.ring3", "no"),
        ("irq_window.ring0", "wrong"),
        ("irq_window.ring3", "yes"),
    ]);
    host.replay(&log, &[]).expect_code(0).expect_named(&[]);
    host.replay(&stepped, &[])
        .expect_code(4)
        .expect_named(&["clock `step` in ring 0"]);
    host.replay(&windows, &[])
        .expect_code(4)
        .expect_named(&["IRQ-window exits in ring 0"]);
    // Said against the log, it is the log that differs.
    host.replay(&stepped, &["--clock", "none"])
        .expect_code(43)
        .expect_named(&["instruction clock", "step in ring 0"]);
    host.replay(&windows, &["--window-exits=false"])
        .expect_code(43)
        .expect_named(&["IRQ-window exits"]);
}

#[test]
fn a_log_that_says_nothing_of_what_was_found_is_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    let host = Host::new();
    let (log, older) = (host.log("log"), host.log("older"));
    host.record(&log, &["--clock", "none"])
        .expect_code(0)
        .expect_named(&[]);
    with_environment(&log, &older, |environment| {
        environment
            .informative
            .retain(|field| !field.name.starts_with("found: ") && field.name != "position strategy");
    });
    host.replay(&older, &[]).expect_code(0).expect_named(&[]);
}
