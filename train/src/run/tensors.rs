//! Tensors on the host, and as safetensors files that PyTorch users can open.
//!
//! The bytes depend on the names, shapes and values only: tensors lie in name order, the header has one metadata
//! key, and little-endian f32 follows without gaps. So equal weights are equal files.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};

use super::checkpoint::{FileRecord, TensorRecord};
use super::disk::{Disk, HashedFile};
use crate::error::{Error, Problem};

/// A shard holds at most this many bytes of values, unless one tensor alone is larger.
const SHARD_BYTES: usize = 1 << 30;
/// Values are converted in pieces, so that saving needs no second copy of the model.
const PIECE_VALUES: usize = 1 << 18;

/// A tensor in the memory of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// The lengths of its dimensions; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its values in row-major order.
    pub values: Vec<f32>,
}

/// Tensors by name, in name order.
pub type TensorMap = BTreeMap<String, HostTensor>;

impl HostTensor {
    /// A tensor from its shape and its values in row-major order.
    ///
    /// # Panics
    /// If the shape does not hold that many values.
    pub fn new(shape: Vec<usize>, values: Vec<f32>) -> Self {
        let expected: usize = shape.iter().product();
        assert_eq!(values.len(), expected, "values for the shape {shape:?}");
        Self { shape, values }
    }

    fn bytes(&self) -> usize {
        self.values.len() * size_of::<f32>()
    }
}

/// How many bytes the values of all tensors take.
pub fn value_bytes(tensors: &TensorMap) -> u64 {
    tensors.values().map(|tensor| tensor.bytes() as u64).sum()
}

/// Reads one safetensors file that no manifest vouches for.
///
/// # Errors
/// `Invalid` if it is absent or not a safetensors file of f32 values, `Resource` if it cannot be read.
pub fn read_tensors(file: &Path) -> Result<TensorMap, Error> {
    let bytes =
        fs::read(file).map_err(|source| Error::unreadable(file, "a safetensors file", source))?;
    parse(file, &bytes).map_err(Error::Invalid)
}

/// The tensors in the bytes of a safetensors file.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<TensorMap, Problem> {
    let content = SafeTensors::deserialize(bytes)
        .map_err(|error| Problem::new(file, "", error.to_string(), "a safetensors file"))?;
    let mut tensors = TensorMap::new();
    for (name, view) in content.iter() {
        if view.dtype() != Dtype::F32 {
            let found = format!("dtype {:?}", view.dtype());
            return Err(Problem::new(
                file,
                format!("tensor {name}"),
                found,
                "dtype F32",
            ));
        }
        let (values, _) = view.data().as_chunks::<4>();
        let values = values
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        tensors.insert(
            name.to_string(),
            HostTensor::new(view.shape().to_vec(), values),
        );
    }
    Ok(tensors)
}

/// Writes the tensors as `stem-00001-of-0000N.safetensors`; returns what the manifest shall say of each file.
pub fn write_shards(
    disk: &dyn Disk,
    directory: &Path,
    stem: &str,
    tensors: &TensorMap,
) -> Result<BTreeMap<String, FileRecord>, Error> {
    let shards = split(tensors, SHARD_BYTES);
    let count = shards.len();
    let mut records = BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        let name = format!("{stem}-{:05}-of-{count:05}.safetensors", index + 1);
        let record = write_shard(disk, &directory.join(&name), shard)?;
        records.insert(name, record);
    }
    Ok(records)
}

type Shard<'a> = Vec<(&'a String, &'a HostTensor)>;

fn split(tensors: &TensorMap, limit_bytes: usize) -> Vec<Shard<'_>> {
    // No tensors make one empty shard, so that a reader always finds the file.
    let mut shards = vec![Shard::new()];
    let mut bytes = 0;
    for (name, tensor) in tensors {
        if bytes > 0 && bytes + tensor.bytes() > limit_bytes {
            shards.push(Shard::new());
            bytes = 0;
        }
        bytes += tensor.bytes();
        let shard = shards.last_mut().expect("there is a first shard");
        shard.push((name, tensor));
    }
    shards
}

fn write_shard(disk: &dyn Disk, path: &Path, shard: &Shard<'_>) -> Result<FileRecord, Error> {
    let mut file = HashedFile::create(disk, path.to_path_buf())?;
    file.write(&header(shard))?;
    let mut piece = Vec::with_capacity(PIECE_VALUES * size_of::<f32>());
    for (_, tensor) in shard {
        for values in tensor.values.chunks(PIECE_VALUES) {
            piece.clear();
            piece.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            file.write(&piece)?;
        }
    }
    let (bytes, sha256) = file.finish()?;
    let tensors = shard
        .iter()
        .map(|(name, tensor)| (name.to_string(), TensorRecord::f32(&tensor.shape)))
        .collect();
    Ok(FileRecord {
        bytes,
        sha256,
        tensors,
    })
}

fn header(shard: &Shard<'_>) -> Vec<u8> {
    let mut start = 0;
    let describe = |(name, tensor): &(&String, &HostTensor)| {
        let end = start + tensor.bytes();
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: tensor.shape.clone(),
            data_offsets: (start, end),
        };
        start = end;
        (name.to_string(), info)
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
                HostTensor::new(vec![2, 3], odd),
            ),
            ("scale".to_string(), HostTensor::new(vec![], vec![4.0])),
            ("unused".to_string(), HostTensor::new(vec![0, 7], vec![])),
        ])
    }

    fn bits(tensors: &TensorMap) -> Vec<(Vec<usize>, Vec<u32>)> {
        let of = |tensor: &HostTensor| tensor.values.iter().map(|value| value.to_bits()).collect();
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
    fn shards_stay_below_the_limit_unless_one_tensor_is_larger() {
        let tensor = |n: usize| HostTensor::new(vec![n], vec![0.0; n]);
        let tensors = ["a", "b", "c", "d"].map(str::to_string).into_iter();
        let tensors: TensorMap = tensors.zip([2, 2, 9, 1].map(tensor)).collect();
        let names = |shard: &Shard<'_>| shard.iter().map(|(name, _)| name.as_str()).collect();
        let shards: Vec<String> = split(&tensors, 16).iter().map(names).collect();
        assert_eq!(shards, ["ab", "c", "d"]);
        assert_eq!(split(&TensorMap::new(), 16).len(), 1);
    }

    #[test]
    fn another_dtype_is_refused_with_the_tensor_named() {
        let file = Path::new("model.safetensors");
        let header = br#"{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}         "#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend([0; 4]);
        let problem = parse(file, &bytes).unwrap_err();
        let text = "model.safetensors: tensor w: found dtype BF16, expected dtype F32";
        assert_eq!(problem.to_string(), text);
        assert!(parse(file, &bytes[..40]).is_err());
    }
}
