//! Draws a chart with plotters, once as SVG and once as a bitmap of the same layout.

mod axes;
mod bars;
mod caption;
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
    let height = plot_height(chart) + caption::height(&caption::lines(&chart.caption));
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        render(chart, &root, 1).map_err(|e| failed(e.to_string()))?;
    }
    let svg = described(&svg, chart);
    let (width, height) = (WIDTH * BITMAP_SCALE, height * BITMAP_SCALE);
    let mut pixels = vec![0; (width * height * 3) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        render(chart, &root, BITMAP_SCALE).map_err(|e| failed(e.to_string()))?;
    }
    let png = encode(&pixels, width, height).map_err(|e| failed(e.to_string()))?;
    Ok(Figure { name: chart.name.clone(), title: chart.title.clone(), caption: chart.caption.clone(), svg, png })
}

/// Height of the title and the plot, in SVG units.
fn plot_height(chart: &Chart) -> u32 {
    match &chart.plot {
        Plot::Bars(bars) => bars::height(bars),
        Plot::Lines(_) | Plot::Histogram(_) => HEIGHT,
    }
}

/// The SVG with the chart's title and caption for those who do not see it.
fn described(svg: &str, chart: &Chart) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let (title, caption) = (escaped(&chart.title), escaped(&chart.caption));
    svg.replacen(">\n", &format!(">\n<title>{title}</title>\n<desc>{caption}</desc>\n"), 1)
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
    let (plot, below) = root.split_vertically(plot_height(chart) * scale);
    let body = plot.margin(40 * scale, 10 * scale, 12 * scale, 16 * scale);
    match &chart.plot {
        Plot::Lines(lines) => lines::draw(lines, &body, scale),
        Plot::Bars(bars) => bars::draw(bars, &body, scale),
        Plot::Histogram(histogram) => histogram::draw(histogram, &body, scale),
    }?;
    caption::draw(&caption::lines(&chart.caption), &below, scale)?;
    root.present()
}

/// Height of the legend's row.
const LEGEND: u32 = 24;

/// One row of labels, each behind what `sign` draws for its index around a place; returns the area below it.
fn legend<DB: DrawingBackend>(
    labels: &[&str],
    area: &Area<DB>,
    scale: u32,
    sign: impl Fn(&Area<DB>, usize, (i32, i32)) -> Drawn<DB>,
) -> std::result::Result<Area<DB>, Failure<DB>> {
    if labels.len() < 2 {
        return Ok(area.clone());
    }
    let s = scale as i32;
    let (row, below) = area.split_vertically(LEGEND * scale);
    let middle = text(13, scale).pos(Pos::new(HPos::Left, VPos::Center));
    let mut x = 8 * s;
    for (index, label) in labels.iter().enumerate() {
        sign(&row, index, (x + 9 * s, 10 * s))?;
        row.draw(&Text::new(label.to_string(), (x + 24 * s, 10 * s), middle.clone()))?;
        x += (24 + width(label, 13) as i32 + 20) * s;
    }
    Ok(below)
}

/// The sign of a colour in a legend.
fn patch<DB: DrawingBackend>(row: &Area<DB>, index: usize, (x, y): (i32, i32), scale: u32) -> Drawn<DB> {
    let s = scale as i32;
    let ends = [(x - 7 * s, y - 6 * s), (x + 7 * s, y + 6 * s)];
    row.draw(&Rectangle::new(ends, SERIES[index % SERIES.len()].filled()))
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
