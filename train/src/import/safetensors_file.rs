//! A safetensors file whose tensors are read one at a time and in pieces: it may be larger than half of the memory.

use super::number::Number;
use super::{PIECE_BYTES, Pieces};
use crate::error::{Error, Problem};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What is expected of such a file.
const EXPECTED: &str = "a safetensors file of floating-point numbers";

/// The largest header, as in the library.
const MOST_HEADER_BYTES: u64 = 100_000_000;

/// A file whose tensors are known by name and not read yet.
pub struct SafetensorsFile {
    path: PathBuf,
    file: File,
    /// Where values begin.
    first: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl SafetensorsFile {
    /// Reads names and shapes.
    ///
    /// # Errors
    /// `Invalid` if the file is missing, no such file, or of another length than its header says.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |cause| Error::unreadable(path, EXPECTED, cause);
        let wrong = |found: String| wrong(path, "", found);
        let mut file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(wrong("no plain file".to_string()));
        }
        let mut size = [0; 8];
        file.read_exact(&mut size)
            .map_err(|_| wrong(format!("{} bytes", metadata.len())))?;
        let size = u64::from_le_bytes(size);
        if size > MOST_HEADER_BYTES || size > metadata.len() - 8 {
            return Err(wrong(format!("a header of {size} bytes")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(unreadable)?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|cause| wrong(crate::text::json_complaint(&cause)))?;
        let tensors: BTreeMap<String, TensorInfo> = header
            .tensors()
            .into_iter()
            .map(|(name, info)| (name, info.clone()))
            .collect();
        let first = 8 + size;
        let mut end = 0;
        for (name, info) in &tensors {
            let promised = check(info).map_err(|found| self::wrong(path, name, found))?;
            end = end.max(promised);
        }
        if first.checked_add(end) != Some(metadata.len()) {
            let found = format!(
                "{} bytes where its header promises {end} behind it",
                metadata.len()
            );
            return Err(wrong(found));
        }
        Ok(Self {
            path: path.to_path_buf(),
            file,
            first,
            tensors,
        })
    }

    /// The shapes of all tensors.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let tensors = self.tensors.iter();
        tensors
            .map(|(name, info)| (name.clone(), info.shape.clone()))
            .collect()
    }

    /// Hands over the values of a tensor in row-major order, piece by piece.
    ///
    /// # Errors
    /// `Invalid` if the file became shorter, or the numbers are of a kind that is not read.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn read(&mut self, name: &str, pieces: Pieces<'_>) -> Result<(), Error> {
        let info = &self.tensors[name];
        let Some(number) = number(info.dtype) else {
            return Err(wrong(&self.path, name, format!("dtype {:?}", info.dtype)));
        };
        let (start, end) = info.data_offsets;
        let unreadable = |cause: std::io::Error| wrong(&self.path, name, cause.to_string());
        let start_of_values = self.first + start as u64;
        self.file
            .seek(SeekFrom::Start(start_of_values))
            .map_err(unreadable)?;
        let mut bytes = vec![0; PIECE_BYTES.min(end - start)];
        let mut values = Vec::new();
        let mut left = end - start;
        while left > 0 {
            let piece = bytes.len().min(left);
            self.file
                .read_exact(&mut bytes[..piece])
                .map_err(unreadable)?;
            values.clear();
            number.read_all(&bytes[..piece], &mut values);
            pieces(&values);
            left -= piece;
        }
        Ok(())
    }
}

fn number(dtype: Dtype) -> Option<Number> {
    match dtype {
        Dtype::F16 => Some(Number::F16),
        Dtype::BF16 => Some(Number::Bf16),
        Dtype::F32 => Some(Number::F32),
        Dtype::F64 => Some(Number::F64),
        _ => None,
    }
}

/// Where the values of a tensor end, counted from the first of all, if there are as many as its shape says.
fn check(info: &TensorInfo) -> Result<u64, String> {
    let (start, end) = info.data_offsets;
    let product = info
        .shape
        .iter()
        .try_fold(1usize, |product, &n| product.checked_mul(n));
    let bits = product.and_then(|n| n.checked_mul(info.dtype.bitsize()));
    let bytes = end.checked_sub(start).and_then(|n| n.checked_mul(8));
    match bits.is_some() && bits == bytes {
        true => Ok(end as u64),
        false => Err(format!("bytes {start} to {end} for shape {:?}", info.shape)),
    }
}

fn wrong(path: &Path, name: &str, found: String) -> Error {
    let place = match name {
        "" => String::new(),
        name => format!("tensor {name:?}"),
    };
    Error::Invalid(Problem::new(path, place, found, EXPECTED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file_of(header: &str, values: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(values);
        bytes
    }

    fn open(bytes: &[u8]) -> Result<SafetensorsFile, Error> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("model.safetensors");
        fs::write(&path, bytes).unwrap();
        SafetensorsFile::open(&path)
    }

    const HEADER: &str = r#"{"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"h":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]}}"#;

    fn whole() -> Vec<u8> {
        let mut values = [1.0f32, -2.5].map(f32::to_le_bytes).concat();
        values.extend([0x80, 0x3f, 0x00, 0x40, 0xc0, 0x3f]);
        file_of(HEADER, &values)
    }

    #[test]
    fn tensors_are_read_by_name_whatever_their_order_and_kind() {
        let mut file = open(&whole()).unwrap();
        assert_eq!(file.shapes()["w"], [2, 1]);
        let mut values = Vec::new();
        file.read("h", &mut |piece| values.extend_from_slice(piece))
            .unwrap();
        file.read("w", &mut |piece| values.extend_from_slice(piece))
            .unwrap();
        assert_eq!(values, [1.0, 2.0, 1.5, 1.0, -2.5]);
    }

    #[test]
    fn every_cut_and_every_lie_of_the_header_is_refused() {
        let whole = whole();
        for length in 0..whole.len() {
            assert_eq!(open(&whole[..length]).err().unwrap().exit_code(), 3);
        }
        let lies = [
            ("[2,1]", "[2,2]"),
            ("[2,1]", "[4294967296,4294967296]"),
            ("[0,8]", "[8,0]"),
            ("[8,14]", "[8,99]"),
            ("\"F32\"", "\"F64\""),
            ("}}", "} "),
        ];
        for (truth, lie) in lies {
            let values = &whole[8 + HEADER.len()..];
            let error = open(&file_of(&HEADER.replacen(truth, lie, 1), values));
            assert_eq!(error.err().unwrap().exit_code(), 3, "{lie}");
        }
        assert!(open(&file_of("[", &[])).is_err());
        assert!(open(&u64::MAX.to_le_bytes()).is_err());
    }

    #[test]
    fn no_flipped_bit_of_the_header_is_a_panic() {
        let whole = whole();
        for place in 0..8 * (8 + HEADER.len()) {
            let mut flipped = whole.clone();
            flipped[place / 8] ^= 1 << (place % 8);
            if let Ok(mut file) = open(&flipped) {
                for name in file.shapes().into_keys() {
                    let _ = file.read(&name, &mut |_| {});
                }
            }
        }
    }
}
