//! Horizontal bars by label.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axes::{Axis, styled, tick};
use super::{Area, Drawn, LEGEND, legend, patch, reference, text, width};
use crate::figures::chart::Bars;
use crate::figures::theme::{INK, REFERENCE, SERIES};

/// Title, axis and margins, without legend and rows.
const AROUND: u32 = 40 + 14 + 44 + 12;

/// Reference lines so near to each other, in SVG units, have their labels beside and not above them.
const NEAR: u32 = 60;

/// Bars laid beside each other in one row.
fn beside(bars: &Bars) -> usize {
    if bars.stacked { 1 } else { bars.groups.len().max(1) }
}

/// Height of the figure in SVG units: as many rows as there are, each as high as its bars need.
pub(super) fn height(bars: &Bars) -> u32 {
    let (rows, groups) = (bars.labels.len().max(1) as u32, beside(bars) as u32);
    let row = match (rows, groups) {
        (..=4, 1) => 52,
        (..=4, _) => 30 * groups + 16,
        (5..=9, 1) => 40,
        (5..=9, _) => 20 * groups + 8,
        (_, 1) => 28,
        (_, _) => 13 * groups + 6,
    };
    let legend = if bars.groups.len() > 1 { LEGEND } else { 0 };
    (AROUND + legend + rows * row).max(220)
}

/// A value as it is written.
fn number(bars: &Bars, value: f64) -> String {
    match bars.digits {
        _ if bars.percent => format!("{:.0} %", value * 100.0),
        Some(digits) => format!("{value:.digits$}"),
        None => tick(value),
    }
}

/// A value with its interval: `62 % [41, 81]`; alone where the interval is no wider than what is written.
fn with_interval(bars: &Bars, value: f64, (low, high): (f64, f64)) -> String {
    let (low, high) = (number(bars, low), number(bars, high));
    if low == high {
        return number(bars, value);
    }
    let bare = |end: String| end.trim_end_matches(" %").to_string();
    format!("{} [{}, {}]", number(bars, value), bare(low), bare(high))
}

