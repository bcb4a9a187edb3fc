//! The report for people: one line a property, one a use.

use super::survey::Survey;
use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, presets};
use lockstep_qualify::Finding;

/// Columns of a terminal on which five columns of text can be read; on a narrower one their texts
/// stand below each other.
const FIVE_COLUMNS_WIDTH_MIN: u16 = 132;

/// Narrower than that nothing is readable: the rest is left to the terminal.
const WIDTH_MIN: u16 = 60;

/// Columns that stay whole: names and single words.
const UNWRAPPED: usize = 2;

/// Columns of what is no terminal: a file or a pipe, read with anything.
const WIDTH_ELSEWHERE: u16 = 100;

/// The tables, wrapped so that lines are not wider than a terminal of `width`.
#[must_use]
pub fn text(survey: &Survey, width: Option<u16>) -> String {
    let width = width.unwrap_or(WIDTH_ELSEWHERE);
    let uses = survey.verdicts.iter().map(|verdict| {
        let word = if verdict.holds { "yes" } else { "no" };
        [verdict.usage.to_string(), word.to_owned(), verdict.why.clone()]
    });
    let uses = table(
        ["this host for", "good", "because"].map(str::to_owned),
        uses,
        width,
    );
    format!("{}\n\n{uses}\n", findings(&survey.findings, width))
}

fn findings(findings: &[Finding], width: u16) -> String {
    if width < FIVE_COLUMNS_WIDTH_MIN {
        let heading = ["property", "holds", "tried, seen => what follows"].map(str::to_owned);
        return table(heading, findings.iter().map(in_three_columns), width);
    }
    let heading = ["property", "holds", "tried", "seen", "what follows"].map(str::to_owned);
    table(heading, findings.iter().map(in_five_columns), width)
}

fn in_five_columns(finding: &Finding) -> [String; 5] {
    [
        finding.property.to_string(),
        finding.judgement.word().to_owned(),
        finding.tried.clone(),
        finding.seen.clone(),
        finding.follows.clone(),
    ]
}

fn in_three_columns(finding: &Finding) -> [String; 3] {
    let [property, holds, tried, seen, follows] = in_five_columns(finding);
    [property, holds, format!("{tried}\n{seen}\n=> {follows}")]
}

fn table<R: Into<Row>>(heading: R, rows: impl Iterator<Item = R>, width: u16) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(heading)
        .add_rows(rows)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width.max(WIDTH_MIN));
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index < UNWRAPPED {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_qualify::bench::Ring;
    use lockstep_qualify::{Judgement, Property};

    fn found() -> [Finding; 1] {
        [Finding {
            property: Property::SingleStep(Ring::Zero),
            judgement: Judgement::Yes,
            tried: "a counting loop in steps, alone and under kicks".to_owned(),
            seen: "512 steps of one instruction each".to_owned(),
            follows: "a clock can step through ring 0".to_owned(),
        }]
    }

    #[test]
    fn columns_are_aligned() {
        let text = findings(&found(), 200);
        let column = |word: &str| text.lines().filter_map(move |line| line.find(word)).next();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(column("holds"), column("yes"), "{text}");
        assert_eq!(column("seen"), column("512 steps"), "{text}");
    }

    #[test]
    fn a_narrow_terminal_has_texts_below_each_other_wrapped_between_words() {
        let text = findings(&found(), 60);
        assert!(text.lines().all(|line| line.len() <= 60), "{text}");
        assert!(text.contains("yes    a counting loop in steps,"), "{text}");
        assert!(text.contains("       => a clock can step through"), "{text}");
    }
}
