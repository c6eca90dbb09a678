//! The cells to draw: those of the matrix, with neighbours added up if they do not fit.

use bytes::Bytes;

use keyviz_proto as proto;

/// The mark of a cell. Of several marks the last in this order is shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Mark {
    /// Nothing: an exact count.
    #[default]
    None,
    /// Apportioned from a coarser range.
    Apportioned,
    /// Counted together with its neighbours: the mean of a block.
    Block,
    /// A contribution is missing.
    Partial,
    /// Two nodes claim one term of one group.
    Conflict,
}

impl Mark {
    /// The character of the mark.
    pub fn glyph(self) -> char {
        match self {
            Mark::None => ' ',
            Mark::Apportioned => '~',
            Mark::Block => '≡',
            Mark::Partial => '?',
            Mark::Conflict => '!',
        }
    }
}

/// One drawn cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    /// Sum of the cells that it stands for.
    pub value: u64,
    /// The strongest mark among them.
    pub mark: Mark,
}

impl Cell {
    fn add(&mut self, other: Cell) {
        self.value = self.value.saturating_add(other.value);
        self.mark = self.mark.max(other.mark);
    }
}

/// One drawn row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// First key.
    pub start: Bytes,
    /// First key after it; `None`: the end of the key space.
    pub end: Option<Bytes>,
    /// Number of further routes of the row.
    pub more_routes: u64,
    /// The sum over all columns of the counts for the row alone.
    pub sum: u64,
    /// One a drawn column.
    pub cells: Vec<Cell>,
}

/// One drawn column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// Start of the first interval.
    pub start_ms: u64,
    /// End of the last interval; never before `start_ms`.
    pub end_ms: u64,
    /// An interval is still open.
    pub open: bool,
}

/// All that is drawn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grid {
    /// In key order.
    pub rows: Vec<Row>,
    /// In time order, never empty.
    pub columns: Vec<Column>,
    /// Most rows of the matrix in one drawn row.
    pub rows_joined: usize,
    /// Most columns of the matrix in one drawn column.
    pub columns_joined: usize,
}

impl Grid {
    /// At most `limit` rows over all columns. Marks beyond the columns are ignored, and missing
    /// values are 0.
    pub fn rows_of(matrix: &proto::Matrix, limit: usize) -> Self {
        let rows_joined = matrix.rows.len().div_ceil(limit.max(1)).max(1);
        let rows = matrix.rows.chunks(rows_joined).map(|rows| join(rows, matrix.columns.len()));
        let mut rows: Vec<Row> = rows.collect();
        for block in matrix.blocks.iter().filter(|block| !block.straddling) {
            add_block(&mut rows, rows_joined, block);
        }
        let columns = matrix.columns.iter().map(|column| Column {
            start_ms: column.start_ms,
            end_ms: column.end_ms.max(column.start_ms),
            open: column.open,
        });
        Grid { rows, columns: columns.collect(), rows_joined, columns_joined: 1 }
    }

    /// As above, with at most `limit` columns.
    pub fn columns_of(self, matrix: &proto::Matrix, limit: usize) -> Self {
        let columns_joined = matrix.columns.len().div_ceil(limit.max(1)).max(1);
        let columns = self.columns.chunks(columns_joined).map(|columns| Column {
            start_ms: columns[0].start_ms,
            end_ms: columns[columns.len() - 1].end_ms.max(columns[0].start_ms),
            open: columns.iter().any(|column| column.open),
        });
        let columns = columns.collect();
        let rows = self
            .rows
            .into_iter()
            .map(|row| Row { cells: row.cells.chunks(columns_joined).map(sum).collect(), ..row });
        Grid { rows: rows.collect(), columns, columns_joined, rows_joined: self.rows_joined }
    }

    /// The largest value of a cell.
    pub fn most(&self) -> u64 {
        self.cells().map(|cell| cell.value).max().unwrap_or(0)
    }

    /// The marks that occur.
    pub fn marks(&self) -> std::collections::BTreeSet<Mark> {
        self.cells().map(|cell| cell.mark).collect()
    }

    /// The strongest mark of each column.
    pub fn column_marks(&self) -> Vec<Mark> {
        let mut marks = vec![Mark::None; self.columns.len()];
        for row in &self.rows {
            for (mark, cell) in marks.iter_mut().zip(&row.cells) {
                *mark = (*mark).max(cell.mark);
            }
        }
        marks
    }

    /// The mark that all cells of a column share; none if there is only one row.
    pub fn shared_marks(&self) -> Vec<Mark> {
        let mark = |at: usize| {
            let mut marks = self.rows.iter().map(|row| row.cells[at].mark);
            let first = marks.next().unwrap_or_default();
            if self.rows.len() > 1 && marks.all(|mark| mark == first) { first } else { Mark::None }
        };
        (0..self.columns.len()).map(mark).collect()
    }

    fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.rows.iter().flat_map(|row| &row.cells)
    }
}

/// Draws a block as its mean a row and column. What lies in one drawn cell is exact there.
fn add_block(rows: &mut [Row], rows_joined: usize, block: &proto::Block) {
    let (first, count) = (block.first_row as usize, block.row_count as usize);
    let run = first / rows_joined..(first + count).div_ceil(rows_joined);
    let columns = block.column as usize..block.column as usize + block.column_count as usize;
    let mark = if run.len() == 1 && columns.len() == 1 { Mark::None } else { Mark::Block };
    let mark = if block.conflict { Mark::Conflict } else { mark };
    let inside = run.len() == 1;
    for at in run {
        let own = (at * rows_joined).max(first)..((at + 1) * rows_joined).min(first + count);
        let value = part(block.value, own.start - first..own.end - first, count);
        let Some(row) = rows.get_mut(at) else { continue };
        if inside {
            row.sum = row.sum.saturating_add(block.value);
        }
        for (index, column) in columns.clone().enumerate() {
            if let Some(cell) = row.cells.get_mut(column) {
                let value = part(value, index..index + 1, columns.len());
                cell.add(Cell { value, mark });
            }
        }
    }
}

/// The part of `value` in a run of `count` equal parts; all parts add up.
fn part(value: u64, run: std::ops::Range<usize>, count: usize) -> u64 {
    let before = |at: usize| u128::from(value) * at as u128 / count.max(1) as u128;
    u64::try_from(before(run.end) - before(run.start)).unwrap_or(u64::MAX)
}

fn sum(cells: &[Cell]) -> Cell {
    let mut all = Cell::default();
    cells.iter().for_each(|cell| all.add(*cell));
    all
}

/// Merges several neighbouring rows.
fn join(rows: &[proto::Row], columns: usize) -> Row {
    let mut cells = vec![Cell::default(); columns];
    for row in rows {
        for (cell, value) in cells.iter_mut().zip(&row.values) {
            cell.add(Cell { value: *value, mark: Mark::None });
        }
        for (flags, mark) in [
            (&row.apportioned, Mark::Apportioned),
            (&row.partial, Mark::Partial),
            (&row.conflict, Mark::Conflict),
        ] {
            for &at in flags {
                if let Some(cell) = cells.get_mut(at as usize) {
                    cell.mark = cell.mark.max(mark);
                }
            }
        }
    }
    let routes = rows.iter().fold(0u64, |sum, row| sum.saturating_add(row.route_count));
    Row {
        start: rows[0].start.clone(),
        end: rows[rows.len() - 1].end.clone(),
        more_routes: routes.saturating_sub(1),
        sum: sum(&cells).value,
        cells,
    }
}
