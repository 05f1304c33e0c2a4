//! Draws a chart with plotters, once as SVG and once as a bitmap of the same layout.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Figure;
use super::chart::{Bars, Chart, Histogram, Lines, Plot};
use super::theme::{BITMAP_SCALE, FONT, GRID, INK, REFERENCE, SERIES, SIZE, register_fonts};
use crate::error::{Error, Result};

/// Draws a chart.
///
/// # Errors
/// [`Error::Figure`] when plotters or the PNG encoder refuses.
pub fn draw(chart: &Chart) -> Result<Figure> {
    register_fonts();
    let failed = |what: String| Error::Figure { name: chart.name.clone(), what };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        render(chart, &root, 1).map_err(|e| failed(e.to_string()))?;
    }
    let (width, height) = (SIZE.0 * BITMAP_SCALE, SIZE.1 * BITMAP_SCALE);
    let mut pixels = vec![0; (width * height * 3) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        render(chart, &root, BITMAP_SCALE).map_err(|e| failed(e.to_string()))?;
    }
    let png = encode(&pixels, width, height).map_err(|e| failed(e.to_string()))?;
    Ok(Figure { name: chart.name.clone(), title: chart.title.clone(), caption: chart.caption.clone(), svg, png })
}

fn encode(pixels: &[u8], width: u32, height: u32) -> std::result::Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Best);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

type Drawn<DB> = std::result::Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;
type Area<DB> = DrawingArea<DB, Shift>;

/// Text of `size` SVG units in ink.
fn text<'a>(size: u32, scale: u32) -> TextStyle<'a> {
    TextStyle::from((FONT, (size * scale) as i32).into_font()).color(&INK)
}

fn render<DB: DrawingBackend>(chart: &Chart, root: &Area<DB>, scale: u32) -> Drawn<DB> {
    root.fill(&WHITE)?;
    let s = scale as i32;
    let bold = TextStyle::from((FONT, (16 * scale) as i32, FontStyle::Bold).into_font()).color(&INK);
    root.draw(&Text::new(chart.title.clone(), (16 * s, 12 * s), bold))?;
    let body = root.margin(40 * scale, 10 * scale, 12 * scale, 16 * scale);
    match &chart.plot {
        Plot::Lines(lines) => draw_lines(lines, &body, scale),
        Plot::Bars(bars) => draw_bars(bars, &body, scale),
        Plot::Histogram(histogram) => draw_histogram(histogram, &body, scale),
    }?;
    root.present()
}

/// One row of labelled colour patches; returns the area below it.
fn legend<DB: DrawingBackend>(
    labels: &[&str],
    area: &Area<DB>,
    scale: u32,
) -> std::result::Result<Area<DB>, DrawingAreaErrorKind<DB::ErrorType>> {
    if labels.len() < 2 {
        return Ok(area.clone());
    }
    let s = scale as i32;
    let (row, below) = area.split_vertically(24 * scale);
    let mut x = 8 * s;
    for (label, color) in labels.iter().zip(SERIES.iter().cycle()) {
        row.draw(&Rectangle::new([(x, 6 * s), (x + 14 * s, 18 * s)], color.filled()))?;
        row.draw(&Text::new(label.to_string(), (x + 20 * s, 4 * s), text(13, scale)))?;
        // Open Sans is about 0.55 em wide on average; plotters has no measure that holds for both backends.
        x += 20 * s + (label.chars().count() as f64 * 13.0 * 0.55) as i32 * s + 22 * s;
    }
    Ok(below)
}

/// Rounds up to 1, 2, 2.5 or 5 times a power of ten.
fn nice_ceiling(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let step = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .find(|step| value <= step * power * 1.000_001);
    step.unwrap_or(10.0) * power
}

fn tick(value: f64) -> String {
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

fn draw_lines<DB: DrawingBackend>(lines: &Lines, area: &Area<DB>, scale: u32) -> Drawn<DB> {
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
    for (y, label) in &lines.references {
        let style = REFERENCE.stroke_width(scale);
        chart.draw_series(DashedLineSeries::new([(left, *y), (right, *y)], 6 * scale, 4 * scale, style))?;
        let anchor = text(13, scale).color(&REFERENCE).pos(Pos::new(HPos::Right, VPos::Bottom));
        chart.draw_series([Text::new(label.clone(), (right, *y), anchor)])?;
    }
    for (series, color) in lines.series.iter().zip(SERIES.iter().cycle()) {
        let points = series.points.iter().copied().filter(|(_, y)| y.is_finite());
        chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2 * scale)))?;
        if series.marked {
            chart.draw_series(points.map(|point| Circle::new(point, 3 * scale, color.filled())))?;
        }
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

