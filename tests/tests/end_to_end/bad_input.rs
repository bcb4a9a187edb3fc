//! Bad input: each gets one clear error that names the thing, the right status, and leaves nothing
//! behind.

use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Guest, Scratch, kvm, lockstep};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

/// The status of what is configured wrongly.
const CONFIGURATION: i32 = 3;

/// Runs `command`, which must fail with `code` and name everything in `named`, and change nothing
/// in `scratch`.
fn expect_refused(scratch: &Scratch, command: &mut Command, code: i32, named: &[&str]) {
    let before = scratch.names();
    let ended = run(command.current_dir(scratch.path())).expect_code(code);
    ended.expect_named(named);
    assert_eq!(ended.stderr.matches("ERROR").count(), 1, "one error: {ended}");
    assert_eq!(ended.stdout, "", "{ended}");
    assert_eq!(scratch.names(), before, "something was left behind by {ended}");
}

fn run_image(image: &Path) -> Command {
    let mut command = lockstep();
    command.arg("run").arg(image);
    command
}

fn smoke(verb: &str, flags: &[&str]) -> Command {
    let mut command = lockstep();
    command.arg(verb).arg(Guest::Smoke.image()).args(flags);
    command
}

/// The smoke guest with some of its bytes changed.
fn patched(scratch: &Scratch, name: &str, at: usize, bytes: &[u8]) -> std::path::PathBuf {
    let mut image = std::fs::read(Guest::Smoke.image()).unwrap();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    scratch.write(name, image)
}

#[test]
fn images_that_are_none() {
    let scratch = Scratch::new();
    let smoke = std::fs::read(Guest::Smoke.image()).unwrap();
    let cases = [
        (scratch.write("text", "#!/bin/sh\n"), "not a 64-bit ELF image"),
        (scratch.write("empty", ""), "empty"),
        (scratch.write("cut", &smoke[..smoke.len() / 2]), "cut"),
        (scratch.write("header", &smoke[..40]), "header"),
        (patched(&scratch, "32-bit", 4, &[1]), "not a 64-bit ELF image"),
        (
            patched(&scratch, "arm", 18, &183_u16.to_le_bytes()),
            "machine 183",
        ),
        (
            patched(&scratch, "shared-object", 16, &3_u16.to_le_bytes()),
            "ELF type 3",
        ),
        (patched(&scratch, "entry", 24, &u64::MAX.to_le_bytes()), "entry"),
        (scratch.directory("directory"), "directory"),
        (scratch.join("missing"), "missing"),
    ];
    for (image, named) in cases {
        let text = image.display().to_string();
        expect_refused(&scratch, &mut run_image(&image), CONFIGURATION, &[&text, named]);
    }
}

#[test]
fn files_of_another_kind_are_named_as_what_they_are() {
    let scratch = Scratch::new();
    let (smoke, initrd) = (Guest::Smoke.image(), scratch.write("initrd", "070701"));
    let kernel = scratch.write("kernel", [&[0; 0x202][..], b"HdrS"].concat());
    let with_kernel = |kernel: &Path, initrd: &Path| {
        let mut command = lockstep();
        command.arg("run").arg("--kernel").arg(kernel);
        command.arg("--initrd").arg(initrd);
        command
    };
    for (mut command, named) in [
        (run_image(&initrd), ["not a guest image", "an initrd", "--initrd"]),
        (
            run_image(&kernel),
            ["not a guest image", "a Linux bzImage", "--kernel"],
        ),
        (
            with_kernel(&kernel, &smoke),
            ["not an initial ramdisk", "a guest image", "without an option"],
        ),
        (
            with_kernel(&kernel, &kernel),
            ["not an initial ramdisk", "a Linux bzImage", "--kernel"],
        ),
    ] {
        expect_refused(&scratch, &mut command, CONFIGURATION, &named);
    }
    let mut command = lockstep();
    command.arg("run").arg("--kernel").arg(&smoke);
    let named = ["not a kernel of Linux", "a guest image", "without an option"];
    expect_refused(&scratch, &mut command, CONFIGURATION, &named);
}

#[test]
fn images_that_are_too_large() {
    let scratch = Scratch::new();
    let huge = scratch.write("huge", "");
    std::fs::File::options()
        .write(true)
        .open(&huge)
        .unwrap()
        .set_len(64 << 30)
        .unwrap();
    expect_refused(
        &scratch,
        &mut run_image(&huge),
        CONFIGURATION,
        &["huge", "larger than"],
    );
    let mut small = run_image(&Guest::KeyValue.image());
    expect_refused(
        &scratch,
        small.args(["--memory-mib", "2"]),
        CONFIGURATION,
        &["key-value.elf", "--memory-mib"],
    );
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let scratch = Scratch::new();
    let fifo = scratch.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let _socket = UnixListener::bind(scratch.join("socket")).unwrap();
    let others = [
        ("fifo", "a FIFO"),
        ("socket", "a socket"),
        ("/dev/zero", "a character device"),
        (".", "a directory"),
    ];
    for (path, kind) in others {
        let named = [path, kind];
        expect_refused(&scratch, &mut run_image(Path::new(path)), CONFIGURATION, &named);
        for (verb, flag) in [("replay", "--log"), ("run", "--config")] {
            expect_refused(&scratch, &mut smoke(verb, &[flag, path]), CONFIGURATION, &named);
        }
        let onto = ["--overwrite", "--log", path];
        expect_refused(&scratch, &mut smoke("record", &onto), CONFIGURATION, &named);
        let mut info = lockstep();
        expect_refused(&scratch, info.args(["log", "info", path]), CONFIGURATION, &named);
    }
}

