//! Reads tables of texts, Parquet and Arrow (files and streams), as lines of JSON: one object per row with the text and its labels.
//!
//! Whatever holds of JSONL then holds of tables: a row is a line, an absent text is `null`, labels are `task` and `difficulty`.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_cast::cast;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{DataType, Field, Fields, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value, json};

use super::table_kind::TableKind;
use crate::error::{Error, Problem};
use crate::hash::HashedRead;

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 1024;

/// Names that an error lists.
const NAMES_MAX: usize = 8;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, String>> + Send>;

/// The rows of a table as lines of JSON.
pub(super) struct TableRows {
    kind: TableKind,
    file: File,
    field: String,
    batches: Batches,
    /// The lines of the batch that is being read.
    lines: Cursor<Vec<u8>>,
    /// Rows of the batches before it and of it.
    rows: u64,
    /// Hash and bytes of the file, once all rows are read.
    whole: Option<(String, u64)>,
}

impl TableRows {
    /// Opens a table; `field` is the column of texts, or a path through columns of structs.
    ///
    /// # Errors
    /// `Invalid` if it is broken or has no such column of texts.
    pub fn open(path: &Path, file: File, kind: TableKind, field: &str) -> Result<Self, Error> {
        let failed = |e| Error::resource(path, "read", e);
        let mut own = file.try_clone().map_err(failed)?;
        own.seek(SeekFrom::Start(0)).map_err(failed)?;
        let opened = guarded(|| batches(own, kind, field));
        let batches = opened.map_err(|wrong| {
            Error::Invalid(match wrong {
                Wrong::Column { found, expected } => {
                    let problem = Problem::new(path, "", found, expected);
                    problem.advise("name the column of texts with --field")
                }
                Wrong::Broken(cause) => broken(path, kind, "", &cause),
            })
        })?;
        Ok(Self {
            kind,
            file,
            field: field.to_string(),
            batches,
            lines: Cursor::new(Vec::new()),
            rows: 0,
            whole: None,
        })
    }

    pub fn kind(&self) -> TableKind {
        self.kind
    }

    /// Hash and bytes of the file once all rows are read.
    pub fn whole(&self) -> Option<&(String, u64)> {
        self.whole.as_ref()
    }

    /// The error to report when reading fails.
    pub fn error(&self, path: &Path, error: io::Error) -> Error {
        match error.raw_os_error() {
            Some(_) => Error::resource(path, "read", error),
            None => {
                let place = format!("behind row {}", self.rows);
                Error::Invalid(broken(path, self.kind, &place, &error.to_string()))
            }
        }
    }

    /// Decodes the next rows; `false` at the end.
    fn decode(&mut self) -> io::Result<bool> {
        let batches = &mut self.batches;
        let batch = guarded(|| batches.next().transpose().map_err(Wrong::Broken));
        let batch = batch.map_err(|wrong| io::Error::other(wrong.cause()))?;
        let Some(batch) = batch else {
            if self.whole.is_none() {
                self.file.seek(SeekFrom::Start(0))?;
                let mut hashed = HashedRead::new(&self.file);
                io::copy(&mut hashed, &mut io::sink())?;
                self.whole = Some((hashed.sha256(), hashed.bytes_read()));
            }
            return Ok(false);
        };
        let lines = guarded(|| lines(&batch, &self.field));
        self.lines = Cursor::new(lines.map_err(|wrong| io::Error::other(wrong.cause()))?);
        self.rows += batch.num_rows() as u64;
        Ok(true)
    }
}

impl Read for TableRows {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.lines.read(buffer)?;
            if n > 0 || buffer.is_empty() || !self.decode()? {
                return Ok(n);
            }
        }
    }
}

/// What keeps a table from being read.
enum Wrong {
    Column { found: String, expected: String },
    Broken(String),
}

impl Wrong {
    fn cause(self) -> String {
        match self {
            Self::Column { found, .. } => found,
            Self::Broken(cause) => cause,
        }
    }
}

/// The libraries stop with a panic at some broken files; here that is one more way to be broken.
fn guarded<T>(act: impl FnOnce() -> Result<T, Wrong>) -> Result<T, Wrong> {
    let unfinished = |_| Err(Wrong::Broken("the library gave up".to_string()));
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(unfinished)
}

fn broken(path: &Path, kind: TableKind, place: &str, cause: &str) -> Problem {
    let cause = cause.split_whitespace().collect::<Vec<_>>().join(" ");
    let found = format!("what cannot be read ({cause})");
    let problem = Problem::new(
        path,
        place,
        found,
        format!("{} file that is whole", kind.name()),
    );
    problem.advise("get the file again")
}

/// Opens the columns that are used, and no others.
fn batches(file: File, kind: TableKind, field: &str) -> Result<Batches, Wrong> {
    fn text(cause: impl ToString) -> Wrong {
        Wrong::Broken(cause.to_string())
    }
    Ok(match kind {
        TableKind::Parquet => {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(text)?;
            let columns = used(builder.schema(), field)?;
            let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
            let builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
            let batches = builder.build().map_err(text)?;
            Box::new(batches.map(|batch| batch.map_err(|e| e.to_string())))
        }
        TableKind::ArrowFile => {
            let whole = FileReader::try_new(&file, None).map_err(text)?;
            let columns = used(&whole.schema(), field)?;
            drop(whole);
            (&file).seek(SeekFrom::Start(0)).map_err(text)?;
            let batches = FileReader::try_new(file, Some(columns)).map_err(text)?;
            Box::new(batches.map(|batch| batch.map_err(|e| e.to_string())))
        }
        TableKind::ArrowStream => {
            let schema = StreamReader::try_new(BufReader::new(&file), None).map_err(text)?;
            let columns = used(&schema.schema(), field)?;
            drop(schema);
            (&file).seek(SeekFrom::Start(0)).map_err(text)?;
            let batches = StreamReader::try_new(BufReader::new(file), Some(columns));
            let batches = batches.map_err(text)?;
            Box::new(batches.map(|batch| batch.map_err(|e| e.to_string())))
        }
    })
}

