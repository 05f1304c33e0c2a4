//! How results show themselves in a notebook; the only file that knows evcxr.
//!
//! evcxr shows a value by calling its inherent method `evcxr_display`, which prints the content between two marker
//! lines. The text inherits the page's colours, so everything reads in light and dark themes alike; nothing depends on a
//! script or a style sheet, so it also reads where a page strips both, as in a notebook that Jupyter does not trust yet.

mod attempts;
mod code;
mod live;
mod tables;
mod worked;

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use polars::prelude::{AnyValue, Column, DataFrame, StringChunked};

use crate::bench::report::escape;
use crate::decide::DecisionRecord;
use crate::error::Result;
use crate::figures::chart::Chart;
use crate::figures::{Figure, draw};
use crate::phases::background::Background;

pub use attempts::{attempt, change, completions, gallery, judge};
pub use code::{beside, code, diff, python};
pub use tables::{
    base, costs, evaluations, evidence, findings, gates, layers, memorised, proofs, remarks, samples, twins, verdicts,
};
pub use worked::{conversion, head, supervised, update, weighed};

/// Rows of a table shown at once.
const ROWS: usize = 14;

/// Rows on each further page, which folds out.
const PAGE: usize = 40;

/// A fragment of HTML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Html(pub String);

impl Html {
    /// Shows the fragment in a notebook.
    pub fn evcxr_display(&self) {
        content("text/html", &self.0);
    }
}

impl Figure {
    /// Shows the figure in a notebook, as SVG and as PNG; the reader takes what it can show best.
    pub fn evcxr_display(&self) {
        content("image/svg+xml", &self.svg);
        content("image/png", &STANDARD.encode(&self.png));
    }
}

impl DecisionRecord {
    /// Shows the gates and their verdicts in a notebook.
    pub fn evcxr_display(&self) {
        verdicts(self).evcxr_display();
    }
}

impl Background {
    /// Shows the curves of the run, which go on by themselves while the notebook is open.
    pub fn evcxr_display(&self) {
        live::curves(self).evcxr_display();
    }
}

fn content(mime: &str, body: &str) {
    println!("EVCXR_BEGIN_CONTENT {mime}\n{body}\nEVCXR_END_CONTENT");
}

/// Draws a chart for display: `show(&figures::data::decision(&record))?`.
///
/// # Errors
/// As [`draw`].
pub fn show(chart: &Chart) -> Result<Figure> {
    draw(chart)
}

/// As [`show`] where there is a chart, else the sentence that says why there is none. The chart is borrowed: evcxr shows the debug
/// form of what a cell ends with when a variable of the cell was moved into it.
///
/// # Errors
/// As [`draw`].
pub fn show_or(chart: Option<&Chart>, otherwise: &str) -> Result<Shown> {
    Ok(match chart {
        Some(chart) => Shown::Figure(draw(chart)?),
        None => Shown::Sentence(Html(format!("<p>{}</p>", escape(otherwise)))),
    })
}

/// A figure, or what is said in its place.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// The figure.
    Figure(Figure),
    /// What is said in its place.
    Sentence(Html),
}

impl Shown {
    /// Shows either in a notebook.
    pub fn evcxr_display(&self) {
        match self {
            Self::Figure(figure) => figure.evcxr_display(),
            Self::Sentence(sentence) => sentence.evcxr_display(),
        }
    }
}

