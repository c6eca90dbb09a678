//! The order of parts in a file: a start, sections with their rows, an end with their number.

use bytes::Bytes;

use super::Part;

/// Checks the order of the parts of one file.
#[derive(Debug, Default)]
pub(super) struct Order {
    started: bool,
    ended: bool,
    section: Option<Section>,
    sections: u64,
    rows: u64,
}

#[derive(Debug, Default)]
struct Section {
    rows: u64,
    last_key: Option<Bytes>,
}

impl Order {
    /// Whether the last part was the end.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Accepts the next part, or returns why it cannot be the next.
    pub(super) fn take(&mut self, part: &Part) -> Result<(), &'static str> {
        if self.ended {
            return Err("something follows the end");
        }
        match (part, &mut self.section) {
            (Part::Start(_), _) if !self.started => self.started = true,
            _ if !self.started => return Err("it does not begin with a start"),
            (Part::Start(_), _) => return Err("a second start"),
            (Part::Group(_) | Part::History(_), section @ None) => {
                *section = Some(Section::default());
            }
            (Part::Group(_) | Part::History(_) | Part::End(_), Some(_)) => {
                return Err("a section without its end");
            }
            (Part::Rows(rows), Some(section)) => {
                for row in &rows.rows {
                    if section.last_key.as_ref().is_some_and(|last| *last >= row.key) {
                        return Err("rows that do not ascend");
                    }
                    section.last_key = Some(row.key.clone());
                }
                section.rows += rows.rows.len() as u64;
            }
            (Part::SectionEnd(end), section @ Some(_)) => {
                let rows = section.take().map_or(0, |section| section.rows);
                if end.rows != rows {
                    return Err("a section with another number of rows than it says");
                }
                self.sections += 1;
                self.rows += rows;
            }
            (Part::Rows(_) | Part::SectionEnd(_), None) => return Err("rows outside a section"),
            (Part::End(end), None) => {
                if (end.sections, end.rows) != (self.sections, self.rows) {
                    return Err("another number of sections or rows than it says");
                }
                self.ended = true;
            }
        }
        Ok(())
    }
}
