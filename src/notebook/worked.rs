//! Worked examples: the numbers themselves, small enough to follow with a finger.

use std::fmt::Write;

use super::{Html, beside, diff, scrolling};
use crate::bench::report::escape;
use crate::data::task::Task;
use crate::error::{Error, Result};
use crate::model::audit::Head;
use crate::phases::base_model::BaseModel;

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

#[cfg(test)]
mod tests {
    use super::*;

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