#[test]
fn a_shared_directory_whose_name_is_no_file_is_refused_at_once() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let identity = scratch.directory("shared").join("identity");
    nix::unistd::mkfifo(&identity, nix::sys::stat::Mode::S_IRUSR).unwrap();
    for role in ["primary", "backup"] {
        let mut side = smoke(role, &["--channel=unix:channel", "--shared-directory=shared"]);
        let named = ["shared-directory", "shared/identity", "not a regular file"];
        expect_refused(&scratch, &mut side, CONFIGURATION, &named);
    }
}

#[test]
fn settings_that_cannot_be() {
    let scratch = Scratch::new();
    let cases = [
        ("--memory-mib=1", "1048576"),
        ("--mac=00:00:00:00:00:00", "00:00:00:00:00:00"),
        ("--memory-mib=4000", "guest memory"),
        ("--memory-mib=99999999999999999", "memory-mib"),
        ("--network=foo", "foo"),
        ("--network=switch:", "switch:"),
        ("--network=tap:a-name-that-is-too-long", "a-name-that-is-too-long"),
        ("--network=switch:/no/such/directory/socket", "/no/such/directory"),
        ("--network=switch:nobody-listens", "nobody-listens"),
        ("--mac=53:54:00:4c:53:01", "53:54:00:4c:53:01"),
        ("--mac=nonsense", "nonsense"),
        ("--config=missing.toml", "missing.toml"),
    ];
    for (setting, named) in cases {
        expect_refused(&scratch, &mut smoke("run", &[setting]), CONFIGURATION, &[named]);
    }
    let long = format!("--command-line={}", "x".repeat(5000));
    expect_refused(
        &scratch,
        &mut smoke("run", &[&long]),
        CONFIGURATION,
        &["command line", "5000"],
    );
}

/// A runtime that gets no descriptor panics, and a property of the host that gets none looks as if
/// it were missing.
#[test]
fn too_few_open_files_are_said_at_once_and_a_low_soft_limit_is_raised() {
    let Some(_kvm) = kvm::shared() else { return };
    let limited = |limit: &str| {
        let mut command = Command::new("sh");
        let script = format!("{limit}; exec \"$0\" run \"$1\"");
        command
            .args(["-c", &script])
            .arg(lockstep().get_program())
            .arg(Guest::Smoke.image());
        run(&mut command)
    };
    for files in [9, 14, 100] {
        let refused = limited(&format!("ulimit -n {files}")).expect_code(4);
        refused.expect_named(&[&format!("may open {files} files"), "ulimit -n"]);
    }
    let _ = limited("ulimit -S -n 20").expect_code(0);
}

#[test]
fn configuration_files_that_are_wrong() {
    let scratch = Scratch::new();
    let cases = [
        ("memroy_mib = 16", "memroy_mib"),
        ("memory_mib = \"lots\"", "memory_mib"),
        ("memory_mib = -1", "memory_mib"),
        ("clock = \"sundial\"", "sundial"),
        ("[machine]\nmemory_mib = 16", "machine"),
        ("memory_mib 16", "line 1"),
    ];
    for (text, named) in cases {
        scratch.write("wrong.toml", text);
        expect_refused(
            &scratch,
            &mut smoke("run", &["--config=wrong.toml"]),
            CONFIGURATION,
            &["wrong.toml cannot be used", named],
        );
    }
}

#[test]
fn logs_that_cannot_be_written_or_read() {
    let scratch = Scratch::new();
    scratch.write("existing", "precious");
    let cases: [(&str, &[&str], &[&str]); 5] = [
        ("record", &["--log", "existing"], &["existing", "--overwrite"]),
        (
            "record",
            &["--log", "no-such-directory/log"],
            &["no-such-directory/log"],
        ),
        ("record", &["--log", "/proc/log"], &["/proc/log"]),
        ("replay", &["--log", "missing"], &["missing"]),
        ("replay", &["--log", "."], &["."]),
    ];
    for (verb, flags, named) in cases {
        expect_refused(&scratch, &mut smoke(verb, flags), CONFIGURATION, named);
    }
    assert_eq!(std::fs::read(scratch.join("existing")).unwrap(), b"precious");
}