/// The columns of the text and of its labels.
fn used(schema: &Schema, field: &str) -> Result<Vec<usize>, Wrong> {
    let kind = type_at(schema.fields(), field);
    let names: Vec<String> = schema
        .fields()
        .iter()
        .map(|one| format!("{:?}", one.name()))
        .collect();
    let expected = format!("a column {field:?} of texts");
    match kind {
        Some(kind) if is_text(&kind) => {}
        Some(kind) => {
            let found = format!("{kind} in column {field:?}");
            return Err(Wrong::Column { found, expected });
        }
        None => {
            let more = names.len().saturating_sub(NAMES_MAX);
            let mut found = format!("the columns {}", names[..names.len() - more].join(", "));
            if more > 0 {
                found += &format!(" and {more} more");
            }
            return Err(Wrong::Column { found, expected });
        }
    }
    let is_used = |one: &Field| {
        let name = one.name();
        let holds_text = field.strip_prefix(name.as_str());
        let holds_text = holds_text.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        holds_text || ["task", "difficulty"].contains(&name.as_str())
    };
    let columns = schema.fields().iter().enumerate();
    Ok(columns
        .filter(|(_, one)| is_used(one))
        .map(|(index, _)| index)
        .collect())
}

/// The type of a column, or of what lies at a path through structs.
fn type_at(fields: &Fields, path: &str) -> Option<DataType> {
    let (below, name) = split(path, |name| {
        fields.iter().position(|one| one.name() == name)
    })?;
    match (below, fields[name].data_type()) {
        (None, kind) => Some(kind.clone()),
        (Some(path), DataType::Struct(fields)) => type_at(fields, path),
        (Some(_), _) => None,
    }
}

/// The first name of a path that is there, and what is left of the path: the whole of it before its parts.
fn split<T>(path: &str, find: impl Fn(&str) -> Option<T>) -> Option<(Option<&str>, T)> {
    let whole = find(path).map(|found| (None, found));
    whole.or_else(|| {
        let mut dots = path.match_indices('.');
        dots.find_map(|(at, _)| Some((Some(&path[at + 1..]), find(&path[..at])?)))
    })
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// A line of JSON for every row.
fn lines(batch: &RecordBatch, field: &str) -> Result<Vec<u8>, Wrong> {
    let columns = StructArray::from(batch.clone());
    let mut structs = Vec::new();
    let texts = column(&columns, field, &mut structs);
    let texts = texts.ok_or_else(|| Wrong::Broken(format!("no {field:?}")))?;
    let mut texts = json(texts)?;
    for (row, text) in texts.iter_mut().enumerate() {
        if structs.iter().any(|one| one.is_null(row)) {
            *text = Value::Null;
        }
    }
    let mut values = vec![(field, texts)];
    for label in ["task", "difficulty"] {
        if let Some(column) = columns.column_by_name(label).filter(|_| label != field) {
            values.push((label, json(column)?));
        }
    }
    let mut lines = Vec::new();
    for row in 0..batch.num_rows() {
        let mut object = Map::new();
        for (name, values) in &values {
            object.insert(name.to_string(), values[row].clone());
        }
        lines.extend(Value::Object(object).to_string().into_bytes());
        lines.push(b'\n');
    }
    Ok(lines)
}

/// What lies at a path, and the structs on the way: a row in which one of them is absent has nothing there.
fn column<'a>(
    columns: &'a StructArray,
    path: &str,
    structs: &mut Vec<&'a StructArray>,
) -> Option<&'a ArrayRef> {
    let (below, found) = split(path, |name| columns.column_by_name(name))?;
    let Some(path) = below else {
        return Some(found);
    };
    let inner = found.as_struct_opt()?;
    structs.push(inner);
    column(inner, path, structs)
}

/// The values of a column: texts and whole numbers as such, of other types what no label is.
fn json(column: &ArrayRef) -> Result<Vec<Value>, Wrong> {
    let wrong = |e: arrow_schema::ArrowError| Wrong::Broken(e.to_string());
    let kind = column.data_type();
    let rows = 0..column.len();
    if is_text(kind) {
        let texts = cast(column, &DataType::LargeUtf8).map_err(wrong)?;
        let texts = texts.as_string::<i64>();
        return Ok(texts.iter().map(|text| json!(text)).collect());
    }
    if kind.is_integer() {
        let numbers = cast(column, &DataType::Int64).map_err(wrong)?;
        let numbers = numbers.as_primitive::<Int64Type>();
        return Ok(numbers.iter().map(|number| json!(number)).collect());
    }
    Ok(rows
        .map(|row| {
            if column.is_null(row) {
                Value::Null
            } else {
                json!([])
            }
        })
        .collect())
}

#[cfg(test)]
mod tests;
