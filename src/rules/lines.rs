//! Where something stands in a text, asked many times of one text.

use std::{cell::Cell, iter};

use super::Location;

/// A text by its lines, which finds out where something stands in it.
pub(super) struct Lines<'a> {
    text: &'a str,
    /// Where each begins.
    starts: Vec<usize>,
    /// What was found last. A condition may name thousands of metrics in one line: counting the columns of each from the
    /// line's start would take the square of its length.
    last: Cell<(usize, Location)>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let starts = iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts, last: Cell::new((0, Location { line: 1, column: 1 })) }
    }

    /// Where the byte at `offset` stands.
    pub(super) fn location(&self, offset: usize) -> Location {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.starts.partition_point(|start| *start <= offset);
        let (mut from, mut column) = (self.starts[line - 1], 1);
        let (last_offset, last) = self.last.get();
        if last.line == line && last_offset <= offset {
            (from, column) = (last_offset, last.column);
        }
        let location = Location { line, column: column + self.text[from..offset].chars().count() };
        self.last.set((offset, location));
        location
    }
}