#[test]
fn pairs_that_lack_something() {
    let scratch = Scratch::new();
    scratch.directory("shared");
    let shared = "--shared-directory=shared";
    let cases: [(&[&str], &str); 7] = [
        (&["--channel=unix:channel"], "shared-directory"),
        (&["--channel=pigeon:7", shared], "pigeon:7"),
        (&["--channel=tcp:localhost", shared], "tcp:localhost"),
        (
            &["--channel=unix:no-such-directory/channel", shared],
            "no-such-directory",
        ),
        (
            &["--channel=unix:channel", shared, "--timeout-ms=1"],
            "10 to 3600000 ms",
        ),
        (&["--channel=unix:channel", shared, "--window-mib=1000"], "window"),
        (
            &[
                "--channel=unix:channel",
                shared,
                "--report=no-such-directory/report",
            ],
            "no-such-directory/report",
        ),
    ];
    for (flags, named) in cases {
        for role in ["primary", "backup"] {
            expect_refused(&scratch, &mut smoke(role, flags), CONFIGURATION, &[named]);
        }
    }
    let long = format!("--channel=unix:{}", "x".repeat(200));
    expect_refused(
        &scratch,
        &mut smoke("primary", &[&long, shared]),
        CONFIGURATION,
        &["200 bytes", "shorter"],
    );
}

#[test]
fn shared_directories_that_cannot_be_written() {
    let scratch = Scratch::new();
    scratch.write("file", "");
    // Nobody makes files in /proc, root included.
    for (directory, named) in [("/proc", "/proc"), ("file", "file")] {
        let shared = format!("--shared-directory={directory}");
        let mut primary = smoke("primary", &["--channel=unix:channel", &shared]);
        expect_refused(
            &scratch,
            &mut primary,
            CONFIGURATION,
            &["shared-directory", named],
        );
    }
}

#[test]
fn addresses_in_use() {
    let scratch = Scratch::new();
    scratch.directory("shared");
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    let _socket = UnixListener::bind(scratch.join("socket")).unwrap();
    scratch.write("file", "precious");
    for (channel, named) in [
        (format!("tcp:{address}"), address.as_str()),
        ("unix:socket".into(), "socket"),
        ("unix:file".into(), "file"),
    ] {
        let channel = format!("--channel={channel}");
        for role in ["primary", "replica"] {
            let mut side = smoke(role, &[&channel, "--shared-directory=shared"]);
            expect_refused(&scratch, &mut side, CONFIGURATION, &[named]);
        }
    }
    assert_eq!(std::fs::read(scratch.join("file")).unwrap(), b"precious");
    expect_empty(&scratch.join("shared"));
}

/// Fails unless nothing was left in the store.
fn expect_empty(shared: &Path) {
    let left: Vec<_> = std::fs::read_dir(shared)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "{left:?} was left behind");
}

#[test]
fn what_cannot_begin_is_refused_before_the_store_knows_of_it() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    scratch.directory("shared");
    let cases = [
        ("--channel=tcp:127.0.0.1:0", "a port that is known"),
        ("--channel=nowhere", "channel"),
        ("--channel=unix:no-such-directory/channel", "no-such-directory"),
        ("--network=switch:no-such-switch", "no-such-switch"),
        ("--network=tap:no-such-tap", "no-such-tap"),
        ("--name=a/b", "`a/b` is not a name for a machine: only letters"),
    ];
    for (flag, named) in cases {
        for role in ["primary", "replica"] {
            let mut side = smoke(role, &[flag, "--shared-directory=shared"]);
            expect_refused(&scratch, &mut side, CONFIGURATION, &[named]);
        }
    }
    expect_empty(&scratch.join("shared"));
}

#[test]
fn switches_that_cannot_start() {
    let scratch = Scratch::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("{}:10.0.2.15:6379", port.local_addr().unwrap());
    let _socket = UnixListener::bind(scratch.join("in-use")).unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["--socket=no-such-directory/socket"], "no-such-directory"),
        (&["--socket=in-use"], "in-use"),
        (
            &["--socket=socket", "--forward", &forward],
            &forward[..forward.len() - 15],
        ),
        (
            &["--socket=socket", "--forward=127.0.0.1:0:192.168.1.1:80"],
            "192.168.1.1",
        ),
        (
            &[
                "--socket=socket",
                "--address=10.0.2.2/24",
                "--forward=127.0.0.1:0:10.0.2.2:80",
            ],
            "10.0.2.2",
        ),
        (
            &["--socket=socket", "--pcap=no-such-directory/frames"],
            "no-such-directory/frames",
        ),
    ];
    for (flags, named) in cases {
        expect_refused(
            &scratch,
            lockstep().arg("switch").args(flags),
            CONFIGURATION,
            &[named],
        );
    }
}
