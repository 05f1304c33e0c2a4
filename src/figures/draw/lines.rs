//! Curves over a number.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Area, Drawn, legend, reference, text, tick, width};
use crate::figures::chart::{Lines, Series};
use crate::figures::theme::{GRID, INK, REFERENCE, SERIES};

pub(super) fn draw<DB: DrawingBackend>(lines: &Lines, area: &Area<DB>, scale: u32) -> Drawn<DB> {
    let labels: Vec<&str> = lines.series.iter().map(|series| series.label.as_str()).collect();
    let area = legend(&labels, area, scale)?;
    let points = || lines.series.iter().flat_map(|series| series.points.iter()).filter(|(_, y)| y.is_finite());
    let (left, right) = span(points().map(|(x, _)| *x));
    let heights = points().map(|(_, y)| *y).chain(lines.references.iter().map(|(y, _)| *y));
    let (low, high) = span(heights);
    let low = if lines.from_zero { 0.0 } else { (low - 0.05 * (high - low)).min(low) };
    let high = (high + 0.08 * (high - low)).max(lines.y_at_least);
    let mut chart = ChartBuilder::on(&area)
        .margin_right(20 * scale)
        .margin_top(6 * scale)
        .x_label_area_size(44 * scale)
        .y_label_area_size(62 * scale)
        .build_cartesian_2d(left..right, low..high)?;
    chart
        .configure_mesh()
        .x_desc(lines.x.as_str())
        .y_desc(lines.y.as_str())
        .label_style(text(13, scale))
        .axis_desc_style(text(14, scale))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|x| tick(*x))
        .y_label_formatter(&|y| tick(*y))
        .x_labels(8)
        .y_labels(7)
        .draw()?;
    // What is faint lies below everything else.
    let mut drawn: Vec<(usize, &Series)> = lines.series.iter().enumerate().collect();
    drawn.sort_by_key(|(_, series)| !series.faint);
    for (index, series) in drawn {
        let color = SERIES[index % SERIES.len()];
        let points = series.points.iter().copied().filter(|(_, y)| y.is_finite());
        let style = if series.faint { color.mix(0.4).stroke_width(scale) } else { color.stroke_width(2 * scale) };
        chart.draw_series(LineSeries::new(points.clone(), style))?;
        if series.marked {
            let size = 4 * scale as i32;
            // A form of its own tells a series apart where colours do not: a disc, a square, a triangle, and so on round.
            match index % 3 {
                0 => chart.draw_series(points.map(|point| Circle::new(point, size, color.filled())))?,
                1 => chart.draw_series(points.map(|point| {
                    EmptyElement::at(point) + Rectangle::new([(-size, -size), (size, size)], color.filled())
                }))?,
                _ => chart.draw_series(points.map(|point| TriangleMarker::new(point, size + 2, color.filled())))?,
            };
        }
    }
    for (y, label) in &lines.references {
        reference(&mut chart, [(left, *y), (right, *y)], scale)?;
        // Curves fall towards a floor from above, so its name stands below it, where there is room.
        let (_, at) = chart.backend_coord(&(right, *y));
        let (_, bottom) = chart.backend_coord(&(right, low));
        let below = bottom - at > 20 * scale as i32;
        let pos = Pos::new(HPos::Right, if below { VPos::Top } else { VPos::Bottom });
        let (s, room) = (scale as i32, (width(label, 13) * scale) as i32 + 8 * scale as i32);
        let (top, end) = if below { (3 * s, 19 * s) } else { (-19 * s, -3 * s) };
        let label = EmptyElement::at((right, *y))
            + Rectangle::new([(-room, top), (0, end)], WHITE.mix(0.85).filled())
            + Text::new(
                label.clone(),
                (-4 * s, if below { 3 * s } else { -3 * s }),
                text(13, scale).color(&REFERENCE).pos(pos),
            );
        chart.draw_series([label])?;
    }
    Ok(())
}

/// Smallest and largest of some numbers, never equal.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if !low.is_finite() {
        return (0.0, 1.0);
    }
    if high > low { (low, high) } else { (low - 0.5, high + 0.5) }
}
