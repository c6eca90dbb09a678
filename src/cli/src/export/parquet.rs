//! Rows as Parquet, by the low-level writer of the `parquet` crate: without Arrow, which would be
//! sixty more packages. A group of rows is held in memory, column by column, and written at once.

use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::error::ExportError;
use super::record::Line;
use super::sink::{Output, Sink};

/// Rows of a group.
const GROUP_ROWS: usize = 65_536;

/// The columns, in the order of [`Line`].
const SCHEMA: &str = "
message keyviz {
  OPTIONAL BYTE_ARRAY kind (UTF8);
  OPTIONAL INT64 node (INTEGER(64,false));
  OPTIONAL INT64 group (INTEGER(64,false));
  OPTIONAL INT64 term (INTEGER(64,false));
  OPTIONAL BYTE_ARRAY role (UTF8);
  OPTIONAL INT64 route_id (INTEGER(64,false));
  OPTIONAL BYTE_ARRAY start (UTF8);
  OPTIONAL BYTE_ARRAY end (UTF8);
  OPTIONAL INT64 column_start_ms (INTEGER(64,false));
  OPTIONAL INT64 column_ms (INTEGER(64,false));
  OPTIONAL INT64 reads (INTEGER(64,false));
  OPTIONAL INT64 writes (INTEGER(64,false));
  OPTIONAL INT64 read_bytes (INTEGER(64,false));
  OPTIONAL INT64 write_bytes (INTEGER(64,false));
  OPTIONAL BOOLEAN partial;
  OPTIONAL BOOLEAN conflict;
  OPTIONAL BYTE_ARRAY hot_series (UTF8);
  OPTIONAL BYTE_ARRAY hot_key (UTF8);
  OPTIONAL INT64 hot_lower (INTEGER(64,false));
  OPTIONAL INT64 hot_upper (INTEGER(64,false));
  OPTIONAL INT64 hot_bytes (INTEGER(64,false));
}";

/// A field of a row.
enum Field<'a> {
    Number(Option<u64>),
    Text(Option<&'a str>),
    Flag(bool),
}

/// The values of a column in the group, without those that are absent.
enum Values {
    Numbers(Vec<i64>),
    Texts(Vec<ByteArray>),
    Flags(Vec<bool>),
}

/// A column of the group.
struct Column {
    values: Values,
    /// For each row, 1 if it has a value.
    present: Vec<i16>,
}

/// A file being written.
pub(super) struct Parquet {
    file: SerializedFileWriter<Output>,
    group: Vec<Column>,
}

impl Parquet {
    pub(super) fn new(output: Output) -> Result<Self, ExportError> {
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(failed)?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(format!("keyviz {}", env!("CARGO_PKG_VERSION")))
            .build();
        let file = SerializedFileWriter::new(output, schema, Arc::new(properties));
        Ok(Parquet { file: file.map_err(failed)?, group: Vec::new() })
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        let group = std::mem::take(&mut self.group);
        if group.is_empty() {
            return Ok(());
        }
        let mut rows = self.file.next_row_group()?;
        for Column { values, present } in &group {
            let Some(mut column) = rows.next_column()? else { break };
            let present = Some(&present[..]);
            match (column.untyped(), values) {
                (ColumnWriter::Int64ColumnWriter(column), Values::Numbers(values)) => {
                    column.write_batch(values, present, None)?;
                }
                (ColumnWriter::ByteArrayColumnWriter(column), Values::Texts(values)) => {
                    column.write_batch(values, present, None)?;
                }
                (ColumnWriter::BoolColumnWriter(column), Values::Flags(values)) => {
                    column.write_batch(values, present, None)?;
                }
                _ => return Err(ParquetError::General("a column of another type".to_owned())),
            }
            column.close()?;
        }
        rows.close().map(drop)
    }
}

impl Sink for Parquet {
    fn put(&mut self, line: &Line<'_>) -> Result<(), ExportError> {
        let fields = fields(line);
        if self.group.is_empty() {
            self.group = fields.iter().map(Column::of).collect();
        }
        for (column, field) in self.group.iter_mut().zip(fields) {
            column.push(field);
        }
        if self.group.first().is_some_and(|column| column.present.len() == GROUP_ROWS) {
            self.flush().map_err(failed)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), ExportError> {
        self.flush().map_err(failed)?;
        self.file.close().map(drop).map_err(failed)
    }
}

impl Column {
    fn of(field: &Field<'_>) -> Self {
        let values = match field {
            Field::Number(_) => Values::Numbers(Vec::new()),
            Field::Text(_) => Values::Texts(Vec::new()),
            Field::Flag(_) => Values::Flags(Vec::new()),
        };
        Column { values, present: Vec::new() }
    }

    fn push(&mut self, field: Field<'_>) {
        let present = match (&mut self.values, field) {
            (Values::Numbers(values), Field::Number(Some(number))) => {
                // Unsigned numbers are stored as the signed ones of the same bits.
                values.push(number.cast_signed());
                true
            }
            (Values::Texts(values), Field::Text(Some(text))) => {
                values.push(ByteArray::from(text));
                true
            }
            (Values::Flags(values), Field::Flag(flag)) => {
                values.push(flag);
                true
            }
            _ => false,
        };
        self.present.push(i16::from(present));
    }
}

/// The fields in the order of the schema.
fn fields<'a>(line: &'a Line<'_>) -> [Field<'a>; 21] {
    use Field::{Flag, Number, Text};

    [
        Text(Some(line.kind)),
        Number(line.node),
        Number(line.group),
        Number(line.term),
        Text(line.role),
        Number(line.route_id),
        Text(line.start.as_deref()),
        Text(line.end.as_deref()),
        Number(Some(line.column_start_ms)),
        Number(Some(line.column_ms)),
        Number(line.reads),
        Number(line.writes),
        Number(line.read_bytes),
        Number(line.write_bytes),
        Flag(line.partial),
        Flag(line.conflict),
        Text(line.hot_series),
        Text(line.hot_key.as_deref()),
        Number(line.hot_lower),
        Number(line.hot_upper),
        Number(line.hot_bytes),
    ]
}

/// An error of the output stays what it is.
fn failed(error: ParquetError) -> ExportError {
    match error {
        ParquetError::External(error) => match error.downcast::<std::io::Error>() {
            Ok(error) => ExportError::Output(*error),
            Err(error) => ExportError::Parquet(error.to_string()),
        },
        error => ExportError::Parquet(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Kind, Record};
    use super::*;

    #[test]
    fn the_schema_has_the_fields_of_a_row_in_their_order() {
        let schema = parse_message_type(SCHEMA).expect("it is a schema");
        let names: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
        let record = Record::of_time(Kind::End, 1, 2);
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.serialize(record.line()).expect("a vector takes everything");
        let text = String::from_utf8(csv.into_inner().expect("it is flushed")).expect("text");
        assert_eq!(text.lines().next(), Some(names.join(",").as_str()));
        assert_eq!(fields(&record.line()).len(), names.len());
    }
}
