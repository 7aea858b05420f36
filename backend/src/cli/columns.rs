//! Text in columns: words to the left, numbers to the right.

use std::fmt::Write;

use crate::escape::escape_control_characters;

/// Rows of cells under headings, aligned.
pub(super) struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// Without a row yet. The first column has words, the others have numbers.
    pub(super) fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned).to_vec()],
        }
    }

    /// Adds a row. Cells may hold a stranger's text: it is made safe to print.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let cells = cells.iter().map(|cell| escape_control_characters(cell));
        self.rows
            .push(cells.map(|cell| cell.into_owned()).collect());
    }

    /// The whole as text, each line after `indent` blanks and with a newline.
    pub(super) fn render(&self, indent: usize) -> String {
        let mut widths = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let _ = write!(text, "{:indent$}", "");
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match index {
                    0 => write!(text, "{cell:width$}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_to_the_left_and_numbers_to_the_right() {
        let mut columns = Columns::new(["what", "n"]);
        columns.row(["a".to_owned(), "1000".to_owned()]);
        columns.row(["\x1b".to_owned(), "1".to_owned()]);
        assert_eq!(
            columns.render(1),
            " what       n\n a       1000\n \\u{1b}     1\n"
        );
    }
}
