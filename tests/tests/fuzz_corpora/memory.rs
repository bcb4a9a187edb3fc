//! What arbitrary bytes claim does not decide how much memory is taken.

/// The most this process may ever hold. The largest promise is a reply of 16 MiB, which the output's growth may hold three
/// times, in as many threads as tests run in; the rest is small beside it. A claimed length of 4 GiB is far above.
const RESIDENT_KIB_MAX: u64 = 1 << 20;

/// Fails where this process has held more.
pub fn assert_bounded() {
    let status = std::fs::read_to_string("/proc/self/status").expect("the process's status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("its peak");
    let peak_kib: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .expect("a number");
    assert!(
        peak_kib <= RESIDENT_KIB_MAX,
        "{peak_kib} KiB of memory were taken"
    );
}
