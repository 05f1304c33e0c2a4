//! The few kinds of chart that the figures are made of, as plain values. What to show is decided here, not how.

/// A chart of any kind, with what every figure has.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// File stem, `<phase>-<subject>`.
    pub name: String,
    /// Says what the figure shows, as a sentence or a question.
    pub title: String,
    /// The caption under the figure in `figures/README.md`.
    pub caption: String,
    /// The marks.
    pub plot: Plot,
}

/// The kinds of chart.
#[derive(Debug, Clone, PartialEq)]
pub enum Plot {
    /// Curves over a number.
    Lines(Lines),
    /// Horizontal bars by label, side by side or stacked.
    Bars(Bars),
    /// Counts in bins.
    Histogram(Histogram),
}

/// Curves over a number.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lines {
    /// What runs to the right, with its unit.
    pub x: String,
    /// What runs upwards, with its unit.
    pub y: String,
    /// The curves.
    pub series: Vec<Series>,
    /// Horizontal reference lines with their labels.
    pub references: Vec<(f64, String)>,
    /// Smallest upper end of the y axis; 0 leaves it to the data.
    pub y_at_least: f64,
    /// Whether the y axis begins at zero.
    pub from_zero: bool,
}

/// One curve.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Its label in the legend.
    pub label: String,
    /// Its points, left to right.
    pub points: Vec<(f64, f64)>,
    /// Marks at the points, for few points.
    pub marked: bool,
    /// Thin and pale, below the others: noise that is shown but not the message. It does not stretch the y axis; what lies
    /// outside is drawn at its edge.
    pub faint: bool,
}

/// Horizontal bars by label.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bars {
    /// What the length means, with its unit.
    pub x: String,
    /// One label per row, top to bottom.
    pub labels: Vec<String>,
    /// One group per colour: its name and a value per row.
    pub groups: Vec<(String, Vec<f64>)>,
    /// Interval ends per group and row; empty where there is no uncertainty. They are drawn, and written beside the values.
    pub intervals: Vec<Vec<(f64, f64)>>,
    /// Vertical reference lines with their labels.
    pub references: Vec<(f64, String)>,
    /// Groups are laid end to end instead of side by side.
    pub stacked: bool,
    /// Smallest right end of the axis; 0 leaves it to the data.
    pub x_at_least: f64,
    /// Values are shares and shown as percentages.
    pub percent: bool,
    /// Decimals of every value; none leaves them to each value.
    pub digits: Option<usize>,
}

/// Counts in bins of equal width.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// What is counted over, with its unit.
    pub x: String,
    /// What is counted.
    pub y: String,
    /// Left edge of the first bin.
    pub start: f64,
    /// Width of a bin.
    pub width: f64,
    /// One group per colour, stacked: its name and a count per bin.
    pub groups: Vec<(String, Vec<f64>)>,
    /// Vertical reference lines with their labels.
    pub references: Vec<(f64, String)>,
}
