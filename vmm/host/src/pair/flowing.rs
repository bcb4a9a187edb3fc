//! Messages about a channel that is too slow, and about outputs that wait.

use super::report::Reporter;
use lockstep_core::replica::role::{HeldBy, Report};
use lockstep_logging_channel::message::FollowsBy;
use serde_json::json;

fn ms(ns: u64) -> u64 {
    ns / 1_000_000
}

/// Advice: the timeout that can bear the round trip.
pub fn advice(timeout_ns_min: u64) -> String {
    format!(
        "start both sides with a timeout of at least {} ms (--timeout-ms)",
        ms(timeout_ns_min)
    )
}

fn held_by(why: &HeldBy, follows_by: FollowsBy) -> String {
    let replayed = match follows_by {
        FollowsBy::Replay => "replayed",
        FollowsBy::Checkpoints => "taken over",
    };
    match why {
        HeldBy::RoundTrip {
            round_trip_ns,
            timeout_ns_min,
        } => format!(
            "the lease has expired, because a round trip of the channel takes at least {} ms: {}",
            ms(*round_trip_ns),
            advice(*timeout_ns_min)
        ),
        HeldBy::Acknowledgement { bytes } => {
            format!("the backup has not acknowledged {bytes} bytes of log")
        }
        HeldBy::Window { bytes } => {
            format!("the window is full: the backup has not {replayed} {bytes} bytes of log")
        }
        HeldBy::Lag { lag_ns } => format!("the backup is {} ms behind", ms(*lag_ns)),
        HeldBy::Verdict => "the shared storage has not decided who goes on".to_owned(),
    }
}

/// Text about the waiting outputs, or about the guest itself, where none of them waits.
fn waiting(outputs: usize, waited_ms: u64) -> String {
    match outputs {
        0 => format!("the guest has been made to wait for {waited_ms} ms"),
        1 => format!("1 output has been held for {waited_ms} ms"),
        _ => format!("{outputs} outputs are held, the oldest for {waited_ms} ms"),
    }
}

/// Tells of the channel, or of outputs that wait; of nothing else.
pub fn tell(reporter: &mut Reporter, report: &Report) {
    match report {
        Report::RoundTripTooLong {
            round_trip_ns,
            timeout_ns,
            timeout_ns_min,
        } => {
            tracing::warn!(
                "a round trip of the channel takes {} ms, which is too long for a timeout of {} ms: {}",
                ms(*round_trip_ns),
                ms(*timeout_ns),
                advice(*timeout_ns_min)
            );
            let fields = json!({
                "round_trip_ns": round_trip_ns,
                "timeout_ns": timeout_ns,
                "timeout_ns_min": timeout_ns_min,
            });
            reporter.event("round_trip_too_long", fields);
        }
        Report::Held {
            stood_ns,
            outputs,
            why,
        } => {
            let (waiting, why) = (
                waiting(*outputs, ms(*stood_ns)),
                held_by(why, reporter.follows_by),
            );
            tracing::warn!("{waiting}: {why}");
            let fields = json!({ "waited_ns": stood_ns, "outputs": outputs, "why": why });
            reporter.event("held", fields);
        }
        Report::Flows { stood_ns } => {
            tracing::info!("nothing waits any longer, after {} ms", ms(*stood_ns));
            reporter.event("flows", json!({ "waited_ns": stood_ns }));
        }
        _ => (),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_named_and_counted() {
        for (outputs, expected) in [
            (0, "the guest has been made to wait for 208 ms"),
            (1, "1 output has been held for 208 ms"),
            (2, "2 outputs are held, the oldest for 208 ms"),
        ] {
            assert_eq!(waiting(outputs, 208), expected);
        }
    }
}
