//! Curves over a number.

use std::ops::Range;

use plotters::coord::CoordTranslate;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axes::{Axis, styled, tick};
use super::{Area, Drawn, legend, reference, text};
use crate::figures::chart::{Lines, Series};
use crate::figures::theme::{REFERENCE, SERIES};

pub(super) fn draw<DB: DrawingBackend>(lines: &Lines, area: &Area<DB>, scale: u32) -> Drawn<DB> {
    let labels: Vec<&str> = lines.series.iter().map(|series| series.label.as_str()).collect();
    let area = legend(&labels, area, scale, |row, index, at| sign(&lines.series[index], row, index, at, scale))?;
    let points = |faint: bool| {
        let series = lines.series.iter().filter(move |series| faint || !series.faint);
        series.flat_map(|series| series.points.iter()).filter(|(_, y)| y.is_finite())
    };
    let (left, right) = span(points(true).map(|(x, _)| *x));
    let only_faint = points(false).next().is_none();
    let heights = points(only_faint).map(|(_, y)| *y).chain(lines.references.iter().map(|(y, _)| *y));
    let (low, high) = span(heights);
    let across = Axis::new(left, right, 8);
    let upwards = Axis::new(if lines.from_zero { 0.0 } else { low }, high.max(lines.y_at_least), 8);
    let (Range { start: left, end: right }, Range { start: low, end: high }) = (across.range(), upwards.range());
    let mut chart = ChartBuilder::on(&area)
        .margin_right(20 * scale)
        .margin_top(10 * scale)
        .x_label_area_size(44 * scale)
        .y_label_area_size(62 * scale)
        .build_cartesian_2d(across, upwards)?;
    styled(&mut chart.configure_mesh(), scale)
        .x_desc(lines.x.as_str())
        .y_desc(lines.y.as_str())
        .x_label_formatter(&|x| tick(*x))
        .y_label_formatter(&|y| tick(*y))
        .draw()?;
    // Below the curves, which their white ground would erase where they meet.
    for (y, _) in &lines.references {
        reference(&mut chart, [(left, *y), (right, *y)], scale)?;
    }
    // What is faint lies below everything else.
    let mut drawn: Vec<(usize, &Series)> = lines.series.iter().enumerate().collect();
    drawn.sort_by_key(|(_, series)| !series.faint);
    for (index, series) in drawn {
        let finite = series.points.iter().copied().filter(|(_, y)| y.is_finite());
        let mut points = finite.map(|(x, y)| (x, y.clamp(low, high)));
        chart.draw_series(LineSeries::new(points.clone(), stroke(series, index, scale)))?;
        if series.marked {
            points.try_for_each(|at| mark(chart.plotting_area(), at, index, scale))?;
        }
    }
    for (y, label) in &lines.references {
        // At the end where the curves are farther away: most fall towards their floor.
        let nearest = |at: fn(&Series) -> Option<&(f64, f64)>| {
            lines.series.iter().filter_map(at).map(|(_, end)| (end - y).abs()).fold(f64::INFINITY, f64::min)
        };
        let first = nearest(|series| series.points.first()) > nearest(|series| series.points.last());
        // Curves fall towards a floor from above, so its name stands below it, where there is room.
        let (_, at) = chart.backend_coord(&(right, *y));
        let (_, bottom) = chart.backend_coord(&(right, low));
        let below = bottom - at > 20 * scale as i32;
        let s = scale as i32;
        let (x, hpos, gap) = if first { (left, HPos::Left, 4 * s) } else { (right, HPos::Right, -4 * s) };
        let (vpos, rise) = if below { (VPos::Top, 6 * s) } else { (VPos::Bottom, -3 * s) };
        let style = text(13, scale).color(&REFERENCE).pos(Pos::new(hpos, vpos));
        chart.draw_series([EmptyElement::at((x, *y)) + Text::new(label.clone(), (gap, rise), style)])?;
    }
    Ok(())
}

/// The stroke of a series.
fn stroke(series: &Series, index: usize, scale: u32) -> ShapeStyle {
    let color = SERIES[index % SERIES.len()];
    if series.faint { color.mix(0.4).stroke_width(scale) } else { color.stroke_width(2 * scale) }
}

/// Draws the mark of a point. A form of its own tells a series apart where colours do not: a disc, a square, a triangle,
/// and so on round.
fn mark<DB, To>(area: &DrawingArea<DB, To>, at: To::From, index: usize, scale: u32) -> Drawn<DB>
where
    DB: DrawingBackend,
    To: CoordTranslate,
    To::From: Clone + 'static,
{
    let (size, style) = (4 * scale as i32, SERIES[index % SERIES.len()].filled());
    match index % 3 {
        0 => area.draw(&Circle::new(at, size, style)),
        1 => area.draw(&(EmptyElement::at(at) + Rectangle::new([(-size, -size), (size, size)], style))),
        _ => area.draw(&TriangleMarker::new(at, size + 2, style)),
    }
}

/// The sign of a series in the legend: a piece of its curve.
fn sign<DB: DrawingBackend>(
    series: &Series,
    row: &Area<DB>,
    index: usize,
    (x, y): (i32, i32),
    scale: u32,
) -> Drawn<DB> {
    let half = 10 * scale as i32;
    row.draw(&PathElement::new([(x - half, y), (x + half, y)], stroke(series, index, scale)))?;
    if series.marked { mark(row, (x, y), index, scale) } else { Ok(()) }
}

/// Smallest and largest of some numbers, never equal.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if !low.is_finite() {
        return (0.0, 1.0);
    }
    if high > low { (low, high) } else { (low - 0.5, high + 0.5) }
}
