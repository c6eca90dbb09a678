//! Maps counts to colours or density characters on a logarithmic scale, so that one hot key in a
//! thousand does not make everything else black.

use std::fmt::Write as _;

use ratatui::style::{Color, Style};

use super::grid::{Cell, Mark};
use crate::terminal::output::ColorDepth;

/// Terminal cells of the ramp in the legend.
pub const RAMP_CELLS: usize = DENSITY.len();

/// Characters from nothing to most.
const DENSITY: [char; 10] = [' ', '.', ':', '-', '=', '+', '*', '#', '%', '@'];

/// Indexes of the 256-colour palette from least to most: violet, red, orange, pale yellow.
const ANSI: [u8; 9] = [53, 54, 90, 126, 162, 203, 209, 215, 229];

/// Truecolor stops from least to most, evenly spaced.
const STOPS: [[u8; 3]; 6] =
    [[38, 17, 84], [101, 26, 128], [165, 44, 122], [227, 79, 91], [253, 153, 105], [252, 249, 187]];

/// Steps of the truecolor ramp; more would only lengthen the output.
const TRUECOLOR_LEVELS: usize = 48;

const RESET: &str = "\x1b[0m";

/// The scale of one drawing.
pub struct Palette {
    color: ColorDepth,
    most: u64,
    linear: bool,
}

impl Palette {
    /// A scale from 0 to `most`.
    pub fn new(color: ColorDepth, most: u64) -> Self {
        Palette { color, most, linear: false }
    }

    /// The same with equal steps between counts.
    pub fn linear(self) -> Self {
        Palette { linear: true, ..self }
    }

    fn levels(&self) -> usize {
        match self.color {
            ColorDepth::None => DENSITY.len() - 1,
            ColorDepth::Ansi256 => ANSI.len(),
            ColorDepth::Truecolor => TRUECOLOR_LEVELS,
        }
    }

    /// 0 for a count of 0, otherwise 1 up to the number of levels, so that every count is visible.
    fn level(&self, value: u64) -> usize {
        if value == 0 {
            return 0;
        }
        let (part, whole) = (value as f64, self.most.max(value) as f64);
        let of = if self.linear { part / whole } else { part.ln_1p() / whole.ln_1p() };
        ((of * self.levels() as f64).ceil() as usize).clamp(1, self.levels())
    }

    /// Appends the cells of a row, each `cell_width` wide. Colours are reset at the end.
    pub fn paint(&self, line: &mut String, cells: &[Cell], cell_width: usize) {
        let mut level = 0;
        for cell in cells {
            let next = self.level(cell.value);
            if next != level && self.color != ColorDepth::None {
                self.switch(line, next);
            }
            level = next;
            self.cell(line, cell.mark, level, cell_width);
        }
        if level != 0 && self.color != ColorDepth::None {
            line.push_str(RESET);
        }
    }

    fn cell(&self, line: &mut String, mark: Mark, level: usize, cell_width: usize) {
        let fill = if self.color == ColorDepth::None { DENSITY[level] } else { ' ' };
        // Without colours, a cell of one character is its density; the mark is beside the row.
        let marked = mark != Mark::None && (self.color != ColorDepth::None || cell_width > 1);
        let plain = cell_width - usize::from(marked);
        line.extend(std::iter::repeat_n(fill, plain));
        if marked {
            line.push(mark.glyph());
        }
    }

    /// The character and the colours of a value.
    pub fn look(&self, value: u64) -> (char, Style) {
        self.look_of(self.level(value))
    }

    /// The same for a step of the legend, below [`RAMP_CELLS`].
    pub fn step(&self, step: usize) -> (char, Style) {
        self.look_of(step * self.levels() / (RAMP_CELLS - 1))
    }

    fn look_of(&self, level: usize) -> (char, Style) {
        let ink = if level * 2 > self.levels() { Color::Black } else { Color::White };
        match self.color {
            ColorDepth::None => (DENSITY[level], Style::new()),
            _ if level == 0 => (' ', Style::new()),
            ColorDepth::Ansi256 => (' ', Style::new().fg(ink).bg(Color::Indexed(ANSI[level - 1]))),
            ColorDepth::Truecolor => {
                let [r, g, b] = blend(level as f64 / TRUECOLOR_LEVELS as f64);
                (' ', Style::new().fg(ink).bg(Color::Rgb(r, g, b)))
            }
        }
    }

    /// The escape sequence from one level to another.
    fn switch(&self, line: &mut String, level: usize) {
        if level == 0 {
            line.push_str(RESET);
            return;
        }
        // Dark text on light cells and light text on dark ones, for the marks.
        let ink = if level * 2 > self.levels() { 30 } else { 97 };
        let written = match self.color {
            ColorDepth::None => Ok(()),
            ColorDepth::Ansi256 => write!(line, "\x1b[{ink};48;5;{}m", ANSI[level - 1]),
            ColorDepth::Truecolor => {
                let [r, g, b] = blend(level as f64 / TRUECOLOR_LEVELS as f64);
                write!(line, "\x1b[{ink};48;2;{r};{g};{b}m")
            }
        };
        written.expect("writing to a string does not fail");
    }

    /// The scale from 0 to most, [`RAMP_CELLS`] wide.
    pub fn ramp(&self) -> String {
        let mut line = String::new();
        for step in 0..RAMP_CELLS {
            let level = step * self.levels() / (RAMP_CELLS - 1);
            if self.color != ColorDepth::None {
                self.switch(&mut line, level);
            }
            self.cell(&mut line, Mark::None, level, 1);
        }
        if self.color != ColorDepth::None {
            line.push_str(RESET);
        }
        line
    }
}

/// A colour between the stops; `at` from 0 to 1.
fn blend(at: f64) -> [u8; 3] {
    let place = at.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let below = (place as usize).min(STOPS.len() - 2);
    let share = place - below as f64;
    let channel = |index: usize| {
        let (low, high) = (f64::from(STOPS[below][index]), f64::from(STOPS[below + 1][index]));
        (low + (high - low) * share).round() as u8
    };
    [channel(0), channel(1), channel(2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_happened_is_visible_and_more_is_never_paler() {
        for color in [ColorDepth::None, ColorDepth::Ansi256, ColorDepth::Truecolor] {
            let palette = Palette::new(color, 1_000_000);
            assert_eq!(palette.level(0), 0);
            assert_eq!(palette.level(1_000_000), palette.levels());
            assert_eq!(palette.level(u64::MAX), palette.levels());
            let levels: Vec<_> = (0..20).map(|power| palette.level(1 << power)).collect();
            assert!(levels.is_sorted() && levels[0] >= 1, "{levels:?}");
        }
        assert_eq!(Palette::new(ColorDepth::None, 1).level(1), DENSITY.len() - 1);
        assert_eq!(Palette::new(ColorDepth::None, u64::MAX).level(u64::MAX), DENSITY.len() - 1);
    }

    #[test]
    fn colours_end_where_the_cells_end() {
        let cells = [0, 5, 5, 0, 9].map(|value| Cell { value, mark: Mark::None });
        let mut line = String::new();
        Palette::new(ColorDepth::Ansi256, 9).paint(&mut line, &cells, 2);
        assert_eq!(line, "  \x1b[30;48;5;215m    \x1b[0m  \x1b[30;48;5;229m  \x1b[0m");
    }
}
