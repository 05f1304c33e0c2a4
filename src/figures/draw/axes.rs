//! Axes: round ticks, and how a plot's mesh looks.

use std::ops::Range;

use plotters::chart::MeshStyle;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::text;
use crate::figures::theme::{GRID, INK};

/// Gives the mesh of a plot the letters, the ink and the grey of every figure.
pub(super) fn styled<'m, 'a, 'b, DB, X, Y>(
    mesh: &'m mut MeshStyle<'a, 'b, X, Y, DB>,
    scale: u32,
) -> &'m mut MeshStyle<'a, 'b, X, Y, DB>
where
    DB: DrawingBackend,
    X: Ranged,
    Y: Ranged,
{
    mesh.label_style(text(13, scale))
        .axis_desc_style(text(14, scale))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
}

/// An axis with ticks at multiples of a round number.
pub(super) struct Axis {
    coordinate: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Axis {
    /// The axis that holds a range in at most `most` steps, from tick to tick.
    pub(super) fn new(low: f64, high: f64, most: u32) -> Self {
        let power = 10f64.powf(((high - low) / f64::from(most)).log10().floor());
        let ends = |step: f64| ((low / step + 1e-6).floor(), (high / step - 1e-6).ceil());
        let fits = |step: &f64| ends(*step).1 - ends(*step).0 <= f64::from(most);
        // Counts stand on these axes, so 2.5 is no step.
        let mut steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power).into_iter().filter(|step| *step != 2.5);
        let step = steps.find(fits).unwrap_or(20.0 * power);
        let (first, last) = ends(step);
        let ticks: Vec<f64> = (first as i64..=last as i64).map(|place| place as f64 * step).collect();
        Self { coordinate: (first * step..last * step).into(), ticks }
    }

    /// The same axis, begun later.
    pub(super) fn from(self, low: f64) -> Self {
        let ticks = self.ticks.into_iter().filter(|tick| *tick >= low).collect();
        Self { coordinate: (low..self.coordinate.range().end).into(), ticks }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.coordinate.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.coordinate.range()
    }
}

/// A number as it stands at a tick.
pub(super) fn tick(value: f64) -> String {
    let size = value.abs();
    if size > 0.0 && size < 0.01 {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    if size >= 10_000.0 {
        return if size >= 1e6 { format!("{:.1}M", value / 1e6) } else { format!("{:.0}k", value / 1e3) };
    }
    let digits = if size == 0.0 || (value.fract().abs() < 1e-9) {
        0
    } else if size >= 10.0 {
        1
    } else if size >= 0.1 {
        2
    } else {
        4
    };
    let shown = format!("{value:.digits$}");
    if digits > 0 { shown.trim_end_matches('0').trim_end_matches('.').to_string() } else { shown }
}
