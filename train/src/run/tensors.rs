//! `HostTensor`: f32 or bf16 tensors on the host; written as shards of safetensors files that PyTorch users can open, read and
//! joined again, and checked for numbers that are not finite.
//!
//! The bytes depend on the names, shapes and values only: tensors lie in name order, the header has one metadata
//! key, and little-endian numbers follow without gaps. So equal weights are equal files.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use half::bf16;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::checkpoint::{FileRecord, TensorRecord};
use super::disk::{Disk, HashedFile};
use super::elsewhere::{Elsewhere, Joined, OnDisk};
use crate::error::{Error, Problem};
use crate::file::open_regular;
use crate::keys::require_distinct_tensors;

/// A shard holds at most this many bytes of values, unless one tensor alone is larger.
const SHARD_BYTES: usize = 1 << 30;
/// Values are converted in pieces, so that saving needs no second copy of the model.
const PIECE_VALUES: usize = 1 << 18;

/// A tensor in the memory of the host. Clones share the values: a checkpoint of a large table takes no copy of it.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// The lengths of its dimensions; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its values in row-major order.
    pub values: Arc<Values>,
}

/// Values in their stored type.
#[derive(Clone, Debug)]
pub enum Values {
    /// 4 bytes each.
    F32(Vec<f32>),
    /// 2 bytes each.
    Bf16(Vec<bf16>),
    /// Numbers that are read when they are needed: of a table whose rows the ranks of a job share out.
    Elsewhere(Arc<dyn Elsewhere>),
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => a == b,
            (Self::Bf16(a), Self::Bf16(b)) => a == b,
            (Self::Elsewhere(a), Self::Elsewhere(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Values {
    /// No numbers yet, with room for so many of f32 or bf16.
    pub fn with_room(dtype: Dtype, n: usize) -> Self {
        match dtype {
            Dtype::BF16 => Self::Bf16(Vec::with_capacity(n)),
            _ => Self::F32(Vec::with_capacity(n)),
        }
    }

    /// Little-endian numbers of a type, f32 or bf16.
    pub fn of_bytes(dtype: Dtype, bytes: &[u8]) -> Self {
        match dtype {
            Dtype::BF16 => {
                let (values, _) = bytes.as_chunks::<2>();
                Self::Bf16(values.iter().map(|b| bf16::from_le_bytes(*b)).collect())
            }
            _ => {
                let (values, _) = bytes.as_chunks::<4>();
                Self::F32(values.iter().map(|b| f32::from_le_bytes(*b)).collect())
            }
        }
    }

    /// Adds numbers in memory of the same type.
    ///
    /// # Panics
    /// If they are of another type.
    pub fn extend(&mut self, more: &Self) {
        match (self, more) {
            (Self::F32(all), Self::F32(more)) => all.extend_from_slice(more),
            (Self::Bf16(all), Self::Bf16(more)) => all.extend_from_slice(more),
            _ => panic!("numbers of another type"),
        }
    }

    fn all(&self) -> Numbers<'_> {
        match self {
            Self::F32(values) => Numbers::F32(values),
            Self::Bf16(values) => Numbers::Bf16(values),
            Self::Elsewhere(values) => Numbers::Elsewhere(values.as_ref(), 0, values.len()),
        }
    }
}

/// Tensors by name, in name order.
pub type TensorMap = BTreeMap<String, HostTensor>;

impl HostTensor {
    /// A tensor from its shape and its values in row-major order.
    ///
    /// # Panics
    /// If the shape does not hold that many values.
    pub fn new(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self::of(shape, Values::F32(values))
    }

    /// The same, with values of any stored type.
    ///
    /// # Panics
    /// If the shape does not hold that many values.
    pub fn of(shape: Vec<usize>, values: Values) -> Self {
        let expected: usize = shape.iter().product();
        let found = values.all().len();
        assert_eq!(found, expected, "values for the shape {shape:?}");
        Self {
            shape,
            values: Arc::new(values),
        }
    }

    /// The values as f32.
    ///
    /// # Panics
    /// If they lie elsewhere: of these only the rows that a rank holds are read.
    pub fn floats(&self) -> Cow<'_, [f32]> {
        match &*self.values {
            Values::F32(values) => Cow::Borrowed(values),
            Values::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
            Values::Elsewhere(_) => panic!("{READ_IN_PIECES}"),
        }
    }

    /// The values as f32, copied only if they are shared or stored as another type.
    ///
    /// # Panics
    /// If they lie elsewhere.
    pub fn into_values(self) -> Vec<f32> {
        match Arc::unwrap_or_clone(self.values) {
            Values::F32(values) => values,
            Values::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
            Values::Elsewhere(_) => panic!("{READ_IN_PIECES}"),
        }
    }

    /// Shows all values, as they lie in memory or in pieces, each with the place of its first one.
    ///
    /// # Errors
    /// The first of `each`, or where values lie that cannot be read.
    pub fn in_pieces(
        &self,
        each: &mut dyn FnMut(usize, &Values) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let Values::Elsewhere(elsewhere) = &*self.values else {
            return each(0, &self.values);
        };
        let n = elsewhere.len();
        let mut starts = (0..n).step_by(PIECE_VALUES);
        starts.try_for_each(|start| {
            let piece = elsewhere.read(start..(start + PIECE_VALUES).min(n))?;
            each(start, &piece)
        })
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.values.all().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their stored type.
    pub fn dtype(&self) -> Dtype {
        self.values.all().dtype()
    }

    fn bytes(&self) -> usize {
        self.values.all().bytes()
    }
}

const READ_IN_PIECES: &str = "a table in shards is read in pieces";

/// Some numbers of a tensor.
#[derive(Clone, Copy)]
enum Numbers<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    /// From a place, so many.
    Elsewhere(&'a dyn Elsewhere, usize, usize),
}

impl<'a> Numbers<'a> {
    fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Elsewhere(_, _, n) => n,
        }
    }

