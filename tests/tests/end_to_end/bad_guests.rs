//! Guests that fail, hang, or raise interrupts without end: each is named or stays stoppable, is
//! recorded and replayed, and leaves nothing behind.
//!
//! They are a few instructions each. As images of our own convention they run on every host; as
//! kernels where its KVM runs one in ring 0 (`make lab-test TEST=bad-guests` elsewhere).

use lockstep_logging_channel::{Body, Entry, LogReader};
use lockstep_tests::harness::bare::{Code, Form, interrupted};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Ended, Process, Scratch, kvm, linux, lockstep, wait_until};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;

const MEMORY_MIB: &str = "16";
/// Text that leaves with the end of a line, and text that has none.
const SAID: &str = "the guest begins\nits last words";
/// Interrupts of a storm, and lines of text, one for each 256.
const INTERRUPTS_MAX: u32 = 1024;
const STORM_LINES: usize = INTERRUPTS_MAX as usize / 256;

/// Forms that this host can run.
fn forms() -> Vec<Form> {
    let mut forms = vec![Form::Image];
    forms.extend(linux::runs_kernels().then_some(Form::Kernel));
    forms
}

/// A guest in a folder of its own.
struct Bad {
    scratch: Scratch,
    form: Form,
    file: PathBuf,
}

impl Bad {
    fn new(form: Form, code: &Code) -> Self {
        let scratch = Scratch::new();
        let file = scratch.write("guest", form.file(code));
        Self { scratch, form, file }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = lockstep();
        command.arg(verb).args(["--memory-mib", MEMORY_MIB]);
        if self.form == Form::Kernel {
            command.arg("--kernel");
        }
        command.arg(&self.file).env("TMPDIR", self.scratch.path());
        command
    }

    fn log(&self) -> PathBuf {
        self.scratch.join("log")
    }

    fn recording(&self) -> Command {
        let mut command = self.command("record");
        command.arg("--log").arg(self.log());
        command
    }

    /// Replays the recording, whose guest has ended with `status`, and which has said the same.
    fn expect_replay(&self, recorded: &Ended, status: i32) {
        let replayed = run(self.command("replay").arg("--log").arg(self.log())).expect_code(status);
        replayed.expect_named(&["the replay equals the log"]);
        assert_eq!(replayed.stdout, recorded.stdout);
        self.expect_nothing_else();
    }

    fn expect_nothing_else(&self) {
        let mut names = self.scratch.names();
        names.sort();
        assert_eq!(names, ["guest", "log"]);
    }
}

/// MOV RDI, CR3; MOV ECX, 512; CLD; REP STOSQ; then all tables are read again, through CR3.
fn with_first_table_of(entry: u64) -> Code {
    Code::default()
        .raw(&[0x48, 0xb8])
        .raw(&entry.to_le_bytes())
        .raw(&[0x0f, 0x20, 0xdf, 0xb9, 0, 2, 0, 0, 0xfc, 0xf3, 0x48, 0xab])
        .raw(&[0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8])
}

#[test]
fn what_a_guest_cannot_go_on_from_is_named_and_replayed_and_its_last_words_are_there() {
    let Some(_kvm) = kvm::shared() else { return };
    let ends = [
        // UD2.
        Code::default().without_interrupt_table().raw(&[0x0f, 0x0b]),
        with_first_table_of(0),
        // Tables outside memory, and at a device.
        with_first_table_of(0x0000_00ff_ffff_f007),
        with_first_table_of(0xd000_0007),
        // CLI, HLT.
        Code::default().raw(&[0xfa, 0xf4]),
    ];
    for form in forms() {
        for end in &ends {
            let bad = Bad::new(form, &Code::default().say(SAID).raw(&end.0));
            let recorded = run(&mut bad.recording()).expect_code(1);
            assert_eq!(recorded.stdout, SAID, "{form:?} {end:?}");
            recorded.expect_named(&["the guest cannot go on"]);
            bad.expect_replay(&recorded, 1);
        }
    }
}

#[test]
fn a_kernel_that_panics_shows_its_last_lines_and_ends_with_status_1() {
    let Some(_kvm) = kvm::shared() else { return };
    if !linux::kernels_offered() {
        return;
    }
    // MOV WORD [0x472], 0x1234: so a panic restarts; the reset register.
    let restarts = Code::default()
        .raw(&[0x66, 0xc7, 0x04, 0x25, 0x72, 0x04, 0, 0, 0x34, 0x12])
        .out(0xcf9, 6);
    let bad = Bad::new(Form::Kernel, &Code::default().say(SAID).raw(&restarts.0));
    let recorded = run(&mut bad.recording()).expect_code(1);
    assert_eq!(recorded.stdout, SAID);
    recorded.expect_named(&["the guest cannot go on", "its kernel panicked"]);
    bad.expect_replay(&recorded, 1);
}