fn draw_bars<DB: DrawingBackend>(bars: &Bars, area: &Area<DB>, scale: u32) -> Drawn<DB> {
    let names: Vec<&str> = bars.groups.iter().map(|(name, _)| name.as_str()).collect();
    let area = legend(&names, area, scale)?;
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
        .fold(0.0, f64::max);
    let right =
        if bars.percent { longest.max(bars.x_at_least) } else { nice_ceiling((longest * 1.08).max(bars.x_at_least)) };
    let widest = bars.labels.iter().map(|label| label.chars().count()).max().unwrap_or(0) as f64;
    let label_area = ((widest * 13.0 * 0.56) as u32 + 14).clamp(60, 260) * scale;
    let mut chart = ChartBuilder::on(&area)
        .margin_right(46 * scale)
        .margin_top(14 * scale)
        .x_label_area_size(44 * scale)
        .y_label_area_size(label_area)
        .build_cartesian_2d(0.0..right, 0.0..rows as f64)?;
    let percent = bars.percent;
    chart
        .configure_mesh()
        .x_desc(bars.x.as_str())
        .disable_y_mesh()
        .y_labels(0)
        .label_style(text(13, scale))
        .axis_desc_style(text(14, scale))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|x| if percent { format!("{:.0} %", x * 100.0) } else { tick(*x) })
        .x_labels(6)
        .draw()?;
    let groups = if bars.stacked { 1 } else { bars.groups.len().max(1) };
    let thickness = 0.76 / groups as f64;
    let small = if rows * groups > 24 { 9 } else { 13 };
    let beside = text(small, scale).pos(Pos::new(HPos::Left, VPos::Center));
    for row in 0..bars.labels.len() {
        let top = rows as f64 - row as f64 - 0.12;
        let mut offset = 0.0;
        for (group, ((_, values), color)) in bars.groups.iter().zip(SERIES.iter().cycle()).enumerate() {
            let value = values[row];
            let y = if bars.stacked { top } else { top - group as f64 * thickness };
            let (start, end) = if bars.stacked { (offset, offset + value) } else { (0.0, value) };
            chart.draw_series([Rectangle::new([(start, y), (end, y - thickness)], color.filled())])?;
            offset += value;
            let middle = y - thickness / 2.0;
            let mut label_at = end;
            if let Some((low, high)) = bars.intervals.get(group).and_then(|intervals| intervals.get(row)) {
                chart
                    .draw_series([PathElement::new(vec![(*low, middle), (*high, middle)], INK.stroke_width(scale))])?;
                label_at = label_at.max(*high);
            }
            if !bars.stacked {
                let shown = if percent { format!(" {:.0} %", value * 100.0) } else { format!(" {}", tick(value)) };
                chart.draw_series([Text::new(shown, (label_at, middle), beside.clone())])?;
            }
        }
        if bars.stacked {
            let middle = top - thickness / 2.0;
            chart.draw_series([Text::new(format!(" {}", tick(offset)), (offset, middle), beside.clone())])?;
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
        let style = REFERENCE.stroke_width(2 * scale);
        chart.draw_series(DashedLineSeries::new([(*x, 0.0), (*x, rows as f64)], 6 * scale, 4 * scale, style))?;
        let anchor = text(13, scale).color(&REFERENCE).pos(Pos::new(HPos::Center, VPos::Bottom));
        chart.draw_series([Text::new(label.clone(), (*x, rows as f64), anchor)])?;
    }
    Ok(())
}

fn draw_histogram<DB: DrawingBackend>(histogram: &Histogram, area: &Area<DB>, scale: u32) -> Drawn<DB> {
    let names: Vec<&str> = histogram.groups.iter().map(|(name, _)| name.as_str()).collect();
    let area = legend(&names, area, scale)?;
    let bins = histogram.groups.iter().map(|(_, counts)| counts.len()).max().unwrap_or(0);
    let count = |bin: usize, groups: usize| -> f64 {
        histogram.groups.iter().take(groups).map(|(_, counts)| counts.get(bin).copied().unwrap_or(0.0)).sum()
    };
    let all = histogram.groups.len();
    let tallest = (0..bins).map(|bin| count(bin, all)).fold(0.0, f64::max);
    let last = histogram.start + histogram.width * bins as f64;
    let right = histogram.references.iter().map(|(x, _)| *x + histogram.width).fold(last, f64::max);
    let top = nice_ceiling(tallest * 1.12);
    let mut chart = ChartBuilder::on(&area)
        .margin_right(20 * scale)
        .margin_top(14 * scale)
        .x_label_area_size(44 * scale)
        .y_label_area_size(62 * scale)
        .build_cartesian_2d(histogram.start..right, 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc(histogram.x.as_str())
        .y_desc(histogram.y.as_str())
        .disable_x_mesh()
        .label_style(text(13, scale))
        .axis_desc_style(text(14, scale))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|x| tick(*x))
        .y_label_formatter(&|y| tick(*y))
        .x_labels(10)
        .y_labels(6)
        .draw()?;
    for bin in 0..bins {
        let left = histogram.start + histogram.width * bin as f64;
        let end = left + histogram.width * 0.94;
        for (group, color) in (0..all).zip(SERIES.iter().cycle()) {
            let (bottom, height) = (count(bin, group), count(bin, group + 1));
            chart.draw_series([Rectangle::new([(left, bottom), (end, height)], color.filled())])?;
        }
    }
    for (x, label) in &histogram.references {
        let style = REFERENCE.stroke_width(2 * scale);
        chart.draw_series(DashedLineSeries::new([(*x, 0.0), (*x, top)], 6 * scale, 4 * scale, style))?;
        let anchor = text(13, scale).color(&REFERENCE).pos(Pos::new(HPos::Center, VPos::Bottom));
        chart.draw_series([Text::new(label.clone(), (*x, top), anchor)])?;
    }
    Ok(())
}