    fn bytes(self) -> usize {
        self.len() * self.dtype().bitsize() / 8
    }

    fn dtype(self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::Bf16(_) => Dtype::BF16,
            Self::Elsewhere(values, ..) => values.dtype(),
        }
    }

    fn chunks(self, n: usize) -> Vec<Self> {
        match self {
            Self::F32(values) => values.chunks(n).map(Self::F32).collect(),
            Self::Bf16(values) => values.chunks(n).map(Self::Bf16).collect(),
            Self::Elsewhere(values, first, all) => (first..first + all)
                .step_by(n)
                .map(|start| Self::Elsewhere(values, start, n.min(first + all - start)))
                .collect(),
        }
    }

    fn write_to(self, bytes: &mut Vec<u8>) -> Result<(), Problem> {
        match self {
            Self::F32(values) => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::Bf16(values) => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::Elsewhere(values, first, n) => {
                let read = values.read(first..first + n)?;
                read.all().write_to(bytes)?;
            }
        }
        Ok(())
    }
}

/// How many bytes the values of all tensors take.
pub fn value_bytes(tensors: &TensorMap) -> u64 {
    tensors.values().map(|tensor| tensor.bytes() as u64).sum()
}

/// Reads one safetensors file that no manifest vouches for.
///
/// # Errors
/// `Invalid` if it is absent or not a safetensors file of f32 or bf16 values, `Resource` if it cannot be read.
pub fn read_tensors(file: &Path) -> Result<TensorMap, Error> {
    let opened = open_regular(file, "a safetensors file")?;
    parse(file, &opened, &|_| false).map_err(Error::Invalid)
}

fn require_float(file: &Path, name: &str, dtype: Dtype) -> Result<(), Problem> {
    match dtype {
        Dtype::F32 | Dtype::BF16 => Ok(()),
        other => {
            let (place, found) = (format!("tensor {name}"), format!("dtype {other:?}"));
            Err(Problem::new(file, place, found, "dtype F32 or BF16"))
        }
    }
}

/// The tensors of a safetensors file, read one after the other, those named by `stays` left on the disk.
///
/// # Errors
/// If it is not a safetensors file of f32 or bf16 values.
pub fn parse(path: &Path, file: &File, stays: &dyn Fn(&str) -> bool) -> Result<TensorMap, Problem> {
    let wrong = |found: String| Problem::new(path, "", found, "a safetensors file");
    let unreadable = |error: std::io::Error| wrong(error.to_string());
    let bytes = file.metadata().map_err(unreadable)?.len();
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0).map_err(unreadable)?;
    let begin = u64::from_le_bytes(length).saturating_add(8);
    if begin > bytes {
        return Err(wrong(format!("a header that ends at byte {begin}")));
    }
    let mut header = vec![0; begin as usize];
    file.read_exact_at(&mut header, 0).map_err(unreadable)?;
    let metadata: Metadata =
        serde_json::from_slice(&header[8..]).map_err(|error| wrong(error.to_string()))?;
    require_distinct_tensors(path, &header)?;
    if begin + metadata.data_len() as u64 != bytes {
        let found = format!("{} bytes of values", bytes - begin);
        return Err(wrong(format!(
            "{found} where {} are named",
            metadata.data_len()
        )));
    }
    let mut tensors = TensorMap::new();
    for (name, info) in metadata.tensors() {
        require_float(path, &name, info.dtype)?;
        let on_disk = OnDisk {
            path: path.to_path_buf(),
            offset: begin + info.data_offsets.0 as u64,
            n: info.shape.iter().product(),
            dtype: info.dtype,
        };
        let values = match stays(&name) {
            true => Values::Elsewhere(Arc::new(on_disk)),
            false => on_disk.read_of(file, 0..on_disk.n)?,
        };
        let shape = info.shape.clone();
        tensors.insert(name, HostTensor::of(shape, values));
    }
    Ok(tensors)
}

