//! The command line itself: help, version, configuration, messages.

use lockstep_logging_channel::FORMAT_VERSION;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Ended, Guest, Scratch, kvm, lockstep};

fn lockstep_with(arguments: &[&str]) -> Ended {
    run(lockstep().args(arguments))
}

#[test]
fn the_version_names_the_build_and_the_log_format() {
    let ended = lockstep_with(&["--version"]).expect_code(0);
    assert!(
        ended
            .stdout
            .contains(&format!("log format version {FORMAT_VERSION}")),
        "{ended}"
    );
    let build = ended.stdout.split(' ').nth(3).unwrap();
    let is_name = build.len() == 12 && build.bytes().all(|digit| digit.is_ascii_hexdigit());
    assert!(ended.stdout.contains(" build ") && is_name, "{ended}");
}

#[test]
fn an_initrd_is_for_a_kernel_and_a_kernel_is_in_place_of_an_image() {
    for arguments in [
        ["run", "--initrd", "initrd.img", "guest.elf"],
        ["run", "--kernel", "vmlinuz", "guest.elf"],
    ] {
        let ended = lockstep_with(&arguments).expect_code(2);
        ended.expect_named(&[arguments[1]]);
    }
    let _ = lockstep_with(&["run", "--initrd", "initrd.img"]).expect_code(2);
    let scratch = Scratch::new();
    let text = scratch.join("text");
    std::fs::write(&text, "no kernel\n").unwrap();
    let unknown = run(lockstep().args(["run", "--kernel"]).arg(&text)).expect_code(3);
    unknown.expect_named(&[&text.display().to_string(), "lockstep inspect"]);
}

#[test]
fn help_names_every_command_and_every_exit_status() {
    let ended = lockstep_with(&["--help"]).expect_code(0);
    for command in [
        "run", "primary", "backup", "replica", "record", "replay", "verify", "log", "list", "status",
        "switch", "demo", "inspect",
    ] {
        assert!(
            ended.stdout.contains(&format!("\n  {command}")),
            "`{command}` in {ended}"
        );
        let help = lockstep_with(&[command, "--help"]).expect_code(0);
        // Those whose guest may have the terminal say how it is left.
        let has_keys = ["run", "primary", "backup", "replica", "record"].contains(&command);
        assert_eq!(help.stdout.contains("Ctrl-A x"), has_keys, "{help}");
    }
    for status in ["40", "41", "42", "43"] {
        assert!(
            ended.stdout.contains(&format!(" {status} ")),
            "`{status}` in {ended}"
        );
    }
}

#[test]
fn wrong_usage_is_status_2_and_named() {
    let image = Guest::Smoke.image().display().to_string();
    let cases: [(&[&str], &str); 7] = [
        (&["frobnicate"], "frobnicate"),
        (&[], "Usage"),
        (&["run"], "<IMAGE>"),
        (&["run", &image, "--no-such-flag"], "--no-such-flag"),
        (&["run", &image, "--clock", "pmu"], "pmu"),
        (&["run", &image, "--memory-mib", "lots"], "lots"),
        // A verification of nothing would succeed.
        (&["verify", &image, "--runs", "0"], "--runs"),
    ];
    for (arguments, named) in cases {
        lockstep_with(arguments).expect_code(2).expect_named(&[named]);
    }
}

#[test]
fn what_a_command_does_not_use_is_neither_listed_nor_taken() {
    let image = Guest::Smoke.image().display().to_string();
    for verb in ["run", "record", "replay", "verify"] {
        let help = lockstep_with(&[verb, "--help"]).expect_code(0);
        assert!(!help.stdout.contains("Pair:"), "{help}");
        let refused = lockstep_with(&[verb, &image, "--log=log", "--name=web"]);
        if verb == "run" {
            let _ = refused.expect_code(2);
        } else {
            refused.expect_code(2).expect_named(&["--name", "side of a pair"]);
        }
        lockstep_with(&[verb, &image, "--print-config", "--report=report"])
            .expect_code(2)
            .expect_named(&["--report", "side of a pair"]);
    }
    let help = lockstep_with(&["primary", "--help"]).expect_code(0);
    assert!(help.stdout.contains("Pair:"), "{help}");
    for live in ["--network=none", "--event-latency-ms=5"] {
        let name = live.split('=').next().unwrap();
        lockstep_with(&["replay", &image, "--log=log", live])
            .expect_code(2)
            .expect_named(&[name, "not for a replay"]);
    }
}

#[test]
fn a_dump_of_nothing_is_refused() {
    let scratch = Scratch::new();
    let log = scratch.write("log", "");
    let log = log.to_str().unwrap();
    let cases: [(&[&str], &[&str]); 2] = [
        (&["--from=3", "--to=1"], &["--from 3 is behind --to 1"]),
        (&["--kind=foo"], &["foo", "disk completion"]),
    ];
    for (flags, named) in cases {
        lockstep_with(&[&["log", "dump", log], flags].concat())
            .expect_code(2)
            .expect_named(named);
    }
}

#[test]
fn intervals_that_cannot_be() {
    let image = Guest::Smoke.image().display().to_string();
    for (every, named) in [
        ("50ms", "100 ms or more"),
        ("soon", "a time"),
        ("-1", "-1"),
        ("2d", "a time"),
    ] {
        for verb in ["record", "verify"] {
            let every = format!("--snapshot-every={every}");
            lockstep_with(&[verb, &image, "--log=log", &every])
                .expect_code(2)
                .expect_named(&[named]);
        }
    }
    lockstep_with(&["replay", &image, "--log=log", "--from=first"])
        .expect_code(2)
        .expect_named(&["`last` for the newest snapshot"]);
}

