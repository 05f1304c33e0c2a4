//! Draws a chart with plotters, once as SVG and once as a bitmap of the same layout.

mod bars;
mod histogram;
mod lines;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Figure;
use super::chart::{Chart, Plot};
use super::theme::{BITMAP_SCALE, FONT, HEIGHT, INK, REFERENCE, SERIES, WIDTH, register_fonts};
use crate::error::{Error, Result};

/// Draws a chart.
///
/// # Errors
/// [`Error::Figure`] when plotters or the PNG encoder refuses.
pub fn draw(chart: &Chart) -> Result<Figure> {
    register_fonts();
    let failed = |what: String| Error::Figure { name: chart.name.clone(), what };
    let height = match &chart.plot {
        Plot::Bars(bars) => bars::height(bars),
        Plot::Lines(_) | Plot::Histogram(_) => HEIGHT,
    };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        render(chart, &root, 1).map_err(|e| failed(e.to_string()))?;
    }
    let (width, height) = (WIDTH * BITMAP_SCALE, height * BITMAP_SCALE);
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

type Failure<DB> = DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>;
type Drawn<DB> = std::result::Result<(), Failure<DB>>;
type Area<DB> = DrawingArea<DB, Shift>;

/// Text of `size` SVG units in ink.
fn text<'a>(size: u32, scale: u32) -> TextStyle<'a> {
    TextStyle::from((FONT, (size * scale) as i32).into_font()).color(&INK)
}

/// Width of a text in SVG units, nearly: plotters has no measure that holds for both backends, and Open Sans is about
/// half an em wide on average.
fn width(text: &str, size: u32) -> u32 {
    (text.chars().count() as f64 * f64::from(size) * 0.51) as u32
}

fn render<DB: DrawingBackend>(chart: &Chart, root: &Area<DB>, scale: u32) -> Drawn<DB> {
    root.fill(&WHITE)?;
    let s = scale as i32;
    let bold = TextStyle::from((FONT, (16 * scale) as i32, FontStyle::Bold).into_font()).color(&INK);
    root.draw(&Text::new(chart.title.clone(), (16 * s, 12 * s), bold))?;
    let body = root.margin(40 * scale, 10 * scale, 12 * scale, 16 * scale);
    match &chart.plot {
        Plot::Lines(lines) => lines::draw(lines, &body, scale),
        Plot::Bars(bars) => bars::draw(bars, &body, scale),
        Plot::Histogram(histogram) => histogram::draw(histogram, &body, scale),
    }?;
    root.present()
}

/// Height of the legend's row.
const LEGEND: u32 = 24;

/// One row of labelled colour patches; returns the area below it.
fn legend<DB: DrawingBackend>(
    labels: &[&str],
    area: &Area<DB>,
    scale: u32,
) -> std::result::Result<Area<DB>, Failure<DB>> {
    if labels.len() < 2 {
        return Ok(area.clone());
    }
    let s = scale as i32;
    let (row, below) = area.split_vertically(LEGEND * scale);
    let middle = text(13, scale).pos(Pos::new(HPos::Left, VPos::Center));
    let mut x = 8 * s;
    for (label, color) in labels.iter().zip(SERIES.iter().cycle()) {
        row.draw(&Rectangle::new([(x, 4 * s), (x + 14 * s, 16 * s)], color.filled()))?;
        row.draw(&Text::new(label.to_string(), (x + 20 * s, 10 * s), middle.clone()))?;
        x += (20 + width(label, 13) as i32 + 24) * s;
    }
    Ok(below)
}

/// Dashes of a reference line between two points, on a white ground that lifts them from what they cross.
fn reference<DB: DrawingBackend, X: Ranged<ValueType = f64>, Y: Ranged<ValueType = f64>>(
    chart: &mut ChartContext<DB, Cartesian2d<X, Y>>,
    ends: [(f64, f64); 2],
    scale: u32,
) -> Drawn<DB> {
    chart.draw_series([PathElement::new(ends.to_vec(), WHITE.stroke_width(4 * scale))])?;
    let style = REFERENCE.stroke_width(2 * scale);
    chart.draw_series(DashedLineSeries::new(ends, 6 * scale, 4 * scale, style))?;
    Ok(())
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