/// Checks that all weights and moments from a file are finite.
///
/// # Errors
/// The first tensor with an infinity or a NaN, how many, and the place of the first one.
pub fn require_finite(tensors: &TensorMap, file: &Path) -> Result<(), Problem> {
    for (name, tensor) in tensors {
        let mut count = 0;
        let mut first: Option<(usize, f32)> = None;
        tensor.in_pieces(&mut |start, values| {
            // Counted first, without a branch: almost always there is nothing to look for.
            let (more, index, value) = match values {
                Values::F32(values) => not_finite(values, |value| value),
                Values::Bf16(values) => not_finite(values, bf16::to_f32),
                Values::Elsewhere(_) => unreachable!("pieces lie in memory"),
            };
            count += more;
            first = first.or((more > 0).then_some((start + index, value)));
            Ok(())
        })?;
        if let Some((index, value)) = first {
            let n = tensor.len();
            let found = format!(
                "{count} of {n} values that are not finite, the first, {value}, at index {index}"
            );
            let place = format!("tensor {name}");
            return Err(Problem::new(file, place, found, "finite numbers"));
        }
    }
    Ok(())
}

/// How many numbers are not finite; the place of the first one, and itself.
fn not_finite<T: Copy>(values: &[T], widened: impl Fn(T) -> f32) -> (usize, usize, f32) {
    let is_not = |value: &T| !widened(*value).is_finite();
    let count = values.iter().map(|value| usize::from(is_not(value))).sum();
    match count {
        0 => (0, 0, 0.0),
        count => {
            let first = values.iter().position(is_not).expect("it was counted");
            (count, first, widened(values[first]))
        }
    }
}

/// Writes the tensors as `stem-00001-of-0000N.safetensors`; returns the manifest's record of each file.
///
/// A tensor larger than a shard is cut by its first dimension into parts `NAME@1-of-N`; [`join`] puts them together.
pub fn write_shards(
    disk: &dyn Disk,
    directory: &Path,
    stem: &str,
    tensors: &TensorMap,
) -> Result<BTreeMap<String, FileRecord>, Error> {
    let shards = split(tensors, SHARD_BYTES);
    let count = shards.len();
    let write = |(number, shard)| {
        let name = format!("{stem}-{number:05}-of-{count:05}.safetensors");
        let record = write_shard(disk, &directory.join(&name), shard)?;
        Ok((name, record))
    };
    (1..).zip(&shards).map(write).collect()
}

/// A tensor, or some of its rows, on the way to a file.
struct Part<'a> {
    name: String,
    shape: Vec<usize>,
    values: Numbers<'a>,
}

type Shard<'a> = Vec<Part<'a>>;

/// The parts of a tensor, each within the limit as far as whole rows allow it.
fn parts<'a>(name: &str, tensor: &'a HostTensor, limit_bytes: usize) -> Vec<Part<'a>> {
    let rows = tensor.shape.first().copied().unwrap_or(1).max(1);
    let row_len = tensor.len() / rows;
    let rows_at_once = (limit_bytes / (tensor.bytes() / rows).max(1)).max(1);
    if tensor.bytes() <= limit_bytes || rows_at_once >= rows {
        return vec![Part {
            name: name.to_string(),
            shape: tensor.shape.clone(),
            values: tensor.values.all(),
        }];
    }
    let count = rows.div_ceil(rows_at_once);
    let part = |(index, values): (usize, Numbers<'a>)| {
        let mut shape = tensor.shape.clone();
        shape[0] = values.len() / row_len;
        Part {
            name: format!("{name}@{:05}-of-{count:05}", index + 1),
            shape,
            values,
        }
    };
    let pieces = tensor.values.all().chunks(rows_at_once * row_len);
    pieces.into_iter().enumerate().map(part).collect()
}