/// Starts `command`, and ends it by `signal` when it has said `text` so often.
fn ended_by(signal: Signal, command: &mut Command, text: &str, times: usize) -> Ended {
    let mut process = Process::start("a bad guest", command);
    process.wait_for_stdout(&text.repeat(times));
    process.signal(signal);
    process.wait().expect_code(0)
}

#[test]
fn a_guest_that_hangs_with_interrupts_off_is_stopped_and_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    // CLI; JMP to itself. Its timer is due all the time.
    let hangs = timer_storm().say("it hangs\n").raw(&[0xfa, 0xeb, 0xfe]);
    for form in forms() {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let bad = Bad::new(form, &hangs);
            let _ = ended_by(signal, &mut bad.command("run"), "it hangs", 1);
            let recorded = ended_by(signal, &mut bad.recording(), "it hangs", 1);
            bad.expect_replay(&recorded, 0);
        }
    }
}

#[test]
fn what_arrives_while_a_guest_hangs_with_interrupts_off_is_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    // CLI; JMP to itself: after a tenth of a second something is let in all the same.
    let hangs = timer_storm().say(SAID).say("\n").raw(&[0xfa, 0xeb, 0xfe]);
    let is_common_point = |entry: Entry| matches!(entry.body, Body::CommonPoint(_));
    for form in forms() {
        let bad = Bad::new(form, &hangs);
        let mut process = Process::start("a bad guest", &mut bad.recording());
        wait_until(
            || {
                let so_far = LogReader::open(&bad.log()).ok()?.map_while(Result::ok);
                so_far.into_iter().any(is_common_point).then_some(())
            },
            || format!("{form:?}: a common point"),
        );
        process.signal(Signal::SIGTERM);
        let recorded = process.wait().expect_code(0);
        bad.expect_replay(&recorded, 0);
    }
}

/// Has the timer expire each 1.7 microseconds.
fn timer_storm() -> Code {
    Code::default().out(0x43, 0x34).out(0x40, 2).out(0x40, 0)
}

/// A console that interrupts after each byte, and is given another then.
fn serial_storm(form: Form) -> Code {
    // MOV DX, 0x3fa; IN AL, DX: what is pending is seen.
    let handler = Code::default().raw(&[0x66, 0xba, 0xfa, 0x03, 0xec]).say("x");
    let set_up = Code::default().out(0x3f9, 2).say("x");
    interrupted(form, 4, &handler, &set_up, INTERRUPTS_MAX)
}

/// A network device that is given the same frame again and again.
fn virtio_storm(form: Form) -> Code {
    const TABLE: u32 = 0x19_0000;
    const AVAILABLE: u32 = 0x19_1000;
    const USED: u32 = 0x19_2000;
    const BUFFER: u32 = 0x19_3000;
    const NOTIFY: u32 = 0x50;
    const ACKNOWLEDGE: u32 = 0x64;
    // VIRTIO 1.2, 3.1.1: the second queue is for what the guest sends.
    let set_up = [
        (0x70, 0),
        (0x70, 1),
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x30, 1),
        (0x38, 8),
        (0x80, TABLE),
        (0x90, AVAILABLE),
        (0xa0, USED),
        (0x44, 1),
        (0x70, 15),
    ];
    // INC WORD [index of what is available].
    let offers = Code::default()
        .raw(&[0x66, 0xff, 0x04, 0x25])
        .raw(&(AVAILABLE + 2).to_le_bytes())
        .set_register(NOTIFY, 1);
    // MOV EBX, the device; its line is level-triggered.
    let begin = Code::default()
        .out(0x4d0, 0x20)
        .raw(&[0xbb])
        .raw(&0xd000_0000_u32.to_le_bytes())
        .store(TABLE, BUFFER.into())
        // A header of 12 bytes and the shortest frame.
        .store(TABLE + 8, 12 + 60);
    let begin = set_up
        .into_iter()
        .fold(begin, |code, (offset, value)| code.set_register(offset, value));
    let handler = Code::default().set_register(ACKNOWLEDGE, 3).raw(&offers.0);
    interrupted(form, 5, &handler, &begin.raw(&offers.0), INTERRUPTS_MAX)
}

