//! Tables without borders: columns aligned, foreign text escaped, the last column folded where
//! the terminal is narrow.

use comfy_table::{Cell, CellAlignment, ContentArrangement, presets::NOTHING};

use super::escape;

/// A table in the making.
pub(crate) struct Table {
    inner: comfy_table::Table,
    numeric: Vec<bool>,
}

impl Table {
    /// With these column heads. A head that begins with `#` is a column of numbers, set right.
    pub(crate) fn new(heads: &[&str]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(NOTHING);
        let numeric = heads.iter().map(|head| head.starts_with('#')).collect();
        let heads = heads.iter().map(|head| {
            let cell = Cell::new(head.trim_start_matches('#'));
            if head.starts_with('#') { cell.set_alignment(CellAlignment::Right) } else { cell }
        });
        inner.set_header(heads.collect::<Vec<_>>());
        Self { inner, numeric }
    }

    /// Without heads: a name and a value a line.
    pub(crate) fn pairs() -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(NOTHING);
        Self { inner, numeric: Vec::new() }
    }

    pub(crate) fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let cells = cells.into_iter().enumerate().map(|(column, text)| {
            let cell = Cell::new(escape::line(text.as_ref()));
            let numeric = self.numeric.get(column).copied().unwrap_or(false);
            if numeric { cell.set_alignment(CellAlignment::Right) } else { cell }
        });
        let cells: Vec<Cell> = cells.collect();
        self.inner.add_row(cells);
    }

    pub(crate) fn render(mut self, width: Option<u16>) -> Vec<String> {
        if self.inner.is_empty() {
            return Vec::new();
        }
        self.inner.discover_columns();
        for column in self.inner.column_iter_mut() {
            column.set_padding((0, 2));
        }
        match width {
            Some(width) => {
                self.inner.set_content_arrangement(ContentArrangement::Dynamic);
                self.inner.set_width(width);
            }
            None => {
                self.inner.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        self.inner.lines().map(|line| line.trim_end().to_owned()).collect()
    }
}

/// The beginning of a text that fits into so many characters.
pub(crate) fn shorten(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    short.push('…');
    short
}
