//! Samples, medians, and the processor time of a process.

/// Result of one run of redis-benchmark.
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

/// Time that the threads of process `id` have run, in seconds: by the scheduler's own clock
/// (`/proc/PID/task/TID/schedstat`, first field, nanoseconds), as the ticks of `/proc/PID/stat`
/// miss what is shorter than one.
pub fn cpu_seconds(id: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).expect("the process runs");
    let run_ns = threads.flatten().filter_map(|thread| {
        // A thread may end between the two looks.
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    run_ns.sum::<u64>() as f64 / 1e9
}
