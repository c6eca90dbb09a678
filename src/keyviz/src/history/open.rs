//! The column in progress: what was harvested so far, unpacked, so that adding is cheap.

use std::borrow::Borrow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::column::{Column, ColumnId, Part, pack};
use super::slots::{Interner, LayoutAxis};
use crate::hotkeys::column::ColumnHotKeys;
use crate::sampler::counts::{Counts, Harvest, Segment};
use keyviz_types::Incarnation;

/// Layouts whose counts are kept unpacked; with more, as when leaders change all the time, all are
/// packed, so that the column stays small.
const MAX_LAYOUTS: usize = 16;

/// A column in progress. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct OpenColumn {
    incarnation: Incarnation,
    /// What was counted before: by earlier incarnations, and by this one where the column was
    /// reopened or had too many layouts.
    packed: Arc<Column>,
    unattributed: Counts,
    segments: Vec<Arc<Segment>>,
    /// Of the segments; `None` before the first harvest that has any.
    hot_keys: Option<Arc<ColumnHotKeys>>,
    closed: bool,
}

/// The interner of a history. Apart from its columns, so that a query which packs the open column
/// does not hold those.
#[derive(Debug)]
pub(crate) struct AxisInterner(Mutex<Interner>);

impl AxisInterner {
    pub fn new() -> Self {
        AxisInterner(Mutex::new(Interner::new()))
    }

    pub fn lock(&self) -> MutexGuard<'_, Interner> {
        // Whatever a panic left undone, each entry is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands for the hot keys of harvests that have none.
fn unknown(segments: &[impl Borrow<Segment>]) -> ColumnHotKeys {
    let mut total = Counts::ZERO;
    let cells = segments.iter().flat_map(|segment| &segment.borrow().cells);
    cells.for_each(|(_, counts)| total.add(counts));
    ColumnHotKeys::unknown(total.reads, total.writes)
}

impl OpenColumn {
    pub fn new(id: ColumnId, incarnation: Incarnation) -> Self {
        Self::reopen(Column::new(id.start_ms, id.end_ms), incarnation)
    }

    /// Goes on with a column that was closed.
    pub fn reopen(mut column: Column, incarnation: Incarnation) -> Self {
        // The part says that this incarnation was there, even if it will count nothing.
        column.part(incarnation);
        column.set_closed(false);
        OpenColumn {
            incarnation,
            packed: Arc::new(column),
            unattributed: Counts::ZERO,
            segments: Vec::new(),
            hot_keys: None,
            closed: false,
        }
    }

    /// Marks what this incarnation has in the column as partial: it did not count all of the time.
    pub fn miss(&mut self) {
        Arc::make_mut(&mut self.packed).part(self.incarnation).partial = true;
    }

    pub fn id(&self) -> ColumnId {
        self.packed.id()
    }

    /// Ends the column: a checkpoint of it is complete.
    pub fn close(&mut self) {
        self.closed = true;
    }

    pub fn add(&mut self, harvest: Harvest, interner: &AxisInterner) {
        self.take(harvest);
        if self.segments.len() > MAX_LAYOUTS {
            let mut column = self.pack(interner);
            column.join(&mut interner.lock());
            let closed = self.closed;
            *self = OpenColumn { closed, ..Self::reopen(column, self.incarnation) };
        }
    }

    fn take(&mut self, harvest: Harvest) {
        self.unattributed.add(&harvest.unattributed);
        self.hot_keys = match (self.hot_keys.take(), harvest.hot_keys) {
            (Some(mut known), Some(next)) => {
                Arc::make_mut(&mut known).append(&next);
                Some(known)
            }
            (Some(mut known), None) => {
                Arc::make_mut(&mut known).add(&unknown(&harvest.segments));
                Some(known)
            }
            (None, Some(next)) if self.segments.is_empty() => Some(next),
            (None, Some(next)) => {
                let mut known = unknown(&self.segments);
                known.add(&next);
                Some(Arc::new(known))
            }
            (None, None) => None,
        };
        for segment in harvest.segments {
            if segment.cells.is_empty() {
                continue;
            }
            let same = |mine: &&mut Arc<Segment>| Arc::ptr_eq(&mine.layout, &segment.layout);
            match self.segments.iter_mut().find(same) {
                None => self.segments.push(Arc::new(segment)),
                Some(mine) => {
                    let cells = add_cells(&mine.cells, &segment.cells);
                    *mine = Arc::new(Segment { layout: segment.layout, cells });
                }
            }
        }
    }

    /// Adds what other incarnations counted in the same interval.
    pub fn absorb(&mut self, column: &Column) {
        Arc::make_mut(&mut self.packed).absorb(column);
    }

    /// The column as it stands. Packs it without the lock, which is only held to find the axes.
    pub fn pack(&self, interner: &AxisInterner) -> Column {
        self.packed(|segment| interner.lock().layout(&segment.layout))
    }

    /// The column at its end.
    pub fn end(mut self, interner: &mut Interner) -> Column {
        self.close();
        let mut column = self.packed(|segment| interner.layout(&segment.layout));
        column.join(interner);
        column.hot_keys_mut().for_each(ColumnHotKeys::prune_to_matter);
        column
    }

    fn packed(&self, mut layout: impl FnMut(&Segment) -> Arc<LayoutAxis>) -> Column {
        let mut column = Column::clone(&self.packed);
        let part = column.part(self.incarnation);
        part.unattributed.add(&self.unattributed);
        let mut counted = Part::new(self.incarnation);
        counted.hot_keys.clone_from(&self.hot_keys);
        for segment in &self.segments {
            let version = segment.layout.catalog_version;
            part.catalog_version = part.catalog_version.max(version);
            counted.runs.extend(pack(segment, &layout(segment)));
        }
        part.absorb_hot_keys(&counted);
        part.runs.append(&mut counted.runs);
        column.set_closed(self.closed);
        column
    }

    /// The column with what was not harvested yet.
    pub fn peek(mut self, peek: Harvest, interner: &AxisInterner) -> Column {
        self.take(peek);
        self.pack(interner)
    }

    /// Bytes of the cells, about: without layouts, which the sampler holds as well.
    pub fn bytes(&self) -> usize {
        let cells: usize = self.segments.iter().map(|segment| segment.cells.len()).sum();
        self.packed.bytes() + cells * size_of::<(u32, Counts)>()
    }
}

/// The sums of two sorted lists of cells.
fn add_cells(left: &[(u32, Counts)], right: &[(u32, Counts)]) -> Vec<(u32, Counts)> {
    let mut merged = Vec::with_capacity(left.len().max(right.len()));
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(&&(a, mut counts)), Some(&&(b, other))) = (left.peek(), right.peek()) {
        match a.cmp(&b) {
            std::cmp::Ordering::Less => merged.extend(left.next()),
            std::cmp::Ordering::Greater => merged.extend(right.next()),
            std::cmp::Ordering::Equal => {
                counts.add(&other);
                merged.push((a, counts));
                left.next();
                right.next();
            }
        }
    }
    merged.extend(left);
    merged.extend(right);
    merged
}
