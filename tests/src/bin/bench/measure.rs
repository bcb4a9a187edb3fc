//! Samples, medians, and the processor time of a process.

/// What one run of redis-benchmark came to.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Requests a second, mean of the workload's commands.
    pub requests_per_second: f64,
    /// Processor time of the process that runs the guest, in microseconds a request.
    pub cpu_us_per_request: f64,
    /// Median latency, mean of the commands, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile, mean of the commands, in milliseconds.
    pub p99_ms: f64,
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// User and system time of process `id`, in seconds (proc(5), stat, fields 14 and 15).
pub fn cpu_seconds(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("the process runs");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    let ticks_per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .unwrap_or(100);
    ticks / ticks_per_second as f64
}
