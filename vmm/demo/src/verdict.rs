//! The verdict on the demonstration, for programs and for people. Pure.

use serde::Serialize;

use super::joining::Joining;
use super::load::LoadResult;
use super::replica_report::ReplicaReport;
use super::rounds::Story;
use super::timeline::milliseconds;
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
    /// From the first loss to noticing; null without a loss.
    pub(super) detect_ms: Option<f64>,
    /// From noticing it to the won test-and-set; null without a loss.
    pub(super) arbitrate_ms: Option<f64>,
    /// From noticing it to acting alone; null without a loss.
    pub(super) live_ms: Option<f64>,
    /// The longest any client waited for a reply around the first loss.
    pub(super) client_gap_ms: f64,
    /// Divergences found by any replica.
    pub(super) divergences: u64,
    /// Entries of the log of the first pair.
    pub(super) log_entries: u64,
    /// Bytes of it.
    pub(super) log_bytes: u64,
    /// Median of the time outputs waited in the gate before the first loss, in microseconds.
    pub(super) held_us_p50: u64,
    /// 99th percentile of it.
    pub(super) held_us_p99: u64,
    /// Every loss, and what followed.
    pub(super) rounds: Vec<RoundVerdict>,
}

/// A round for programs. What did not happen is null.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct RoundVerdict {
    /// Its ordinal, from 1.
    pub(super) round: u16,
    /// Role of the side that was lost.
    pub(super) lost: &'static str,
    /// Its process.
    pub(super) lost_process: u32,
    /// The process that was left.
    pub(super) survivor_process: u32,
    /// The generation that the survivor won.
    pub(super) generation: Option<u64>,
    /// From the loss to noticing.
    pub(super) detect_ms: Option<f64>,
    /// From noticing to the won test-and-set.
    pub(super) arbitrate_ms: Option<f64>,
    /// From noticing to acting alone.
    pub(super) live_ms: Option<f64>,
    /// The longest any client waited for a reply around the loss.
    pub(super) client_gap_ms: f64,
    /// The new backup's process.
    pub(super) new_backup_process: Option<u32>,
    /// From its start until it began to receive the machine.
    pub(super) join_ms: Option<f64>,
    /// Bytes that were sent for that.
    pub(super) copied_bytes: Option<u64>,
    /// Time that took.
    pub(super) copy_ms: Option<f64>,
    /// From having everything until it was armed.
    pub(super) arm_ms: Option<f64>,
    /// From the loss until the guest was protected again.
    pub(super) unprotected_ms: Option<f64>,
}

impl RoundVerdict {
    fn of(story: &Story) -> Self {
        let (timeline, joining) = (&story.timeline, story.joining.as_ref());
        let armed_at_ns = joining.and_then(Joining::armed_at_ns);
        Self {
            round: story.number,
            lost: story.loss.lost(),
            lost_process: story.loss.process,
            survivor_process: story.survivor,
            generation: timeline.generation,
            detect_ms: timeline.detect_ms,
            arbitrate_ms: timeline.arbitrate_ms,
            live_ms: timeline.live_ms,
            client_gap_ms: milliseconds(0, story.gap_ns),
            new_backup_process: joining.map(|joining| joining.started.process),
            join_ms: joining.and_then(Joining::join_ms),
            copied_bytes: joining.and_then(Joining::copied_bytes),
            copy_ms: joining.and_then(Joining::copy_ms),
            arm_ms: joining.and_then(Joining::arm_ms),
            unprotected_ms: armed_at_ns.map(|armed_at_ns| milliseconds(story.loss.at_ns, armed_at_ns)),
        }
    }
}

/// Everything that the verdict is made from.
pub(super) struct Evidence<'a> {
    /// Observations of the clients.
    pub(super) load: &'a LoadResult,
    /// Findings of reading everything back.
    pub(super) findings: Findings,
    /// The events around each loss, if there were any.
    pub(super) stories: &'a [Story],
    /// The longest wait around the first loss; at all where there was none. In nanoseconds.
    pub(super) gap_ns: u64,
    /// The sides' reports, in the order in which they were started.
    pub(super) reports: &'a [ReplicaReport],
    /// Everything else that was not as it must be.
    pub(super) troubles: &'a [String],
}

