//! Whether the demonstration went well, for programs and for people. Pure.

use serde::Serialize;

use super::load::LoadResult;
use super::replica_report::ReplicaReport;
use super::timeline::{Timeline, milliseconds};
use super::workload::Findings;

/// The result for programs. The keys are an interface: they stay.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Verdict {
    /// Nothing was lost, broken or diverged, and what was to happen happened.
    pub(super) ok: bool,
    /// Concurrent clients.
    pub(super) clients: u64,
    /// TCP connections that broke.
    pub(super) connections_broken: u64,
    /// Writes whose reply a client got.
    pub(super) acknowledged_writes: u64,
    /// Of those, writes that were not there when everything was read back.
    pub(super) lost_writes: u64,
    /// Replies that were not the one right one.
    pub(super) wrong_reads: u64,
    /// From the loss to noticing; null without a loss.
    pub(super) detect_ms: Option<f64>,
    /// From noticing to the won test-and-set; null without a loss.
    pub(super) arbitrate_ms: Option<f64>,
    /// From noticing to acting alone; null without a loss.
    pub(super) live_ms: Option<f64>,
    /// The longest any client waited for a reply around the loss.
    pub(super) client_gap_ms: f64,
    /// Divergences found by either replica.
    pub(super) divergences: u64,
    /// Entries of the log.
    pub(super) log_entries: u64,
    /// Bytes of the log.
    pub(super) log_bytes: u64,
    /// Median of the time outputs waited in the gate, in microseconds.
    pub(super) held_us_p50: u64,
    /// 99th percentile of it.
    pub(super) held_us_p99: u64,
}

/// What the verdict is made from.
pub(super) struct Evidence<'a> {
    /// What the clients saw.
    pub(super) load: &'a LoadResult,
    /// What reading everything back showed.
    pub(super) findings: Findings,
    /// What happened around the loss, if there was one.
    pub(super) timeline: Option<&'a Timeline>,
    /// The primary's report.
    pub(super) primary: &'a ReplicaReport,
    /// The backup's.
    pub(super) backup: &'a ReplicaReport,
    /// What else was not as it must be.
    pub(super) troubles: &'a [String],
}

impl Verdict {
    /// Judges.
    pub(super) fn of(evidence: &Evidence<'_>) -> Self {
        let (primary, backup) = (evidence.primary.statistics(), evidence.backup.statistics());
        // Outputs wait in the gate of the primary as long as there is a backup: until the loss.
        let protected = evidence.timeline.map_or(u64::MAX, |timeline| timeline.lost_at_ns);
        let holder = evidence.primary.statistics_until(protected);
        let load = evidence.load;
        let mut verdict = Self {
            ok: false,
            clients: load.clients,
            connections_broken: load.broken.len() as u64,
            acknowledged_writes: load.acknowledged_writes,
            lost_writes: evidence.findings.lost_writes,
            wrong_reads: load.wrong_reads + evidence.findings.wrong_reads,
            detect_ms: evidence.timeline.and_then(|timeline| timeline.detect_ms),
            arbitrate_ms: evidence.timeline.and_then(|timeline| timeline.arbitrate_ms),
            live_ms: evidence.timeline.and_then(|timeline| timeline.live_ms),
            client_gap_ms: milliseconds(0, load.client_gap_ns()),
            divergences: primary.divergences + backup.divergences,
            log_entries: primary.log_entries.max(backup.log_entries),
            log_bytes: primary.log_bytes.max(backup.log_bytes),
            held_us_p50: holder.held_us_p50,
            held_us_p99: holder.held_us_p99,
        };
        verdict.ok = verdict.objections(evidence).is_empty();
        verdict
    }

    /// Why it is not well; nothing where it is.
    pub(super) fn objections(&self, evidence: &Evidence<'_>) -> Vec<String> {
        let mut objections = Vec::new();
        let mut object = |count: u64, what: &str| {
            if count > 0 {
                objections.push(format!("{count} {what}"));
            }
        };
        object(self.connections_broken, "connections broken");
        object(self.lost_writes, "acknowledged writes lost");
        object(self.wrong_reads, "wrong answers");
        object(self.divergences, "divergences");
        if self.acknowledged_writes == 0 {
            objections.push("no write was ever acknowledged".to_owned());
        }
        if evidence.timeline.is_some() && self.live_ms.is_none() {
            objections.push("the survivor never went on alone".to_owned());
        }
        objections.extend(evidence.troubles.iter().cloned());
        objections
    }

