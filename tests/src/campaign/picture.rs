//! A picture of how long failovers took: one histogram a measure, over a logarithmic axis of time.

use super::outcome::Noticed;
use super::summary::{MEASURES, Spread, Summary, WAYS};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const PANEL_HEIGHT: f64 = 150.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 64.0;
const PLOT_HEIGHT: f64 = 96.0;
/// Bars to a factor of ten in time.
const BARS_A_DECADE: f64 = 12.0;
/// The axis: from 0.1 ms to 10 s.
const DECADES: (f64, f64) = (-1.0, 4.0);
const COLOURS: [&str; 2] = ["#2b6cb0", "#dd8033"];

/// The picture, as SVG. `caption` says of which run.
#[must_use]
pub fn draw(summary: &Summary, caption: &str) -> String {
    let (width, height) = (WIDTH, TOP + PANEL_HEIGHT * MEASURES.len() as f64 + 16.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\" font-weight=\"bold\">How long a failover takes, from the fault on</text>\n\
         <text x=\"{LEFT}\" y=\"40\" fill=\"#555\">{}</text>\n",
        escaped(caption)
    );
    legend(&mut svg);
    for (number, (name, of)) in MEASURES.iter().enumerate() {
        let series = WAYS.map(|(_, how): (&str, Noticed)| summary.times(how, *of));
        panel(&mut svg, TOP + PANEL_HEIGHT * number as f64, name, &series);
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn legend(svg: &mut String) {
    for (number, ((way, _), colour)) in WAYS.iter().zip(COLOURS).enumerate() {
        let x = LEFT + 210.0 * number as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"49\" width=\"11\" height=\"11\" fill=\"{colour}\"/><text x=\"{}\" y=\"59\">noticed by {way}</text>",
            x + 16.0
        );
    }
}

/// Where a time stands on the axis, from 0 to 1.
fn position(ns: u64) -> f64 {
    let decade = (ns.max(1) as f64 / 1e6).log10();
    ((decade - DECADES.0) / (DECADES.1 - DECADES.0)).clamp(0.0, 1.0)
}

fn bars() -> usize {
    ((DECADES.1 - DECADES.0) * BARS_A_DECADE) as usize
}

/// How many times each bar counts.
fn histogram(times: &[u64]) -> Vec<usize> {
    let mut counts = vec![0; bars()];
    for ns in times {
        let bar = (position(*ns) * bars() as f64) as usize;
        counts[bar.min(bars() - 1)] += 1;
    }
    counts
}

fn panel(svg: &mut String, y: f64, name: &str, series: &[Vec<u64>; 2]) {
    let plot_width = WIDTH - LEFT - RIGHT;
    let base = y + 24.0 + PLOT_HEIGHT;
    let counts = series.each_ref().map(|times| histogram(times));
    let highest = (0..bars())
        .map(|bar| counts[0][bar] + counts[1][bar])
        .max()
        .unwrap_or(0)
        .max(1);
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{name}</text>",
        y + 16.0
    );
    let medians: Vec<String> = series
        .iter()
        .zip(WAYS)
        .filter_map(|(times, (way, _))| {
            Some(format!(
                "{way}: median {:.1} ms",
                Spread::of(times.clone())?.p50_ms
            ))
        })
        .collect();
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
        WIDTH - RIGHT,
        y + 16.0,
        medians.join(", ")
    );
    axis(svg, base, highest);
    let bar_width = plot_width / bars() as f64;
    for bar in 0..bars() {
        let mut bottom = base;
        for (counts, colour) in counts.iter().zip(COLOURS).filter(|(counts, _)| counts[bar] > 0) {
            let height = PLOT_HEIGHT * counts[bar] as f64 / highest as f64;
            bottom -= height;
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{bottom:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>",
                LEFT + bar_width * bar as f64 + 0.5,
                bar_width - 1.0
            );
        }
    }
}

fn axis(svg: &mut String, base: f64, highest: usize) {
    let plot_width = WIDTH - LEFT - RIGHT;
    let (low, high) = (DECADES.0 as i32, DECADES.1 as i32);
    for decade in low..=high {
        let x = LEFT + plot_width * f64::from(decade - low) / f64::from(high - low);
        let name = match decade {
            ..=-1 => "0.1 ms".to_owned(),
            0..=2 => format!("{} ms", 10_u32.pow(decade as u32)),
            _ => format!("{} s", 10_u32.pow(decade as u32 - 3)),
        };
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{name}</text>",
            base - PLOT_HEIGHT,
            base + 4.0,
            base + 17.0
        );
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{LEFT}\" y1=\"{base}\" x2=\"{}\" y2=\"{base}\" stroke=\"#888\"/>\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{highest}</text>\
         <text x=\"{}\" y=\"{base}\" text-anchor=\"end\" fill=\"#555\">0</text>",
        WIDTH - RIGHT,
        LEFT - 6.0,
        base - PLOT_HEIGHT + 9.0,
        LEFT - 6.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_bar() {
        let times = [0, 1, 99_999, 1_000_000, 100_000_000_000, u64::MAX];
        assert_eq!(histogram(&times).iter().sum::<usize>(), times.len());
        assert_eq!(
            histogram(&[1_000_000])[BARS_A_DECADE as usize],
            1,
            "1 ms is one decade from the left"
        );
    }

    #[test]
    fn a_picture_of_nothing_is_a_picture() {
        let svg = draw(&Summary::default(), "a run with < 1 round");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("&lt; 1"));
    }
}
