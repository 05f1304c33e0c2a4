//! Counts in bins.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axes::{Axis, styled, tick};
use super::{Area, Drawn, legend, patch, reference, text};
use crate::figures::chart::Histogram;
use crate::figures::theme::{REFERENCE, SERIES};

pub(super) fn draw<DB: DrawingBackend>(histogram: &Histogram, area: &Area<DB>, scale: u32) -> Drawn<DB> {
    let names: Vec<&str> = histogram.groups.iter().map(|(name, _)| name.as_str()).collect();
    let area = legend(&names, area, scale, |row, index, at| patch(row, index, at, scale))?;
    let bins = histogram.groups.iter().map(|(_, counts)| counts.len()).max().unwrap_or(0);
    let count = |bin: usize, groups: usize| -> f64 {
        histogram.groups.iter().take(groups).map(|(_, counts)| counts.get(bin).copied().unwrap_or(0.0)).sum()
    };
    let all = histogram.groups.len();
    let tallest = (0..bins).map(|bin| count(bin, all)).fold(0.0, f64::max);
    let last = histogram.start + histogram.width * bins as f64;
    let start = histogram.start;
    let right = histogram.references.iter().map(|(x, _)| *x).fold(last, f64::max).max(start + histogram.width);
    // Bins of whole numbers begin between two of them, so the axis begins there too and not at a tick.
    let across = Axis::new(start, right, 12).from(start);
    let upwards = Axis::new(0.0, tallest.max(1.0), 6);
    let top = upwards.range().end;
    let mut chart = ChartBuilder::on(&area)
        .margin_right(20 * scale)
        .margin_top(14 * scale)
        .x_label_area_size(44 * scale)
        .y_label_area_size(62 * scale)
        .build_cartesian_2d(across, upwards)?;
    styled(&mut chart.configure_mesh(), scale)
        .x_desc(histogram.x.as_str())
        .y_desc(histogram.y.as_str())
        .disable_x_mesh()
        .x_label_formatter(&|x| tick(*x))
        .y_label_formatter(&|y| tick(*y))
        .draw()?;
    for bin in 0..bins {
        let left = start + histogram.width * (bin as f64 + 0.03);
        let end = left + histogram.width * 0.94;
        for (group, color) in (0..all).zip(SERIES.iter().cycle()) {
            let (bottom, height) = (count(bin, group), count(bin, group + 1));
            chart.draw_series([Rectangle::new([(left, bottom), (end, height)], color.filled())])?;
        }
    }
    for (x, label) in &histogram.references {
        reference(&mut chart, [(*x, 0.0), (*x, top)], scale)?;
        let anchor = text(13, scale).color(&REFERENCE).pos(Pos::new(HPos::Center, VPos::Bottom));
        chart.draw_series([Text::new(label.clone(), (*x, top), anchor)])?;
    }
    Ok(())
}
