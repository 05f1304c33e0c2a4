//! One function per figure, from records; computes nothing.
//!
//! A figure function turns a record into a [`Chart`](chart::Chart); [`draw`] turns a chart into SVG and PNG. Both are pure: the
//! same record gives the same bytes, without a date or a path in them.

pub mod base;
pub mod chart;
pub mod data;
mod draw;
pub mod evaluation;
pub mod lora;
pub mod sweep;
mod theme;
pub mod training;
pub mod twins;

use std::fs;
use std::path::Path;

pub use draw::draw;

use crate::artifact;
use crate::error::{Error, Result};

/// A drawn figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// File stem, `<phase>-<subject>`.
    pub name: String,
    /// The title inside the figure.
    pub title: String,
    /// What a reader should see in it.
    pub caption: String,
    /// The figure as SVG.
    pub svg: String,
    /// The figure as PNG.
    pub png: Vec<u8>,
}

impl Figure {
    /// Writes `<name>.svg` and `<name>.png` into `folder`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, folder: &Path) -> Result<()> {
        let file = |extension: &str| folder.join(&self.name).with_extension(extension);
        artifact::write_atomic(&file("svg"), |writer| writer.write_all(self.svg.as_bytes()))?;
        artifact::write_atomic(&file("png"), |writer| writer.write_all(&self.png))
    }
}

/// Writes `README.md` with every figure of the folder and its caption.
///
/// # Errors
/// [`Error::Io`].
pub fn write_captions(folder: &Path, figures: &[Figure]) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    artifact::write_atomic(&folder.join("README.md"), |writer| {
        writeln!(
            writer,
            "# Figures\n\nDrawn by `codelora figures` from the numbers in `records/`; nothing here is made by hand."
        )?;
        for figure in figures {
            writeln!(
                writer,
                "\n## {}\n\n![{}]({}.svg)\n\n{}",
                figure.title, figure.title, figure.name, figure.caption
            )?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::chart::{Bars, Chart, Histogram, Lines, Plot, Series};
    use super::*;

    fn chart(name: &str, plot: Plot) -> Chart {
        Chart { name: name.into(), title: "How many of each?".into(), caption: "A test.".into(), plot }
    }

    fn every_kind() -> Vec<Chart> {
        let curve = |label: &str, slope: f64| Series {
            label: label.into(),
            points: (0..50).map(|x| (f64::from(x), 9.0 * (-slope * f64::from(x)).exp())).collect(),
            ..Series::default()
        };
        let lines = Lines {
            x: "step".into(),
            y: "loss (nats/token)".into(),
            series: vec![curve("with a mask", 0.02), curve("without", 0.1)],
            references: vec![(1.22, "floor 1.22".into())],
            from_zero: true,
            ..Lines::default()
        };
        let bars = Bars {
            x: "pass rate".into(),
            labels: vec!["count_vowels".into(), "gcd".into()],
            groups: vec![("before".into(), vec![0.1, 0.0]), ("after".into(), vec![0.6, 0.35])],
            intervals: vec![vec![(0.02, 0.3), (0.0, 0.16)], vec![(0.4, 0.8), (0.2, 0.55)]],
            percent: true,
            x_at_least: 1.0,
            ..Bars::default()
        };
        let stacked = Bars {
            x: "samples".into(),
            labels: vec!["train".into(), "validation".into(), "held-out".into()],
            groups: vec![("humaneval".into(), vec![150.0, 10.0, 0.0]), ("mbpp".into(), vec![400.0, 40.0, 388.0])],
            references: vec![(500.0, "500".into())],
            stacked: true,
            ..Bars::default()
        };
        let histogram = Histogram {
            x: "tokens per sample".into(),
            y: "samples".into(),
            width: 16.0,
            groups: vec![("kept".into(), vec![5.0, 9.0, 14.0, 3.0]), ("rejected".into(), vec![0.0, 0.0, 2.0, 4.0])],
            references: vec![(48.0, "limit: 48".into())],
            ..Histogram::default()
        };
        vec![
            chart("test-lines", Plot::Lines(lines)),
            chart("test-bars", Plot::Bars(bars)),
            chart("test-stacked", Plot::Bars(stacked)),
            chart("test-histogram", Plot::Histogram(histogram)),
        ]
    }

    #[test]
    fn drawing_twice_gives_the_same_bytes() {
        for chart in every_kind() {
            assert_eq!(draw(&chart).unwrap(), draw(&chart).unwrap(), "{}", chart.name);
        }
    }

    #[test]
    fn a_figure_holds_its_title_labels_and_units() {
        for chart in every_kind() {
            let svg = draw(&chart).unwrap().svg;
            assert!(svg.contains(&chart.title));
            let unit = match &chart.plot {
                Plot::Lines(lines) => &lines.y,
                Plot::Bars(bars) => &bars.x,
                Plot::Histogram(histogram) => &histogram.x,
            };
            assert!(svg.contains(unit), "{} lacks {unit}", chart.name);
        }
    }

    #[test]
    fn an_empty_chart_is_drawn_without_marks() {
        for plot in [Plot::Lines(Lines::default()), Plot::Bars(Bars::default()), Plot::Histogram(Histogram::default())]
        {
            assert!(draw(&chart("test-empty", plot)).unwrap().svg.contains("<svg"));
        }
    }
}