#[test]
fn the_printed_configuration_is_a_configuration_file() {
    let scratch = Scratch::new();
    let image = Guest::Smoke.image().display().to_string();
    let flags = [
        "--memory-mib=32",
        "--command-line=a \"quoted\" text",
        "--clock=step",
        "--timeout-ms=150",
    ];
    let pair = [
        "--channel=tcp:localhost:7000",
        "--shared-directory=/some/where",
        "--lag-ms-max=300",
    ];
    let printed = lockstep_with(&[&["primary", &image, "--print-config"], &flags[..], &pair[..]].concat())
        .expect_code(0)
        .stdout;
    let file = scratch.write("config.toml", &printed).display().to_string();
    let again = lockstep_with(&["run", &image, "--print-config", "--config", &file]).expect_code(0);
    assert_eq!(again.stdout, printed);
    let flag = lockstep_with(&[
        "primary",
        &image,
        "--print-config",
        "--config",
        &file,
        "--memory-mib=8",
    ])
    .expect_code(0);
    assert_eq!(flag.stdout, printed.replace("memory_mib = 32", "memory_mib = 8"));
}

#[test]
fn the_configuration_is_printed_without_an_image() {
    let printed = |verb: &str| lockstep_with(&[verb, "--print-config", "--memory-mib=32"]).expect_code(0);
    for verb in ["run", "record", "replay", "verify", "primary", "backup"] {
        assert!(printed(verb).stdout.contains("memory_mib = 32"), "{verb}");
    }
    let image = Guest::Smoke.image().display().to_string();
    lockstep_with(&["record", &image])
        .expect_code(2)
        .expect_named(&["--log"]);
}

#[test]
fn a_machine_runs_as_its_file_says() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let file = scratch.write(
        "config.toml",
        "memory_mib = 17\ncommand_line = \"from the file\"\n",
    );
    let ended = run(lockstep()
        .arg("run")
        .arg(Guest::Smoke.image())
        .arg("--config")
        .arg(file))
    .expect_code(0);
    assert!(ended.stdout.contains("memory: 17 MiB\n"), "{ended}");
    assert!(ended.stdout.contains("command line: from the file\n"), "{ended}");
}

#[test]
fn the_status_of_the_guest_becomes_the_status() {
    let Some(_kvm) = kvm::shared() else { return };
    let with_status = |status: &str| {
        run(lockstep()
            .arg("run")
            .arg(Guest::Smoke.image())
            .args(["--command-line", status]))
    };
    let _ = with_status("status=0").expect_code(0);
    with_status("status=7").expect_code(1).expect_named(&["status=7"]);
}

#[test]
fn messages_are_json_lines_where_that_is_asked_for() {
    let Some(_kvm) = kvm::shared() else { return };
    let ended = run(lockstep()
        .args(["--log-format", "json", "-v", "run"])
        .arg(Guest::Smoke.image()))
    .expect_code(0);
    assert!(!ended.stderr.is_empty(), "{ended}");
    for line in ended.stderr.lines() {
        let message: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        assert!(message["level"].is_string(), "{line}");
    }
}

#[test]
fn quiet_says_only_errors() {
    let Some(_kvm) = kvm::shared() else { return };
    let ended = run(lockstep().args(["-q", "run"]).arg(Guest::Smoke.image())).expect_code(0);
    assert_eq!(ended.stderr, "");
    let image = "/no/such/image";
    lockstep_with(&["-q", "run", image])
        .expect_code(3)
        .expect_named(&[image]);
}

#[test]
fn machines_are_listed_as_the_store_remembers_them() {
    let scratch = Scratch::new();
    let shared = scratch.directory("shared");
    let argument = format!("--shared-directory={}", shared.display());
    let none = lockstep_with(&["list", &argument]).expect_code(0);
    assert!(none.stdout.contains("no machine is known"), "{none}");
    for (name, why) in [("web", "no machine is called web"), ("a/b", "is not a name")] {
        lockstep_with(&["status", name, &argument])
            .expect_code(3)
            .expect_named(&["name", why]);
    }
    lockstep_with(&["list", "--shared-directory=/no/such"])
        .expect_code(3)
        .expect_named(&["shared-directory", "/no/such"]);

    let folder = shared.join("web");
    std::fs::create_dir(&folder).unwrap();
    let write = |file: &str, text: &str| std::fs::write(folder.join(file), text).unwrap();
    write("machine", "lockstep-machine 1\nname web\n");
    let status = ["status", "web", "--json", &argument];
    let printed = lockstep_with(&status).expect_code(0).stdout;
    let found: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(found["why_not"], "it was never started");

    let id = "01".repeat(16);
    let claim = format!(
        "lockstep-claim 2\ngeneration 1\nmachine {id}\nid {id}\nlabel replica\nhost there\nboot {id}\n\
         process 4711\nprocess-start 1\npid-namespace 1\ntime-namespace 1\naddress tcp:there:9\nwritten 0\n"
    );
    write("generation-0000000001", &claim);
    let printed = lockstep_with(&status).expect_code(0).stdout;
    let found: serde_json::Value = serde_json::from_str(&printed).unwrap();
    for key in ["name", "generation", "protected", "since", "why_not"] {
        assert!(found.get(key).is_some(), "{key}: {printed}");
    }
    assert!(
        found["why_not"].as_str().unwrap().contains("was not seen"),
        "{printed}"
    );
    for (key, value) in [("role", "primary"), ("host", "there"), ("address", "tcp:there:9")] {
        assert_eq!(found["sides"][0][key], value, "{printed}");
    }

    write("generation-0000000001", "something else\n");
    lockstep_with(&status)
        .expect_code(3)
        .expect_named(&["generation-0000000001", "damaged or not ours"]);
}
