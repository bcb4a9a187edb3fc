//! What is aimed at, and whether this run met it.

use serde_json::Value;

/// Prints each aim beside what was measured. A benchmark on a shared machine informs; it fails nothing.
pub fn print(all: &Value) {
    println!("\naim                                                      measured      met");
    let row = |aim: &str, measured: String, met: bool| {
        println!("{aim:56} {measured:12}  {}", if met { "yes" } else { "no" });
    };
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let compute = number(&all["compute_ratio"]);
    row(
        "compute guest at least 0.98 of the unprotected speed",
        format!("{compute:.3}"),
        compute >= 0.98,
    );
    for workload in all["serving"].as_array().into_iter().flatten() {
        let (clients, pipeline) = (&workload["clients"], &workload["pipeline"]);
        let cpu = number(&workload["cpu_per_request_ratio"]);
        let aim = format!("CPU an operation at most 1.15 times, {clients} x {pipeline}");
        row(&aim, format!("{cpu:.2}"), cpu <= 1.15);
    }
    let round_trip_us = number(&all["pair"]["round_trip_us_p50"]);
    let added_us = number(&all["serving"][0]["added_p50_us"]);
    row(
        "median latency added, 1 x 1, at most round trip + 100 us",
        format!("{added_us:.0} us"),
        added_us <= round_trip_us + 100.0,
    );
    let idle = number(&all["pair"]["idle_log_mbit_s"]);
    row("idle log under 0.1 Mbit/s", format!("{idle:.4}"), idle < 0.1);
    let live_ms = number(&all["failover"]["live_ms"]["p50"]);
    row(
        "live within 20 ms of noticing, median",
        format!("{live_ms:.1} ms"),
        live_ms <= 20.0,
    );
}
