//! Worked examples: the numbers themselves, small enough to follow with a finger.

use std::fmt::Write;

use super::tables::of_verdict;
use super::{Html, beside, diff, rows_of, scrolling};
use crate::bench::pass_at_k::Interval;
use crate::bench::report::escape;
use crate::data::task::{Sample, Task};
use crate::decide::{self, Verdict};
use crate::error::{Error, Result};
use crate::experiment::{GateConfig, Rule};
use crate::model::audit::Head;
use crate::phases::base_model::BaseModel;
use crate::tokenizer::Tokenizer;
use crate::train::batch::encode;

/// What the converter changes in one raw MBPP row: its code as the dataset has it, against the task's prompt and solution.
///
/// # Errors
/// [`Error::Invalid`] when the row is not JSON with a text `code`.
pub fn conversion(row: &str, task: &Task) -> Result<Html> {
    let raw = serde_json::from_str::<serde_json::Value>(row).ok();
    let code = raw.as_ref().and_then(|raw| raw["code"].as_str());
    let code = code.ok_or_else(|| Error::invalid("the row has no text `code`", "pass a line of mbpp.jsonl"))?;
    Ok(diff(code, &format!("{}{}", task.prompt, task.solution)))
}

/// What one attention head of the base's first block looks at while it reads `text`, with the mask and without. Each row is
/// one token; the darker a cell, the more of its attention goes there, in percent. A dot is what the mask hides.
///
/// # Errors
/// As [`Head::of`]; the tokenizer's.
pub fn head(base: &BaseModel, text: &str, head: usize) -> Result<Html> {
    let ids = base.tokenizer.encode(text)?;
    let found = Head::of(&base.model()?, &ids, head)?;
    let names = ids.iter().map(|id| base.tokenizer.decode(&[*id])).collect::<Result<Vec<String>>>()?;
    Ok(beside(("with the mask", grid(&names, &found.masked, true)), ("without", grid(&names, &found.unmasked, false))))
}