impl Verdict {
    /// Judges.
    pub(super) fn of(evidence: &Evidence<'_>) -> Self {
        let first = evidence.stories.first();
        let timeline = first.map(|first| &first.timeline);
        // Outputs wait in the gate of the primary as long as there is a backup: until the loss.
        let protected_until = first.map_or(u64::MAX, |first| first.loss.at_ns);
        let joined = first.and_then(|first| first.joining.as_ref());
        let first_until = joined.map_or(u64::MAX, |joining| joining.started.at_ns);
        let first_pair = evidence.reports.iter().take(2);
        let pair: Vec<_> = first_pair
            .map(|report| report.statistics_until(first_until))
            .collect();
        let holder = evidence.reports.first();
        let holder = holder
            .map(|report| report.statistics_until(protected_until))
            .unwrap_or_default();
        let divergences = evidence.reports.iter().map(ReplicaReport::divergences);
        let load = evidence.load;
        let mut verdict = Self {
            ok: false,
            clients: load.clients,
            connections_broken: load.broken.len() as u64,
            acknowledged_writes: load.acknowledged_writes,
            lost_writes: evidence.findings.lost_writes,
            wrong_reads: load.wrong_reads + evidence.findings.wrong_reads,
            detect_ms: timeline.and_then(|timeline| timeline.detect_ms),
            arbitrate_ms: timeline.and_then(|timeline| timeline.arbitrate_ms),
            live_ms: timeline.and_then(|timeline| timeline.live_ms),
            client_gap_ms: milliseconds(0, evidence.gap_ns),
            divergences: divergences.sum(),
            log_entries: pair.iter().map(|side| side.log_entries).max().unwrap_or(0),
            log_bytes: pair.iter().map(|side| side.log_bytes).max().unwrap_or(0),
            held_us_p50: holder.held_us_p50,
            held_us_p99: holder.held_us_p99,
            rounds: evidence.stories.iter().map(RoundVerdict::of).collect(),
        };
        verdict.ok = verdict.objections(evidence).is_empty();
        verdict
    }

    /// Objections to the demonstration; none where it went well.
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
        for round in self.rounds.iter().filter(|round| round.live_ms.is_none()) {
            objections.push(format!("round {}: the survivor never went on alone", round.round));
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
            self.gaps(),
        ];
        // With several rounds these are of the first, which says little of the others.
        if self.rounds.len() < 2 {
            lines.push(format!(
                "outputs waited in the gate: median {} µs, 99 % {} µs",
                self.held_us_p50, self.held_us_p99
            ));
            lines.push(format!(
                "log: {} entries, {} KiB; divergences: {}",
                self.log_entries,
                self.log_bytes / 1024,
                self.divergences
            ));
        }
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
        lines.push(match (objections.is_empty(), self.rounds.len()) {
            (true, 0) => format!("verdict: {lossless}"),
            (true, 1) => format!("verdict: the virtual machine outlived the loss; {lossless}"),
            (true, losses) => format!("verdict: the virtual machine outlived {losses} losses; {lossless}"),
            (false, _) => format!("verdict: FAILED: {}", objections.join("; ")),
        });
        lines
    }

    fn gaps(&self) -> String {
        if self.rounds.len() < 2 {
            return format!("longest wait for a reply: {:.1} ms", self.client_gap_ms);
        }
        let gaps = self
            .rounds
            .iter()
            .map(|round| format!("{:.1}", round.client_gap_ms));
        let gaps: Vec<String> = gaps.collect();
        format!("longest wait for a reply, a round: {} ms", gaps.join(", "))
    }
}

#[cfg(test)]
mod tests;
