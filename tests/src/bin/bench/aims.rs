//! Aims, and the verdict of this run on each.

use serde_json::Value;

/// Prints each aim beside what was measured. A benchmark on a shared machine informs; it fails
/// nothing.
pub fn print(all: &Value) {
    println!("\naim                                                      measured      met");
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

/// The aims of a newcomer that joins: one row each, of the cell that is farthest from it.
pub fn print_healing(healing: &Value) {
    let most = |key: &str, counts: &dyn Fn(&Value) -> bool| {
        let rows = healing["rows"].as_array().into_iter().flatten();
        let values = rows.filter(|row| counts(row)).map(|row| number(&row[key]));
        values.fold(f64::NAN, f64::max)
    };
    let small =
        |row: &Value| number(&row["memory_mib"]) <= 1024.0 && number(&row["pages_a_second"]) <= 10_000.0;
    let pause_ms = most("pause_ms_max", &small);
    row(
        "pause under 20 ms, up to 1 GiB and 10,000 pages a second",
        format!("{pause_ms:.1} ms"),
        pause_ms < 20.0,
    );
    let pause_ms = most("pause_ms_max", &|_| true);
    row(
        "pause under 50 ms, always",
        format!("{pause_ms:.1} ms"),
        pause_ms < 50.0,
    );
    for (over, paced) in [("at a bounded bandwidth", true), ("over a local channel", false)] {
        let ratio = most("armed_ratio", &|row| {
            (number(&row["transfer_mbit"]) > 0.0) == paced
        });
        if !ratio.is_nan() {
            row(
                &format!("armed within 2 times the channel's time {over}"),
                format!("{ratio:.2}"),
                ratio <= 2.0,
            );
        }
    }
}

/// The aim of mirrored disks: the log has no content, whatever is read or written.
pub fn print_disks(disks: &Value) {
    for load in disks.as_array().into_iter().flatten() {
        let ratio = number(&load["mirrored"]["log_bytes_per_byte"]);
        let name = load["load"].as_str().unwrap_or_default();
        row(
            &format!("log under 0.02 of {name}"),
            format!("{ratio:.4}"),
            ratio < 0.02,
        );
    }
}

fn row(aim: &str, measured: String, met: bool) {
    println!("{aim:56} {measured:12}  {}", if met { "yes" } else { "no" });
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}
