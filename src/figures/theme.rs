//! One palette, one size, one font for every figure.

use std::sync::OnceLock;

use plotters::style::{FontStyle, RGBColor, register_font};

/// Width of every figure in SVG units; the bitmap has [`BITMAP_SCALE`] pixels to each.
pub const WIDTH: u32 = 760;

/// Height of a figure whose content does not ask for another, in SVG units.
pub const HEIGHT: u32 = 440;

/// Pixels of the bitmap per SVG unit: legible at half size.
pub const BITMAP_SCALE: u32 = 2;

/// The family name under which the bundled font is registered, and which an SVG viewer resolves to its own.
pub const FONT: &str = "sans-serif";

/// Ink for text and axes.
pub const INK: RGBColor = RGBColor(38, 38, 38);

/// Grid lines and frames.
pub const GRID: RGBColor = RGBColor(222, 222, 222);

/// Series colours, after Okabe and Ito (2008): distinct for colour-blind readers, and ordered so that neighbours differ
/// in lightness too, which keeps them apart in greyscale.
pub const SERIES: [RGBColor; 6] = [
    RGBColor(0, 76, 130),
    RGBColor(230, 140, 0),
    RGBColor(0, 158, 115),
    RGBColor(190, 80, 130),
    RGBColor(95, 95, 95),
    RGBColor(100, 180, 230),
];

/// The line of a threshold or a reference.
pub const REFERENCE: RGBColor = RGBColor(176, 32, 32);

/// Registers the bundled font once; plotters draws bitmaps with no other.
pub fn register_fonts() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        // A font that does not parse would show at the first bitmap, as a figure error.
        let _ = register_font(FONT, FontStyle::Normal, include_bytes!("fonts/OpenSans-Regular.ttf"));
        let _ = register_font(FONT, FontStyle::Bold, include_bytes!("fonts/OpenSans-Semibold.ttf"));
    });
}