/// Joins the parts of tensors again; each part is freed as soon as it is copied.
///
/// # Errors
/// A problem if a part is missing or the parts are not those of one tensor.
pub fn join(directory: &Path, tensors: TensorMap) -> Result<TensorMap, Problem> {
    let mut whole = TensorMap::new();
    let mut parts: BTreeMap<String, Vec<(String, HostTensor)>> = BTreeMap::new();
    for (name, tensor) in tensors {
        match name.split_once('@') {
            Some((of, which)) => {
                let list = parts.entry(of.to_string()).or_default();
                list.push((which.to_string(), tensor));
            }
            None => drop(whole.insert(name, tensor)),
        }
    }
    for (name, parts) in parts {
        let count = parts.len();
        let wrong = |found: String| {
            let expected = format!("its {count} parts, complete");
            Problem::new(directory, format!("tensor {name}"), found, expected)
        };
        if whole.contains_key(&name) {
            return Err(wrong("the tensor whole as well".to_string()));
        }
        if let Some((which, _)) = parts.iter().find(|(_, part)| part.shape.is_empty()) {
            return Err(wrong(format!("part {which} without rows")));
        }
        let mut shape = parts[0].1.shape.clone();
        let rows = parts.iter().map(|(_, part)| part.shape[0]);
        shape[0] = rows.fold(0, usize::saturating_add);
        let n = parts.iter().map(|(_, part)| part.len()).sum();
        let mut values = match &*parts[0].1.values {
            Values::F32(_) => Values::F32(Vec::with_capacity(n)),
            Values::Bf16(_) => Values::Bf16(Vec::with_capacity(n)),
            Values::Elsewhere(_) => Values::with_room(parts[0].1.dtype(), 0),
        };
        let mut elsewhere: Vec<Arc<dyn Elsewhere>> = Vec::new();
        for (index, (which, part)) in parts.into_iter().enumerate() {
            if which != format!("{:05}-of-{count:05}", index + 1) || part.shape[1..] != shape[1..] {
                return Err(wrong(format!("part {which} of shape {:?}", part.shape)));
            }
            match (&mut values, &*part.values) {
                (Values::F32(all), Values::F32(part)) => all.extend_from_slice(part),
                (Values::Bf16(all), Values::Bf16(part)) => all.extend_from_slice(part),
                (all, Values::Elsewhere(part)) if all.all().dtype() == part.dtype() => {
                    elsewhere.push(part.clone());
                }
                _ => return Err(wrong(format!("part {which} of another dtype"))),
            }
        }
        let expected: Option<usize> = shape
            .iter()
            .try_fold(1usize, |n, &size| n.checked_mul(size));
        if expected != Some(n) {
            return Err(wrong(format!("{n} values for {shape:?}")));
        }
        if !elsewhere.is_empty() {
            values = Values::Elsewhere(Arc::new(Joined(elsewhere)));
        }
        whole.insert(name, HostTensor::of(shape, values));
    }
    Ok(whole)
}

fn split(tensors: &TensorMap, limit_bytes: usize) -> Vec<Shard<'_>> {
    // No tensors make one empty shard, so that a reader always finds the file.
    let mut shards = vec![Shard::new()];
    let mut bytes = 0;
    let tensors = tensors.iter();
    for part in tensors.flat_map(|(name, tensor)| parts(name, tensor, limit_bytes)) {
        if bytes > 0 && bytes + part.values.bytes() > limit_bytes {
            shards.push(Shard::new());
            bytes = 0;
        }
        bytes += part.values.bytes();
        let shard = shards.last_mut().expect("there is a first shard");
        shard.push(part);
    }
    shards
}

fn write_shard(disk: &dyn Disk, path: &Path, shard: &Shard<'_>) -> Result<FileRecord, Error> {
    let mut file = HashedFile::create(disk, path.to_path_buf())?;
    file.write(&header(shard))?;
    let mut piece = Vec::with_capacity(PIECE_VALUES * size_of::<f32>());
    for part in shard {
        for values in part.values.chunks(PIECE_VALUES) {
            piece.clear();
            values.write_to(&mut piece).map_err(Error::Invalid)?;
            file.write(&piece)?;
        }
    }
    let (bytes, sha256) = file.finish()?;
    let tensors = shard.iter().map(|part| {
        let record = TensorRecord::new(part.values.dtype(), &part.shape);
        (part.name.clone(), record)
    });
    Ok(FileRecord {
        bytes,
        sha256,
        tensors: tensors.collect(),
    })
}

fn header(shard: &Shard<'_>) -> Vec<u8> {
    let mut start = 0;
    let describe = |part: &Part<'_>| {
        let end = start + part.values.bytes();
        let info = TensorInfo {
            dtype: part.values.dtype(),
            shape: part.shape.clone(),
            data_offsets: (start, end),
        };
        start = end;
        (part.name.clone(), info)
    };
    let infos = shard.iter().map(describe).collect();
    // "pt" is the one format that older readers of the Hugging Face libraries accept.
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    let metadata = Metadata::new(Some(format), infos).expect("offsets follow from the shapes");
    let mut text = serde_json::to_vec(&metadata).expect("names and numbers are JSON");
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    header
}

