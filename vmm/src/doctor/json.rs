//! The report for programs. Keys are stable: they are added to, never renamed (docs/hosts.md).

use super::survey::Survey;
use crate::status::CommandError;
use lockstep_host::error::RunError;
use lockstep_qualify::finding::Cost;
use lockstep_qualify::verdict::Use;
use serde::Serialize;

#[derive(Serialize)]
struct Report<'a> {
    version: &'a str,
    kernel: &'a str,
    kvm_module: &'a str,
    usable: bool,
    findings: Vec<FindingLine<'a>>,
    verdicts: Vec<VerdictLine<'a>>,
}

#[derive(Serialize)]
struct FindingLine<'a> {
    property: String,
    judgement: &'static str,
    /// Of what is measured: `median_ns`, `p99_ns`.
    #[serde(flatten)]
    cost: Option<Cost>,
    tried: &'a str,
    seen: &'a str,
    follows: &'a str,
}

#[derive(Serialize)]
struct VerdictLine<'a> {
    r#use: Use,
    required: bool,
    holds: bool,
    why: &'a str,
}

/// One object, and a line's end.
///
/// # Errors
/// It cannot be written as JSON.
pub fn text(survey: &Survey) -> Result<String, CommandError> {
    let findings = survey.findings.iter().map(|finding| FindingLine {
        property: finding.property.key(),
        judgement: finding.judgement.key(),
        cost: finding.judgement.cost(),
        tried: &finding.tried,
        seen: &finding.seen,
        follows: &finding.follows,
    });
    let verdicts = survey.verdicts.iter().map(|verdict| VerdictLine {
        r#use: verdict.usage,
        required: verdict.usage.is_required(),
        holds: verdict.holds,
        why: &verdict.why,
    });
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: &survey.platform.kernel,
        kvm_module: &survey.platform.module,
        usable: survey.is_usable(),
        findings: findings.collect(),
        verdicts: verdicts.collect(),
    };
    let json = serde_json::to_string(&report).map_err(|why| RunError::Other {
        what: "cannot write JSON".to_owned(),
        source: Box::new(why),
    })?;
    Ok(json + "\n")
}