/// A grid of shares: row reads column.
fn grid(names: &[String], shares: &[Vec<f32>], masked: bool) -> Html {
    let name = |name: &String| escape(&name.replace('\n', "⏎").replace(' ', "␣"));
    let mut html = String::from("<table><thead><tr><th></th>");
    for column in names {
        let _ = write!(html, "<th style=\"text-align:center\"><code>{}</code></th>", name(column));
    }
    html.push_str("</tr></thead><tbody>");
    for (row, (own, shares)) in names.iter().zip(shares).enumerate() {
        let _ = write!(html, "<tr><th style=\"text-align:left\"><code>{}</code></th>", name(own));
        for (column, share) in shares.iter().enumerate() {
            let text = if masked && column > row { "·".to_string() } else { format!("{:.0}", 100.0 * share) };
            let ground = format!("rgba(0,114,178,{:.2})", 0.75 * share);
            let _ = write!(html, "<td style=\"text-align:center;background:{ground}\">{text}</td>");
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table>");
    scrolling(&html)
}

/// One low-rank update, worked out: ΔW = α/r · B·A for B `(out, r)` and A `(r, in)`, given by rows.
///
/// # Errors
/// [`Error::Invalid`] when the shapes do not fit, or are ragged or empty.
pub fn update(b: &[Vec<f64>], a: &[Vec<f64>], alpha: f64) -> Result<Html> {
    let (rank, inputs) = (a.len(), a.first().map_or(0, Vec::len));
    let fits = rank > 0 && inputs > 0 && !b.is_empty();
    if !fits || b.iter().any(|row| row.len() != rank) || a.iter().any(|row| row.len() != inputs) {
        return Err(Error::invalid("B and A do not fit", "B has a column for every row of A, and no row is ragged"));
    }
    let scale = alpha / rank as f64;
    let entry = |row: &Vec<f64>, column: usize| scale * (0..rank).map(|k| row[k] * a[k][column]).sum::<f64>();
    let delta: Vec<Vec<f64>> = b.iter().map(|row| (0..inputs).map(|column| entry(row, column)).collect()).collect();
    let matrix = |rows: &[Vec<f64>]| {
        let mut html = String::from("<table><tbody>");
        for row in rows {
            let cells: String =
                row.iter().map(|value| format!("<td style=\"text-align:right\">{}</td>", value + 0.0)).collect(); // −0 is 0
            let _ = write!(html, "<tr>{cells}</tr>");
        }
        html + "</tbody></table>"
    };
    let (full, thin) = (b.len() * inputs, rank * (b.len() + inputs));
    let cell = |name: &str, html: String| {
        format!("<td style=\"text-align:center;vertical-align:middle\"><b>{name}</b>{html}</td>")
    };
    let sign = |sign: String| format!("<td style=\"vertical-align:middle\">{sign}</td>");
    let times = sign("·".into());
    Ok(Html(format!(
        "<table><tbody><tr>{}{}{}{times}{}</tr></tbody></table><p>{full} numbers change, {thin} are trained.</p>",
        cell("ΔW", matrix(&delta)),
        sign(format!("= {alpha}/{rank} ·")),
        cell("B", matrix(b)),
        cell("A", matrix(a)),
    )))
}

/// What a sample teaches, token by token: the prompt is faint, and what carries loss has a ground of its own.
///
/// # Errors
/// As [`encode`].
pub fn supervised(tokenizer: &Tokenizer, sample: &Sample) -> Result<Html> {
    let mut html = String::from("<pre style=\"white-space:pre-wrap;line-height:1.7;font-family:monospace\">");
    for encoded in encode(std::slice::from_ref(sample), tokenizer, usize::MAX - 1)? {
        let mut open = Vec::new();
        for (place, &id) in encoded.tokens.iter().enumerate() {
            open.push(id);
            let text = if id == tokenizer.eos() { "⟨end⟩".to_string() } else { tokenizer.decode(&open)? };
            // A character that is divided over tokens shows with its last one.
            if text.ends_with(char::REPLACEMENT_CHARACTER) {
                continue;
            }
            open.clear();
            let style = if place < encoded.prompt {
                "opacity:0.6"
            } else {
                "background:rgba(0,114,178,0.3);outline:1px solid rgba(0,114,178,0.6)"
            };
            let _ = write!(html, "<span style=\"{style}\">{}</span>", escape(&text.replace('\n', "⏎\n")));
        }
        let learned = encoded.tokens.len() - encoded.prompt;
        let _ = write!(html, "</pre><p>{} tokens of prompt, {learned} that are learned.</p>", encoded.prompt);
    }
    Ok(Html(html))
}

/// How a gate that wants at least `threshold` and fails below `fail_below`, both shares, judges values `(estimate, low, high)`.
pub fn weighed(threshold: f64, fail_below: f64, values: &[(f64, f64, f64)]) -> Html {
    let gate = GateConfig {
        name: String::new(),
        metric: "share".into(),
        rule: Rule::AtLeast,
        threshold,
        fail_below: Some(fail_below),
        reason: String::new(),
        on_pass: String::new(),
        on_fail: String::new(),
    };
    let [wanted, failing] = [threshold, fail_below].map(|value| decide::threshold(&gate.metric, value));
    let row = |&(estimate, low, high): &(f64, f64, f64)| {
        let value = Interval { estimate, low, high, n: 100 };
        let verdict = decide::judge(&gate, &value).0;
        let because = match verdict {
            Verdict::Pass => format!("all of the interval reaches {wanted}"),
            Verdict::Fail => format!("all of the interval lies below {failing}"),
            Verdict::Inconclusive => "the interval lies on neither side as a whole".to_string(),
        };
        [decide::shown(&gate.metric, &value), of_verdict(verdict), because]
    };
    rows_of(["value [95 % interval]", "verdict", "because"], values.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_is_faint_and_the_end_is_learned() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let tokenizer = Tokenizer::load(&root.join("data/base/small/tokenizer.json")).unwrap();
        let prompt = "def one() -> int:\n    \"\"\"Return 1 → 1.\"\"\"\n".to_string();
        let sample = Sample { id: "one".into(), prompt, solution: "    return 1\n".into() };
        let html = supervised(&tokenizer, &sample).unwrap().0;
        let (faint, learned) = html.split_once("background").unwrap();
        assert!(faint.contains("def") && faint.contains('→') && !faint.contains("⟨end⟩"), "{html}");
        assert!(learned.contains("return") && learned.contains("⟨end⟩") && !learned.contains("opacity"), "{html}");
    }

    #[test]
    fn a_gate_weighs_whole_intervals() {
        let html = weighed(0.8, 0.5, &[(0.9, 0.85, 0.95), (0.9, 0.7, 0.95), (0.4, 0.3, 0.45)]).0;
        let places = ["✓ pass", "? inconclusive", "✗ fail"].map(|word| html.find(word).expect(word));
        assert!(places.is_sorted() && html.contains("reaches 80 %") && html.contains("below 50 %"), "{html}");
    }

    #[test]
    fn an_update_is_worked_out_and_its_shapes_are_held() {
        let html = update(&[vec![1.0], vec![-0.5]], &[vec![2.0, 0.0, 4.0]], 2.0).unwrap().0;
        for entry in [">4<", ">8<", ">-2<", ">-4<"] {
            assert!(html.contains(entry), "{entry} is missing in {html}");
        }
        assert!(html.contains("6 numbers change, 5 are trained"));
        assert!(update(&[vec![1.0, 2.0]], &[vec![1.0]], 1.0).is_err());
        assert!(update(&[], &[], 1.0).is_err());
    }
}
