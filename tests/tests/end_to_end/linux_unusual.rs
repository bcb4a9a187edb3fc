//! Debian guests in ways that others are not: with page tables of their own for its programs, with a
//! program of 32 bits, with all the memory that a machine may have. Each is recorded and replayed.
//!
//! As in [`super::linux`]: `make guests-debian` makes it, and `make lab-linux` runs these tests.

use lockstep_tests::harness::linux::{self, ENDED, record_and_replay, record_and_replay_told};
use lockstep_tests::harness::programs::Bits;
use lockstep_tests::harness::{Ended, Linux, kvm};

/// The most that a machine may have, in MiB.
const MEMORY_MIB_MAX: &str = "3072";

/// Has programs read the time-stamp counter, one of 64 bits last, in a guest whose kernel is told
/// `text`.
fn counted(text: &str) -> Ended {
    let [first, second, third] = [Bits::SixtyFour, Bits::ThirtyTwo, Bits::SixtyFour].map(Bits::run);
    let program = format!("dmesg | grep isolation; {first}; {second}; {third}");
    let command_line = format!("{text} {}", Linux::running(&program));
    let recorded = record_and_replay_told(Linux::Shell, Linux::Shell.memory_mib(), &command_line);
    let counts = counts(&recorded);
    assert_eq!(counts.len(), 3, "{recorded}");
    assert!(
        counts.is_sorted_by(|before, after| before < after),
        "{counts:?}: {recorded}"
    );
    assert!(recorded.stdout.contains(&format!("{ENDED} 0")), "{recorded}");
    recorded
}

/// Counters that programs have written, in hexadecimal digits on lines of their own.
fn counts(ended: &Ended) -> Vec<u64> {
    let bytes = ended
        .stdout
        .lines()
        .filter_map(|line| hex::decode(line.trim_end()).ok());
    let counts = bytes.filter_map(|bytes| bytes.try_into().ok());
    counts.map(u64::from_le_bytes).collect()
}

#[test]
fn a_program_of_32_bits_reads_the_counter_and_calls_the_kernel() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let _ = counted("");
}

#[test]
fn a_kernel_whose_page_tables_are_isolated_is_replayed() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let recorded = counted("pti=on");
    let isolated = "page tables isolation: enabled";
    assert!(recorded.stdout.contains(isolated), "{recorded}");
}

#[test]
fn a_guest_with_all_the_memory_there_may_be_is_replayed() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let program = "sed -n 's/^MemTotal: *//p' /proc/meminfo";
    let recorded = record_and_replay(Linux::Shell, MEMORY_MIB_MAX, program);
    let mut totals = recorded.stdout.lines().filter_map(|line| {
        let total = line.trim_end().strip_suffix(" kB")?;
        total.parse::<u64>().ok()
    });
    // The kernel keeps a part of it for itself.
    let least = 2900 << 10;
    assert!(totals.next().is_some_and(|total| total > least), "{recorded}");
}
