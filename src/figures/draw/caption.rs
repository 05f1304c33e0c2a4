//! The caption below a figure, in lines as wide as the figure, so that it goes wherever the picture goes.

use plotters::prelude::*;

use super::{Area, Drawn, text, width};
use crate::figures::theme::WIDTH;

/// Size of the letters in SVG units.
const SIZE: u32 = 12;
/// From one line to the next.
const LINE: u32 = 17;
/// Left and right of the lines.
const MARGIN: u32 = 16;
/// Room for a line by [`width`], which gives a letter half an em: text of this size needs three quarters of that, and a viewer's own
/// font a little more than ours.
const ROOM: u32 = (WIDTH - 2 * MARGIN) * 5 / 4;

/// The caption in lines.
pub fn lines(caption: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in caption.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), SIZE) <= ROOM => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Height of so many lines in SVG units, the space below them included.
pub fn height(lines: &[String]) -> u32 {
    if lines.is_empty() { 0 } else { lines.len() as u32 * LINE + 12 }
}

/// Writes the lines into the area below a figure.
pub fn draw<DB: DrawingBackend>(lines: &[String], area: &Area<DB>, scale: u32) -> Drawn<DB> {
    for (index, line) in lines.iter().enumerate() {
        let place = ((MARGIN * scale) as i32, (index as u32 * LINE * scale) as i32);
        area.draw(&Text::new(line.clone(), place, text(SIZE, scale)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_every_word_and_stay_within_the_figure() {
        let caption = "forty words of a caption that says what is seen ".repeat(9);
        let lines = lines(&caption);
        assert!(lines.len() > 2 && lines.iter().all(|line| width(line, SIZE) <= ROOM), "{lines:?}");
        assert_eq!(lines.join(" "), caption.trim());
        assert_eq!((height(&super::lines("")), height(&lines)), (0, lines.len() as u32 * LINE + 12));
    }
}