pub(super) fn draw<DB: DrawingBackend>(bars: &Bars, area: &Area<DB>, scale: u32) -> Drawn<DB> {
    let names: Vec<&str> = bars.groups.iter().map(|(name, _)| name.as_str()).collect();
    let area = legend(&names, area, scale, |row, index, at| patch(row, index, at, scale))?;
    let rows = bars.labels.len().max(1);
    let total = |row: usize| -> f64 {
        let values = bars.groups.iter().map(|(_, values)| values[row]);
        if bars.stacked { values.sum() } else { values.fold(0.0, f64::max) }
    };
    let ends = bars.intervals.iter().flatten().map(|(_, high)| *high);
    let longest = (0..bars.labels.len())
        .map(total)
        .chain(ends)
        .chain(bars.references.iter().map(|(x, _)| *x))
        .fold(bars.x_at_least, f64::max);
    let across = Axis::new(0.0, if longest > 0.0 { longest } else { 1.0 }, 6);
    let right = across.range().end;
    let small = if rows * beside(bars) > 24 { 11 } else { 13 };
    // With intervals, values stand in a column beside the plot: at the end of an interval one would read as a value there.
    let column = !bars.intervals.is_empty();
    let shown = |row: usize, group: usize| match bars.intervals.get(group).and_then(|intervals| intervals.get(row)) {
        Some(&interval) => with_interval(bars, bars.groups[group].1[row], interval),
        None => number(bars, bars.groups[group].1[row]),
    };
    let cells = (0..bars.labels.len()).flat_map(|row| (0..bars.groups.len()).map(move |group| (row, group)));
    // Digits are narrower than the average letter.
    let wide = |shown: &str| width(shown, small) * 3 / 4;
    let room = cells.filter(|_| column).map(|(row, group)| wide(&shown(row, group)) + 14).max().unwrap_or(0);
    let widest = bars.labels.iter().map(|label| width(label, 14)).max().unwrap_or(0);
    let mut chart = ChartBuilder::on(&area)
        .margin_right(room.max(46) * scale)
        .margin_top(14 * scale)
        .x_label_area_size(44 * scale)
        .y_label_area_size((widest + 14).clamp(60, 260) * scale)
        .build_cartesian_2d(across, 0.0..rows as f64)?;
    styled(&mut chart.configure_mesh(), scale)
        .x_desc(bars.x.as_str())
        .disable_y_mesh()
        .y_labels(0)
        .x_label_formatter(&|x| if bars.percent { format!("{:.0} %", x * 100.0) } else { tick(*x) })
        .draw()?;
    let thickness = 0.76 / beside(bars) as f64;
    let after = text(small, scale).pos(Pos::new(HPos::Left, VPos::Center));
    let (mut values, mut intervals) = (Vec::new(), Vec::new());
    for row in 0..bars.labels.len() {
        let top = rows as f64 - row as f64 - 0.12;
        let mut offset = 0.0;
        for (group, ((_, lengths), color)) in bars.groups.iter().zip(SERIES.iter().cycle()).enumerate() {
            let value = lengths[row];
            let y = if bars.stacked { top } else { top - group as f64 * thickness };
            let (start, end) = if bars.stacked { (offset, offset + value) } else { (0.0, value) };
            chart.draw_series([Rectangle::new([(start, y), (end, y - thickness)], color.filled())])?;
            offset += value;
            let middle = y - thickness / 2.0;
            if let Some(&(low, high)) = bars.intervals.get(group).and_then(|intervals| intervals.get(row)) {
                intervals.push((low, high, middle));
            }
            if !bars.stacked {
                values.push((shown(row, group), if column { right } else { end }, middle));
            }
        }
        if bars.stacked {
            values.push((number(bars, offset), offset, top - thickness / 2.0));
        }
    }
    let right_aligned = text(13, scale).pos(Pos::new(HPos::Right, VPos::Center));
    // Labels stand outside the plotting area, so they are drawn on the area around it, in its own pixels.
    let ((around_left, around_top), (inner, rows_at)) =
        (area.get_base_pixel(), chart.plotting_area().get_pixel_range());
    let height = f64::from(rows_at.end - rows_at.start);
    for (row, label) in bars.labels.iter().enumerate() {
        let y = rows_at.start - around_top + (height * (row as f64 + 0.5) / rows as f64) as i32;
        let x = inner.start - around_left - 8 * scale as i32;
        area.draw(&Text::new(label.clone(), (x, y), right_aligned.clone()))?;
    }
    for (x, label) in &bars.references {
        reference(&mut chart, [(*x, 0.0), (*x, rows as f64)], scale)?;
        // A label stands above its line, and beside it where the next line is so near that both labels would touch.
        let place = |line: f64| chart.backend_coord(&(line, 0.0)).0;
        let near = |other: f64| (1..NEAR * scale).contains(&place(other).abs_diff(place(*x)));
        let neighbour = bars.references.iter().map(|(other, _)| *other).find(|other| near(*other));
        let side = neighbour.map_or(HPos::Center, |other| if other > *x { HPos::Right } else { HPos::Left });
        let anchor = text(13, scale).color(&REFERENCE).pos(Pos::new(side, VPos::Bottom));
        chart.draw_series([Text::new(label.clone(), (*x, rows as f64), anchor)])?;
    }
    let cap = thickness * 0.16;
    for (low, high, middle) in intervals {
        let strokes = [
            vec![(low, middle), (high, middle)],
            vec![(low, middle - cap), (low, middle + cap)],
            vec![(high, middle - cap), (high, middle + cap)],
        ];
        // Ink on a white ground: an interval must show on its own dark bar too.
        for style in [WHITE.stroke_width(4 * scale), INK.stroke_width(3 * scale / 2)] {
            chart.draw_series(strokes.iter().map(|stroke| PathElement::new(stroke.clone(), style)))?;
        }
    }
    // Values last, and on white where a reference line would strike them through.
    let (gap, half) = (6 * scale as i32, 8 * scale as i32);
    for (shown, x, y) in values {
        let from = chart.backend_coord(&(x, y)).0 + gap;
        let wide = (wide(&shown) * scale) as i32;
        let crosses = |line: f64| (from - gap..from + wide).contains(&chart.backend_coord(&(line, y)).0);
        if bars.references.iter().any(|(line, _)| crosses(*line)) {
            let ground = Rectangle::new([(gap / 2, -half), (gap + wide, half)], WHITE.filled());
            chart.draw_series([EmptyElement::at((x, y)) + ground])?;
        }
        chart.draw_series([EmptyElement::at((x, y)) + Text::new(shown, (gap, 0), after.clone())])?;
    }
    Ok(())
}