#[cfg(test)]
mod tests {
    use super::super::disk::System;
    use super::*;
    use std::fs;

    fn tensors() -> TensorMap {
        let odd = vec![
            f32::MIN_POSITIVE / 2.0,
            -0.0,
            f32::NAN,
            f32::INFINITY,
            1.0,
            2.5,
        ];
        TensorMap::from([
            (
                "blocks.0.weight".to_string(),
                HostTensor::new(vec![2, 3], odd.clone()),
            ),
            (
                "blocks.1.weight".to_string(),
                HostTensor::of(
                    vec![3, 2],
                    Values::Bf16(odd.into_iter().map(bf16::from_f32).collect()),
                ),
            ),
            ("scale".to_string(), HostTensor::new(vec![], vec![4.0])),
            ("unused".to_string(), HostTensor::new(vec![0, 7], vec![])),
        ])
    }

    fn bits(tensors: &TensorMap) -> Vec<(Vec<usize>, Vec<u32>)> {
        let of = |tensor: &HostTensor| {
            tensor
                .floats()
                .iter()
                .map(|value| value.to_bits())
                .collect()
        };
        tensors
            .values()
            .map(|tensor| (tensor.shape.clone(), of(tensor)))
            .collect()
    }

    #[test]
    fn what_is_written_is_read_to_the_bit_and_written_again_to_the_byte() {
        let place = tempfile::tempdir().unwrap();
        let records = write_shards(&System, place.path(), "model", &tensors()).unwrap();
        let file = place.path().join("model-00001-of-00001.safetensors");
        let read = read_tensors(&file).unwrap();
        assert_eq!(bits(&read), bits(&tensors()));
        let again = tempfile::tempdir().unwrap();
        assert_eq!(
            write_shards(&System, again.path(), "model", &read).unwrap(),
            records
        );
    }

    #[test]
    fn shards_stay_below_the_limit_and_a_larger_tensor_is_cut_by_rows_and_joined() {
        let tensor = |n: usize| HostTensor::new(vec![n], (0..n).map(|i| i as f32).collect());
        let tensors = ["a", "b", "c", "d"].map(str::to_string).into_iter();
        let mut tensors: TensorMap = tensors.zip([2, 2, 9, 1].map(tensor)).collect();
        let halves = (0..18).map(|i| bf16::from_f32(i as f32)).collect();
        tensors.insert(
            "e".to_string(),
            HostTensor::of(vec![9, 2], Values::Bf16(halves)),
        );
        let names = |shard: &Shard<'_>| shard.iter().map(|part| part.name.as_str()).collect();
        let shards: Vec<String> = split(&tensors, 16).iter().map(names).collect();
        let cut = [
            "ab",
            "c@00001-of-00003",
            "c@00002-of-00003",
            "c@00003-of-00003d",
            "e@00001-of-00003",
            "e@00002-of-00003",
            "e@00003-of-00003",
        ];
        assert_eq!(shards, cut);
        assert_eq!(split(&TensorMap::new(), 16).len(), 1);
        let read = |shard: Shard<'_>| {
            let tensor = |part: Part<'_>| {
                let values = match part.values {
                    Numbers::F32(values) => Values::F32(values.to_vec()),
                    Numbers::Bf16(values) => Values::Bf16(values.to_vec()),
                    Numbers::Elsewhere(..) => panic!("all lie in memory"),
                };
                (part.name, HostTensor::of(part.shape, values))
            };
            shard.into_iter().map(tensor).collect::<Vec<_>>()
        };
        let mut all: TensorMap = split(&tensors, 16).into_iter().flat_map(read).collect();
        assert_eq!(join(Path::new("ckpt"), all.clone()).unwrap(), tensors);
        all.remove("c@00002-of-00003");
        assert!(join(Path::new("ckpt"), all).is_err());
    }

    #[test]
    fn another_dtype_is_refused_with_the_tensor_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("model.safetensors");
        let header = br#"{"w":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}         "#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend([0; 4]);
        fs::write(&file, &bytes).unwrap();
        let problem = read_tensors(&file).unwrap_err().to_string();
        let text = "model.safetensors: tensor w: found dtype F16, expected dtype F32 or BF16";
        assert!(problem.ends_with(text), "{problem}");
        fs::write(&file, &bytes[..40]).unwrap();
        assert!(read_tensors(&file).is_err());
    }
}