    /// The result for people.
    pub(super) fn lines(&self, evidence: &Evidence<'_>) -> Vec<String> {
        let connections = match self.connections_broken {
            0 => "none broke".to_owned(),
            broken => format!("{broken} broke"),
        };
        let mut lines = vec![
            format!(
                "{} clients, each on one TCP connection throughout: {connections}",
                self.clients
            ),
            format!(
                "{} writes acknowledged, {} lost; {} wrong answers",
                self.acknowledged_writes, self.lost_writes, self.wrong_reads
            ),
            format!("longest wait for a reply: {:.1} ms", self.client_gap_ms),
            format!(
                "outputs waited in the gate: median {} µs, 99 % {} µs",
                self.held_us_p50, self.held_us_p99
            ),
            format!(
                "log: {} entries, {} KiB; divergences: {}",
                self.log_entries,
                self.log_bytes / 1024,
                self.divergences
            ),
        ];
        lines.extend(
            evidence
                .load
                .broken
                .iter()
                .map(|why| format!("  connection broke: {why}")),
        );
        lines.extend(
            evidence
                .load
                .complaints
                .iter()
                .map(|complaint| format!("  wrong: {complaint}")),
        );
        let objections = self.objections(evidence);
        let lossless = "nothing was lost, broken or wrong";
        lines.push(match (objections.is_empty(), evidence.timeline.is_some()) {
            (true, true) => format!("verdict: the virtual machine outlived the loss; {lossless}"),
            (true, false) => format!("verdict: {lossless}"),
            (false, _) => format!("verdict: FAILED: {}", objections.join("; ")),
        });
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good_load() -> LoadResult {
        LoadResult {
            clients: 8,
            acknowledged_writes: 100,
            ..LoadResult::default()
        }
    }

    fn judged(
        load: &LoadResult,
        findings: Findings,
        timeline: Option<&Timeline>,
        troubles: &[String],
    ) -> (Verdict, String) {
        let primary = r#"{"at_ns":1,"event":"statistics","log_entries":50,"log_bytes":4096,"outputs":9,"held_us_p50":110,"held_us_p99":220}"#;
        let backup = r#"{"at_ns":1,"event":"summary","log_entries":48,"log_bytes":4000,"outputs":2,"held_us_p50":1,"held_us_p99":2}"#;
        let (primary, backup) = (primary.into(), backup.into());
        let evidence = Evidence {
            load,
            findings,
            timeline,
            primary: &primary,
            backup: &backup,
            troubles,
        };
        let verdict = Verdict::of(&evidence);
        let text = verdict.lines(&evidence).join("\n");
        (verdict, text)
    }

    #[test]
    fn json_has_exactly_the_agreed_keys() {
        let (verdict, _) = judged(&good_load(), Findings::default(), None, &[]);
        let json = serde_json::to_value(&verdict).unwrap();
        let mut keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let mut agreed = [
            "ok",
            "clients",
            "connections_broken",
            "acknowledged_writes",
            "lost_writes",
            "wrong_reads",
            "detect_ms",
            "arbitrate_ms",
            "live_ms",
            "client_gap_ms",
            "divergences",
            "log_entries",
            "log_bytes",
            "held_us_p50",
            "held_us_p99",
        ];
        agreed.sort_unstable();
        assert_eq!(keys, agreed);
    }

    #[test]
    fn a_good_run_is_ok() {
        let timeline = Timeline {
            detect_ms: Some(1.0),
            arbitrate_ms: Some(2.0),
            live_ms: Some(3.0),
            lost_at_ns: 10,
            ..Timeline::default()
        };
        let (verdict, text) = judged(&good_load(), Findings::default(), Some(&timeline), &[]);
        assert!(verdict.ok);
        assert_eq!(
            (verdict.log_entries, verdict.held_us_p50, verdict.held_us_p99),
            (50, 110, 220)
        );
        assert!(
            text.ends_with("outlived the loss; nothing was lost, broken or wrong"),
            "{text}"
        );
    }

    #[test]
    fn every_fault_fails_it_and_is_named() {
        let broken = LoadResult {
            broken: vec!["reset".into()],
            ..good_load()
        };
        let wrong = LoadResult {
            wrong_reads: 2,
            ..good_load()
        };
        let idle = LoadResult {
            acknowledged_writes: 0,
            ..good_load()
        };
        let lost = Findings {
            lost_writes: 3,
            wrong_reads: 0,
        };
        let dead = Timeline {
            lost_at_ns: 10,
            ..Timeline::default()
        };
        let none = Findings::default();
        for ((verdict, text), named) in [
            (judged(&broken, none, None, &[]), "1 connections broken"),
            (judged(&wrong, none, None, &[]), "2 wrong answers"),
            (judged(&idle, none, None, &[]), "no write was ever acknowledged"),
            (
                judged(&good_load(), lost, None, &[]),
                "3 acknowledged writes lost",
            ),
            (
                judged(&good_load(), none, Some(&dead), &[]),
                "the survivor never went on alone",
            ),
            (
                judged(&good_load(), none, None, &["the moon fell".into()]),
                "the moon fell",
            ),
        ] {
            assert!(
                !verdict.ok && text.contains("FAILED") && text.contains(named),
                "{text}"
            );
        }
    }
}
