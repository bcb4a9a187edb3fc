//! Debian guests that are recorded and replayed: another release's kernel, a whole system, memory
//! that does not suffice; and a panic.
//!
//! As in [`super::linux`]: `make guests-debian` makes them, and `make lab-linux` runs them.

use lockstep_tests::harness::busy::Beside;
use lockstep_tests::harness::linux::{self, ENDED, record_and_replay, record_and_replay_beside};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Linux, kvm};

/// Exits between two digests of all of Debian. Each compares the registers, the rest of the processor
/// and the devices, and takes a part of a millisecond on a quiet host, and two in an emulator, where a
/// boot has a quarter of a million exits. In between, whatever the guest asks and says is compared at
/// its own exit; memory is at the end.
const DENSE: u64 = 16;

/// Boots the kernel of a release, whose name has `mark` in it, and replays it.
fn expect_boot(guest: Linux, mark: &str) {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let program = "uname -r; cat /proc/sys/kernel/random/uuid; ls /sys/bus/virtio/drivers";
    let recorded = record_and_replay(guest, guest.memory_mib(), program);
    for said in [mark, "virtio_net", &format!("{ENDED} 0")] {
        assert!(recorded.stdout.contains(said), "{said}: {recorded}");
    }
}

#[test]
fn debian_11_s_kernel_boots_and_is_replayed() {
    expect_boot(Linux::Shell11, "5.10.");
}

#[test]
fn debian_13_s_kernel_boots_and_is_replayed() {
    expect_boot(Linux::Shell13, "+deb13-");
}

#[test]
fn debian_14_s_kernel_boots_and_is_replayed() {
    expect_boot(Linux::Shell14, "+deb14-");
}

#[test]
fn a_boot_is_equal_at_every_exit() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let (guest, loads) = (Linux::Shell, [Beside::Nothing]);
    let recorded = record_and_replay_beside(guest, guest.memory_mib(), "date", 1, &loads);
    assert!(recorded.stdout.contains(&format!("{ENDED} 0")), "{recorded}");
}

#[test]
fn systemd_reaches_multi_user_and_three_replays_beside_other_loads_are_equal() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let program = "systemctl is-active dbus systemd-logind systemd-udevd systemd-journald";
    let loads = [Beside::Nothing, Beside::Computing, Beside::Writing];
    let memory_mib = Linux::Systemd.memory_mib();
    let recorded = record_and_replay_beside(Linux::Systemd, memory_mib, program, DENSE, &loads);
    for said in ["guest: multi-user.target is active", &format!("{ENDED} 0")] {
        assert!(recorded.stdout.contains(said), "{said}: {recorded}");
    }
    assert!(!recorded.stdout.contains("guest: failed:"), "{recorded}");
}

#[test]
fn a_guest_that_swaps_compacts_and_reclaims_is_replayed() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    // More than what is left of its memory is written, and read again; each page is another one, and
    // compresses to half.
    let program = "while read m; do insmod /modules/$m.ko; done </modules/more; \
         echo 256M >/sys/block/zram0/disksize; mkswap /dev/zram0 >/dev/null; swapon /dev/zram0; \
         python3 -c 'import os; a = [os.urandom(2048) + bytes(2048) for i in range(14000)]; \
         print(sum(p[0] == p[2047] for p in a) > 0, len(set(a)))'; \
         echo 1 >/proc/sys/vm/compact_memory; echo 3 >/proc/sys/vm/drop_caches; \
         grep -E '^(pswpin|pswpout|compact_isolated|pgscan_direct|pgsteal_kswapd) [1-9]' /proc/vmstat";
    let recorded = record_and_replay(Linux::Computing, "128", program);
    for said in [
        "True 14000",
        "pswpin",
        "pswpout",
        "compact_isolated",
        "pgsteal_kswapd",
    ] {
        assert!(recorded.stdout.contains(said), "{said}: {recorded}");
    }
}

#[test]
fn a_kernel_that_panics_is_shown_and_ends_with_status_1() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let line = Linux::running("echo c >/proc/sysrq-trigger");
    let ended = run(&mut Linux::Shell.command("run", &line)).expect_code(1);
    ended.expect_named(&["the guest cannot go on: its kernel panicked"]);
    for said in ["sysrq: Trigger a crash", "Kernel panic - not syncing"] {
        assert!(ended.stdout.contains(said), "{said}: {ended}");
    }
}