/// A table as HTML: numbers and percentages to the right, a long table in pages that fold out.
pub fn table(frame: &DataFrame) -> Html {
    let columns = frame.columns();
    let align = |column: &Column| if is_numeric(column) { "right" } else { "left" };
    let aligns: Vec<&str> = columns.iter().map(align).collect();
    let names = columns
        .iter()
        .zip(&aligns)
        .map(|(column, align)| format!("<th style=\"text-align:{align}\">{}</th>", escape(column.name())));
    let head = names.collect::<String>();
    let row = |index: usize| {
        let mut cells = String::new();
        for (column, align) in columns.iter().zip(&aligns) {
            let value = column.get(index).unwrap_or(AnyValue::Null);
            let _ = write!(cells, "<td style=\"text-align:{align}\">{}</td>", escape(&cell(&value)));
        }
        format!("<tr>{cells}</tr>")
    };
    let height = frame.height();
    let page = |from: usize, to: usize| {
        let rows = (from..to).map(row).collect::<String>();
        format!("<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    };
    let mut html = page(0, height.min(ROWS));
    for from in (ROWS..height).step_by(PAGE) {
        let to = height.min(from + PAGE);
        let page = page(from, to);
        let _ = write!(html, "<details><summary>rows {} to {to} of {height}</summary>{page}</details>", from + 1);
    }
    scrolling(&html)
}

/// What is wider than a narrow window scrolls by itself, and does not lie on what stands beside it.
fn scrolling(html: &str) -> Html {
    Html(format!("<div style=\"max-width:100%;overflow-x:auto\">{html}</div>"))
}

/// Whether a column holds numbers, or texts that are percentages.
fn is_numeric(column: &Column) -> bool {
    let percentages = |texts: &StringChunked| {
        let mut said = texts.iter().flatten().peekable();
        said.peek().is_some() && said.all(|text| text.ends_with(" %"))
    };
    column.dtype().is_primitive_numeric() || column.str().is_ok_and(percentages)
}

/// A cell's text: at most four significant decimals, nothing for a missing value.
fn cell(value: &AnyValue) -> String {
    match value {
        AnyValue::Null => String::new(),
        AnyValue::Float64(number) => short(*number),
        AnyValue::Float32(number) => short(f64::from(*number)),
        AnyValue::String(text) => (*text).to_string(),
        other => other.to_string(),
    }
}

fn short(number: f64) -> String {
    if number != 0.0 && number.abs() < 1e-4 {
        return format!("{number:.1e}");
    }
    let digits = if number == number.trunc() { 0 } else { (3 - number.abs().log10().floor() as i32).clamp(1, 6) };
    format!("{number:.*}", digits as usize)
}

/// A whole number with its thousands apart.
fn count(number: usize) -> String {
    indicatif::HumanCount(number as u64).to_string()
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A word on a coloured ground: coloured for the eye, worded for the colour-blind.
fn badge(word: &str, kind: Badge) -> String {
    let color = match kind {
        Badge::Good => "#00694f",
        Badge::Bad => "#a01c1c",
        Badge::Open => "#7a5600",
    };
    format!(
        "<span style=\"background:{color};color:#fff;border-radius:4px;padding:1px 8px;white-space:nowrap\">{}</span>",
        escape(word)
    )
}

/// What a badge says besides its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Badge {
    Good,
    Bad,
    Open,
}

/// A table of cells that are HTML already, all of them text.
fn rows_of<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Html {
    let cell = |tag: &str, text: &str| format!("<{tag} style=\"text-align:left\">{text}</{tag}>");
    let row = |tag: &str, cells: &[String]| {
        format!("<tr>{}</tr>", cells.iter().map(|text| cell(tag, text)).collect::<String>())
    };
    let body: String = rows.into_iter().map(|cells| row("td", &cells)).collect();
    let head = row("th", &head.map(escape));
    scrolling(&format!("<table><thead>{head}</thead><tbody>{body}</tbody></table>"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use polars::prelude::df;

    #[test]
    fn a_long_table_folds_and_aligns_numbers() {
        let numbers: Vec<i64> = (0..40).collect();
        let names: Vec<String> = numbers.iter().map(|n| format!("<{n}>")).collect();
        let shares: Vec<String> = numbers.iter().map(|n| format!("{n}.5 %")).collect();
        let empty = vec![None::<&str>; 40];
        let html = table(&df!("name" => names, "count" => numbers, "share" => shares, "note" => empty).unwrap()).0;
        assert!(html.contains("rows 15 to 40 of 40"));
        assert!(html.contains("text-align:right\">39<") && html.contains("text-align:right\">39.5 %<"));
        assert!(html.contains("text-align:left\">&lt;39&gt;<") && html.contains("text-align:left\">note<"));
        assert!(html.contains("&lt;7&gt;") && !html.contains("<7>"));
    }

    #[test]
    fn short_keeps_four_significant_digits() {
        assert_eq!(short(0.123_456), "0.1235");
        assert_eq!(short(12.0), "12");
        assert_eq!(short(1234.567), "1234.6");
        assert_eq!(short(0.0), "0");
        assert_eq!(short(1.24e-6), "1.2e-6");
    }
}
