//! The report for people: one line a property, one a use.

use super::survey::Survey;

/// Between two columns.
const GAP: &str = "  ";
/// Narrower than that no text is readable: the line is left to the terminal.
const TEXT_WIDTH_MIN: usize = 18;

/// The tables; where `width` is given, texts are wrapped so that lines are not wider.
#[must_use]
pub fn text(survey: &Survey, width: Option<usize>) -> String {
    let heading = ["property", "holds", "tried", "seen", "what follows"].map(str::to_owned);
    let findings = survey.findings.iter().map(|finding| {
        [
            finding.property.to_string(),
            finding.judgement.word().to_owned(),
            finding.tried.clone(),
            finding.seen.clone(),
            finding.follows.clone(),
        ]
    });
    let uses = survey.verdicts.iter().map(|verdict| {
        let word = if verdict.holds { "yes" } else { "no" };
        [verdict.usage.to_string(), word.to_owned(), verdict.why.clone()]
    });
    let findings: Vec<_> = std::iter::once(heading).chain(findings).collect();
    let uses: Vec<_> = std::iter::once(["this host for", "good", "because"].map(str::to_owned))
        .chain(uses)
        .collect();
    format!("{}\n{}", table(&findings, width), table(&uses, width))
}

/// Rows in aligned columns. The first two columns are as wide as they have to be, the others share what is left.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]], width: Option<usize>) -> String {
    let widths = widths(rows, width);
    let mut text = String::new();
    for row in rows {
        let cells: Vec<Vec<String>> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| wrapped(cell, width))
            .collect();
        let lines = cells.iter().map(Vec::len).max().unwrap_or(0);
        for line in 0..lines {
            let parts = cells.iter().zip(widths).map(|(cell, width)| {
                let part = cell.get(line).map_or("", String::as_str);
                format!("{part:width$}")
            });
            text.push_str(parts.collect::<Vec<_>>().join(GAP).trim_end());
            text.push('\n');
        }
    }
    text
}

fn widths<const COLUMNS: usize>(rows: &[[String; COLUMNS]], width: Option<usize>) -> [usize; COLUMNS] {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (column, cell) in widths.iter_mut().zip(row) {
            *column = cell.chars().count().max(*column);
        }
    }
    let Some(width) = width else { return widths };
    let fixed: usize = widths.iter().take(2).sum::<usize>() + GAP.len() * (COLUMNS - 1);
    let share = width.saturating_sub(fixed) / (COLUMNS - 2).max(1);
    if share >= TEXT_WIDTH_MIN {
        for column in widths.iter_mut().skip(2) {
            *column = share.min(*column);
        }
    }
    widths
}

/// `text` in lines of at most `width` characters, broken between words; a longer word has a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { continue };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<[String; 3]> {
        [
            ["a", "yes", "one two three four five six"],
            ["longer", "no", "seven"],
        ]
        .map(|row| row.map(str::to_owned))
        .to_vec()
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(
            table(&rows(), None),
            "a       yes  one two three four five six\nlonger  no   seven\n"
        );
    }

    #[test]
    fn a_narrow_terminal_wraps_texts_between_words() {
        let expected = "a       yes  one two three four\n             five six\nlonger  no   seven\n";
        assert_eq!(table(&rows(), Some(13 + 18)), expected);
    }

    #[test]
    fn a_terminal_too_narrow_for_columns_is_left_alone() {
        assert_eq!(table(&rows(), Some(20)), table(&rows(), None));
    }
}