fn expect_storm(code: impl Fn(Form) -> Code) {
    for form in forms() {
        let bad = Bad::new(form, &code(form));
        let recorded = run(&mut bad.recording()).expect_code(1);
        let lines = recorded.stdout.matches(".\n").count();
        assert_eq!(lines, STORM_LINES, "{form:?}: {recorded}");
        recorded.expect_named(&["it halted with interrupts disabled"]);
        bad.expect_replay(&recorded, 1);
    }
}

#[test]
fn a_storm_is_stopped() {
    let Some(_kvm) = kvm::shared() else { return };
    for form in forms() {
        let storm = interrupted(form, 0, &Code::default(), &timer_storm(), 0);
        let bad = Bad::new(form, &storm);
        let _ = ended_by(Signal::SIGTERM, &mut bad.command("run"), ".\n", STORM_LINES);
    }
}

#[test]
fn a_storm_of_the_timer_is_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    expect_storm(|form| interrupted(form, 0, &Code::default(), &timer_storm(), INTERRUPTS_MAX));
}

#[test]
fn a_storm_of_the_console_is_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    expect_storm(serial_storm);
}

#[test]
fn a_storm_of_a_virtio_device_is_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    expect_storm(virtio_storm);
}

/// Runs the kernel, which must be refused with status 3 and name everything in `named`.
fn expect_refused(scratch: &Scratch, kernel: &Path, more: &[&str], named: &[&str]) {
    let before = scratch.names();
    let mut command = lockstep();
    command
        .args(["run", "--memory-mib", MEMORY_MIB, "--kernel"])
        .arg(kernel);
    let ended = run(command.args(more).current_dir(scratch.path())).expect_code(3);
    ended.expect_named(named);
    assert_eq!(ended.stderr.matches("ERROR").count(), 1, "{ended}");
    assert_eq!(ended.stdout, "", "{ended}");
    assert_eq!(scratch.names(), before, "something was left behind by {ended}");
}

#[test]
fn kernels_and_what_comes_with_them_are_refused_by_name() {
    use lockstep_tests::fuzz::corpus::seeds;
    use lockstep_tests::fuzz::kernel::{bzimage, initrd};
    let scratch = Scratch::new();
    let good = Form::Kernel.file(&Code::default().raw(&[0xf4]));
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let packed = bzimage(&good);
    let mut without_64_bits = packed.clone();
    without_64_bits[0x236] = 0;
    let mut arm = vec![0; 0x40];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let kernels: [(&str, Vec<u8>, &str); 7] = [
        ("arm64", arm, "for arm64, not for x86-64"),
        ("arm64-vmlinux", with(18, &[183]), "ELF machine 183"),
        ("32-bit-vmlinux", with(4, &[1]), "not a 64-bit ELF image"),
        ("32-bit", without_64_bits, "a 32-bit Linux kernel"),
        ("cut", packed[..packed.len() - 1].to_vec(), "it is cut off"),
        ("cut-vmlinux", good[..good.len() / 2].to_vec(), "cut-vmlinux"),
        (
            "unknown",
            bzimage(b"neither of them"),
            "an unknown kind: it begins with 6e 65",
        ),
    ];
    for (name, bytes, named) in kernels {
        let kernel = scratch.write(name, bytes);
        expect_refused(&scratch, &kernel, &[], &[name, named, "lockstep inspect"]);
    }
    let kernel = scratch.write("good", &good);
    // A cpio archive may have zeros behind it.
    scratch.write("large", vec![0; 16 << 20]);
    expect_refused(
        &scratch,
        &kernel,
        &["--initrd=large"],
        &["16777216 bytes", "ramdisk"],
    );
    let module = seeds("kernel").into_iter().find(|seed| seed.name == "module.hex");
    scratch.write("modules", initrd(&module.unwrap().bytes[1..]));
    expect_refused(&scratch, &kernel, &["--initrd=modules"], &["a.ko", "1 RDTSC"]);
    for (asked, named) in [
        ("lapic", "there is no local APIC"),
        ("apic=debug", "there is no APIC"),
        ("x2apic_phys", "there is no APIC"),
        ("maxcpus=2", "there is one processor"),
        ("nr_cpus=2", "there is one processor"),
        ("possible_cpus=2", "there is one processor"),
        ("crashkernel=64M", "is not rewritten"),
        ("acpi=off", "announced by ACPI"),
    ] {
        let line = format!("--command-line=quiet {asked}");
        expect_refused(&scratch, &kernel, &[&line], &[asked, named]);
    }
}
