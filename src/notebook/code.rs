//! Programs and texts: coloured, beside each other, and with what changed between them.

use std::fmt::Write;

use super::Html;
use crate::bench::report::{escape, highlight};

/// Room around a program, and a bar at its left; stated in full, because a page's table may say otherwise.
const BLOCK: &str = "margin:4px 0;padding:4px 12px;border-left:3px solid #888;background:transparent;\
                     font-family:monospace;font-size:13px;line-height:1.35;text-align:left;white-space:pre-wrap;\
                     word-break:normal;overflow-wrap:anywhere";

/// Text as it is, in a fixed-width font; `visible` shows tabs and carriage returns.
pub fn code(text: &str, visible: bool) -> Html {
    let text = if visible { seen(text) } else { text.to_string() };
    Html(format!("<pre style=\"{BLOCK}\">{}</pre>", escape(&text)))
}

/// Tabs and carriage returns as signs that every font has.
fn seen(text: &str) -> String {
    text.replace('\t', "→   ").replace('\r', "\\r")
}

/// Python with its syntax coloured.
pub fn python(text: &str) -> Html {
    Html(format!("<pre style=\"{BLOCK}\">{}</pre>", coloured(text)))
}

/// Inline styles, because a notebook's page has no style sheet of ours: Jupyter's own colours where the page names them, so
/// that a program reads like the cells around it in either theme, and elsewhere colours for light and dark ground.
fn coloured(text: &str) -> String {
    let classes = [
        ("k", "color:var(--jp-mirror-editor-keyword-color,#b0508e);font-weight:600"),
        ("s", "color:var(--jp-mirror-editor-string-color,#2e8b6f)"),
        ("c", "opacity:.7;font-style:italic"),
        ("n", "color:var(--jp-mirror-editor-number-color,#3f76c4)"),
    ];
    classes.iter().fold(highlight(text), |code, (class, style)| {
        code.replace(&format!("<span class=\"{class}\">"), &format!("<span style=\"{style}\">"))
    })
}

/// Two texts side by side under their names; in a narrow window the right one goes below the left one.
pub fn beside(left: (&str, Html), right: (&str, Html)) -> Html {
    let side = |(name, html): (&str, Html)| {
        let style = "display:inline-block;vertical-align:top;width:48%;min-width:20em;margin-right:1%;overflow-x:auto";
        format!("<div style=\"{style}\"><b>{}</b>{}</div>", escape(name), html.0)
    };
    Html(format!("<div>{}{}</div>", side(left), side(right)))
}

/// Blank lines in a row that are shown as they are.
const GAP: usize = 3;

/// The text with every longer run of blank lines as a count.
pub(super) fn without_gaps(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let blank = |line: &str| line.trim().is_empty();
    let shown = |run: &[&str]| match run.len() {
        length if length > GAP && blank(run[0]) => format!("({length} blank lines)"),
        _ => run.join("\n"),
    };
    let runs = lines.chunk_by(|one, next| blank(one) == blank(next));
    runs.map(shown).collect::<Vec<_>>().join("\n")
}

/// What changes between two programs, line by line: `-` goes, `+` comes. Tabs and carriage returns are made visible, as
/// they are what a converter is there for.
pub fn diff(before: &str, after: &str) -> Html {
    let lines = |text: &str| -> Vec<String> { text.split_terminator('\n').map(seen).collect() };
    let (before, after) = (lines(before), lines(after));
    let mut html = String::new();
    for (sign, line) in changes(&before, &after) {
        let (ground, mark) = match sign {
            '-' => ("background:rgba(200,60,40,.18)", "−"),
            '+' => ("background:rgba(0,140,110,.18)", "+"),
            _ => ("", " "),
        };
        let _ = write!(html, "<span style=\"display:block;{ground}\">{mark} {}</span>", coloured(line));
    }
    Html(format!("<pre style=\"{BLOCK}\">{html}</pre>"))
}

/// The lines of both texts in order, those that are common once (longest common subsequence).
fn changes<'a>(before: &'a [String], after: &'a [String]) -> Vec<(char, &'a str)> {
    let (rows, columns) = (before.len(), after.len());
    // common[i][j]: the most lines that before[i..] and after[j..] have in common.
    let mut common = vec![vec![0usize; columns + 1]; rows + 1];
    for i in (0..rows).rev() {
        for j in (0..columns).rev() {
            common[i][j] =
                if before[i] == after[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < rows || j < columns {
        if i < rows && j < columns && before[i] == after[j] {
            found.push((' ', before[i].as_str()));
            (i, j) = (i + 1, j + 1);
        } else if j == columns || (i < rows && common[i + 1][j] >= common[i][j + 1]) {
            found.push(('-', before[i].as_str()));
            i += 1;
        } else {
            found.push(('+', after[j].as_str()));
            j += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_become_visible() {
        let html = code("a\tb\r\n<x>", true).0;
        assert!(html.contains("a→   b\\r\n&lt;x&gt;"), "{html}");
    }

    #[test]
    fn only_long_gaps_are_counted() {
        assert_eq!(without_gaps("a\n\n\n\nb\n"), "a\n\n\n\nb");
        assert_eq!(without_gaps("a\n\n  \n\n\nb\n\n\n\n\n\n"), "a\n(4 blank lines)\nb\n(5 blank lines)");
    }

    #[test]
    fn a_diff_keeps_what_is_common_and_loses_no_line() {
        let lines = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        let (before, after) = (lines("a b c d"), lines("a x c d y"));
        let found = changes(&before, &after);
        let signs: String = found.iter().map(|(sign, _)| *sign).collect();
        assert_eq!(signs, " -+  +");
        let html = diff("def f():\r\n\treturn 1\r\n", "def f():\n    return 1\n").0;
        assert!(html.contains("\\r") && html.contains("→") && html.contains("−") && html.contains('+'), "{html}");
    }
}
