//! Files of `torch.save` → tensors by name. Nothing in them is executed; what is not a state dict is passed over.
//!
//! Values are read one tensor at a time and in pieces, so that a file larger than half of the memory can be read.

use super::number::Number;
use super::pickle::{Index, Pickle, Value};
use super::{PIECE_BYTES, Pieces};
use crate::error::{Error, Problem};
use crate::run::{HostTensor, TensorMap};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use zip::{CompressionMethod, ZipArchive};

/// The largest pickle that is read: names and shapes, not values.
const MOST_PICKLE_BYTES: u64 = 64 << 20;

/// The keys under which a training script keeps its state dict.
const STATE_DICTS: [&str; 3] = ["model", "state_dict", "model_state_dict"];

/// What is expected of such a file.
const EXPECTED: &str = "a file of torch.save in its zip format";

/// Which classes and functions a file may name. None of them is ever called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Globals {
    /// Any; what is not known is passed over.
    Any,
    /// Those of tensors and of a command line's options: nothing else has a place in a release or a checkpoint.
    OfTensors,
}

impl Globals {
    fn allow(self, module: &str, name: &str) -> bool {
        match (self, module, name) {
            (Self::Any, _, _) => true,
            (_, "collections", "OrderedDict") => true,
            (_, "torch._utils", "_rebuild_tensor_v2" | "_rebuild_parameter") => true,
            (_, "torch", name) => name.ends_with("Storage"),
            (_, "argparse", "Namespace") => true,
            _ => false,
        }
    }
}

/// A file whose tensors are known by name and not read yet.
pub struct PytorchFile {
    path: PathBuf,
    archive: Archive,
    prefix: String,
    tensors: BTreeMap<String, (Tensor, Number)>,
}

/// Reads the floating-point tensors of a state dict, which is the file itself or lies in it under `model`, `state_dict` or
/// `model_state_dict`. Halves and doubles become single precision; whole numbers are left out.
///
/// # Errors
/// `Invalid` if the file is missing, no such file, or promises what it does not hold.
pub fn read_pytorch(path: &Path) -> Result<TensorMap, Error> {
    let mut file = PytorchFile::open(path, Globals::Any)?;
    let mut tensors = TensorMap::new();
    for (name, shape) in file.shapes() {
        let mut values = Vec::new();
        file.read(&name, &mut |piece| values.extend_from_slice(piece))?;
        tensors.insert(name, HostTensor::new(shape, values));
    }
    Ok(tensors)
}

impl PytorchFile {
    /// Reads names and shapes.
    ///
    /// # Errors
    /// `Invalid` if the file is missing, no such file, promises what it does not hold, or names what is not allowed.
    pub fn open(path: &Path, globals: Globals) -> Result<Self, Error> {
        let file = File::open(path).map_err(|cause| Error::unreadable(path, EXPECTED, cause))?;
        let length = file
            .metadata()
            .map_err(|cause| Error::unreadable(path, EXPECTED, cause))?
            .len();
        let wrong = |place: &str, found: String| wrong(path, place, found);
        let archive = ZipArchive::new(BufReader::new(file));
        let archive = archive.map_err(|cause| wrong("", format!("no zip archive ({cause})")))?;
        let mut archive = Archive { archive, length };
        let prefix = archive.prefix().map_err(|found| wrong("", found))?;
        let order = archive.entry(&format!("{prefix}byteorder"), 16).ok();
        if order.is_some_and(|order| order != b"little") {
            let found = "numbers that are not little-endian".to_string();
            return Err(wrong("byteorder", found));
        }
        let bytes = archive
            .entry(&format!("{prefix}data.pkl"), MOST_PICKLE_BYTES)
            .map_err(|found| wrong("data.pkl", found))?;
        let pickle = Pickle::read(&bytes).map_err(|found| wrong("data.pkl", found))?;
        let mut named = pickle.globals();
        if let Some((module, name)) = named.find(|(module, name)| !globals.allow(module, name)) {
            let found = format!(
                "{:?}, which is no part of a tensor",
                format!("{module}.{name}")
            );
            return Err(wrong("data.pkl", found));
        }
        let tensors = described(&pickle, length).map_err(|(place, found)| wrong(&place, found))?;
        Ok(Self {
            path: path.to_path_buf(),
            archive,
            prefix,
            tensors,
        })
    }

    /// The shapes of all tensors.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let tensors = self.tensors.iter();
        tensors
            .map(|(name, (tensor, _))| (name.clone(), tensor.shape.clone()))
            .collect()
    }

    /// Hands over the values of a tensor in row-major order, piece by piece.
    ///
    /// # Errors
    /// `Invalid` if the file does not hold them, or they are not those that were written.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn read(&mut self, name: &str, pieces: Pieces<'_>) -> Result<(), Error> {
        let (tensor, number) = &self.tensors[name];
        tensor
            .read(*number, &mut self.archive, &self.prefix, pieces)
            .map_err(|found| wrong(&self.path, &format!("tensor {name:?}"), found))
    }
}

fn wrong(path: &Path, place: &str, found: String) -> Error {
    let problem = Problem::new(path, place, found, EXPECTED);
    Error::Invalid(problem.advise("save it again with torch.save(model.state_dict(), file)"))
}

/// The floating-point tensors of the state dict; else what is wrong, and where.
fn described(
    pickle: &Pickle,
    length: u64,
) -> Result<BTreeMap<String, (Tensor, Number)>, (String, String)> {
    let missing = || {
        let found = "no dictionary of tensors".to_string();
        ("data.pkl".to_string(), found)
    };
    let mut tensors = BTreeMap::new();
    // Tied weights are stored once and named twice; more than that is no checkpoint.
    let mut values_left = length.saturating_mul(2);
    for &(name, value) in state_dict(pickle).ok_or_else(missing)? {
        let (Some(name), Some(tensor)) = (pickle.text(name), Tensor::find(pickle, value)) else {
            continue;
        };
        let at = |found| (format!("tensor {name:?}"), found);
        let tensor = tensor.map_err(at)?;
        let Some(number) = tensor.number() else {
            continue;
        };
        let n_values = tensor.check(values_left).map_err(at)?;
        values_left -= n_values as u64;
        tensors.insert(name.to_string(), (tensor, number));
    }
    Ok(tensors)
}

struct Archive {
    archive: ZipArchive<BufReader<File>>,
    length: u64,
}

impl Archive {
    /// What stands in front of every name: a folder of any name.
    fn prefix(&self) -> Result<String, String> {
        let folder = |name: &str| {
            let folder = name.strip_suffix("data.pkl")?;
            (folder.is_empty() || folder.ends_with('/')).then(|| folder.to_string())
        };
        let prefix = self.archive.file_names().find_map(folder);
        prefix.ok_or_else(|| "an archive without data.pkl".to_string())
    }

    /// Opens an entry, which is not compressed and not larger than `most` or the file.
    fn open(&mut self, name: &str, most: u64) -> Result<(impl Read + '_, u64), String> {
        let most = most.min(self.length);
        let entry = self.archive.by_name(name);
        let entry = entry.map_err(|cause| format!("no {name} ({cause})"))?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("{name} compressed"));
        }
        let size = entry.size();
        if size > most {
            return Err(format!("{size} bytes of {name}, more than {most}"));
        }
        Ok((entry, size))
    }

    /// The bytes of an entry.
    fn entry(&mut self, name: &str, most: u64) -> Result<Vec<u8>, String> {
        let (mut entry, _) = self.open(name, most)?;
        let mut bytes = Vec::new();
        let read = entry.read_to_end(&mut bytes);
        read.map_err(|cause| format!("{name} unreadable ({cause})"))?;
        Ok(bytes)
    }
}

/// The dictionary with the most promising name that holds a tensor.
fn state_dict(pickle: &Pickle) -> Option<&[(Index, Index)]> {
    let root = pickle.entries(pickle.root())?;
    let under = |wanted: &&str| {
        let entry = root
            .iter()
            .find(|(key, _)| pickle.text(*key) == Some(*wanted))?;
        pickle.entries(entry.1)
    };
    let candidates = STATE_DICTS.iter().filter_map(under).chain([root]);
    let holds_tensor = |entries: &&[(Index, Index)]| {
        let mut values = entries.iter().map(|(_, value)| *value);
        values.any(|value| Tensor::find(pickle, value).is_some())
    };
    candidates.into_iter().find(holds_tensor)
}

/// A tensor as the pickle describes it.
struct Tensor {
    storage: String,
    kind: String,
    numbers: usize,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Tensor {
    /// The tensor that a value describes; nothing if it is none.
    fn find(pickle: &Pickle, value: Index) -> Option<Result<Self, String>> {
        match pickle.call(value)? {
            ("torch._utils", "_rebuild_tensor_v2", arguments) => {
                let described = Self::described(pickle, arguments);
                Some(described.ok_or_else(|| "a description that is not understood".to_string()))
            }
            ("torch._utils", "_rebuild_parameter", [tensor, ..]) => {
                // One level only: a parameter of a parameter is none.
                match pickle.call(*tensor)? {
                    ("torch._utils", "_rebuild_tensor_v2", _) => Self::find(pickle, *tensor),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn described(pickle: &Pickle, arguments: &[Index]) -> Option<Self> {
        let [storage, offset, shape, strides, ..] = arguments else {
            return None;
        };
        let Value::Persistent(id) = pickle.get(*storage) else {
            return None;
        };
        let [_, class, key, _, numbers] = pickle.sequence(*id)? else {
            return None;
        };
        let Value::Global(_, kind) = pickle.get(*class) else {
            return None;
        };
        let counts = |index: Index| -> Option<Vec<usize>> {
            pickle
                .sequence(index)?
                .iter()
                .map(|&count| pickle.count(count))
                .collect()
        };
        Some(Self {
            storage: pickle.text(*key)?.to_string(),
            kind: kind.clone(),
            numbers: pickle.count(*numbers)?,
            offset: pickle.count(*offset)?,
            shape: counts(*shape)?,
            strides: counts(*strides)?,
        })
    }

    /// How its numbers are stored; nothing if they are whole numbers.
    fn number(&self) -> Option<Number> {
        match self.kind.as_str() {
            "FloatStorage" => Some(Number::F32),
            "DoubleStorage" => Some(Number::F64),
            "HalfStorage" => Some(Number::F16),
            "BFloat16Storage" => Some(Number::Bf16),
            _ => None,
        }
    }

    /// Hands over its values, whose places were checked.
    fn read(
        &self,
        number: Number,
        archive: &mut Archive,
        prefix: &str,
        pieces: Pieces<'_>,
    ) -> Result<(), String> {
        let name = format!("{prefix}data/{}", self.storage);
        let (mut entry, bytes) = archive.open(&name, u64::MAX)?;
        let found = bytes / number.size() as u64;
        if found < self.numbers as u64 {
            let promised = self.numbers;
            return Err(format!("{found} numbers where {promised} are promised"));
        }
        let unreadable = |cause: io::Error| format!("{name} unreadable ({cause})");
        match self.lies_in_order() {
            true => self.stream(number, &mut entry, pieces).map_err(unreadable),
            false => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(unreadable)?;
                self.gather(number, &bytes, pieces);
                Ok(())
            }
        }
    }

    /// Whether its values follow each other in its storage.
    fn lies_in_order(&self) -> bool {
        let mut wanted = 1;
        let dimensions = self.shape.iter().zip(&self.strides).rev();
        let mut in_order = dimensions.map(|(&length, &stride)| {
            let fits = length == 1 || stride == wanted;
            wanted *= length.max(1);
            fits
        });
        in_order.all(|fits| fits)
    }

    /// Reads the whole entry, because only at its end the archive compares its checksum.
    fn stream(&self, number: Number, entry: &mut impl Read, pieces: Pieces<'_>) -> io::Result<()> {
        let size = number.size();
        let n_values: usize = self.shape.iter().product();
        let skipped = (self.offset * size) as u64;
        let skipped = io::copy(&mut entry.by_ref().take(skipped), &mut io::sink())?;
        debug_assert_eq!(skipped, (self.offset * size) as u64);
        let mut left = n_values * size;
        let mut bytes = vec![0; PIECE_BYTES.min(left)];
        let mut values = Vec::with_capacity(bytes.len() / size);
        while left > 0 {
            let piece = bytes.len().min(left);
            entry.read_exact(&mut bytes[..piece])?;
            values.clear();
            number.read_all(&bytes[..piece], &mut values);
            pieces(&values);
            left -= piece;
        }
        io::copy(entry, &mut io::sink()).map(|_| ())
    }

    /// Picks its values out of the bytes of its storage.
    fn gather(&self, number: Number, bytes: &[u8], pieces: Pieces<'_>) {
        let size = number.size();
        let value = |index: usize| {
            let mut rest = index;
            let mut place = self.offset;
            for (length, stride) in self.shape.iter().zip(&self.strides).rev() {
                place += rest % length * stride;
                rest /= length;
            }
            number.read(&bytes[place * size..][..size])
        };
        let n_values: usize = self.shape.iter().product();
        let at_once = PIECE_BYTES / size;
        for start in (0..n_values).step_by(at_once) {
            let end = (start + at_once).min(n_values);
            pieces(&(start..end).map(value).collect::<Vec<f32>>());
        }
    }

    /// The number of its values, if its shape and strides stay within its storage.
    fn check(&self, values_left: u64) -> Result<usize, String> {
        if self.shape.len() != self.strides.len() {
            return Err("other numbers of lengths and strides".to_string());
        }
        let too_large = || format!("shape {:?} in a storage of {}", self.shape, self.numbers);
        let product = self
            .shape
            .iter()
            .try_fold(1usize, |product, &n| product.checked_mul(n));
        let n_values = product
            .filter(|&n| n <= self.numbers)
            .ok_or_else(too_large)?;
        if n_values as u64 > values_left {
            return Err("more values than the file can hold".to_string());
        }
        if n_values == 0 {
            return Ok(0);
        }
        let mut steps = self.shape.iter().zip(&self.strides);
        let last = steps.try_fold(self.offset, |last, (n, stride)| {
            last.checked_add((n - 1).checked_mul(*stride)?)
        });
        match last.is_some_and(|last| last < self.numbers) {
            true => Ok(n_values),
            false => Err(too_large()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    /// A file like those of torch.save: a dictionary of one float tensor `w` over storage `0`.
    fn saved(shape: &[u8], strides: &[u8], offset: u8, numbers: u8, storage: &[u8]) -> Vec<u8> {
        let mut pickle =
            b"\x80\x02}(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(".to_vec();
        pickle.extend(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK");
        pickle.extend([numbers, b't', b'Q', b'K', offset]);
        for counts in [shape, strides] {
            pickle.push(b'(');
            counts
                .iter()
                .for_each(|&count| pickle.extend([b'K', count]));
            pickle.push(b't');
        }
        pickle.extend(b"\x89}tRX\x04\x00\x00\x00stepK\x05u.");
        archive(&[("archive/data.pkl", &pickle), ("archive/data/0", storage)])
    }

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, bytes) in entries {
            writer.start_file(*name, stored).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn read(bytes: &[u8]) -> Result<TensorMap, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.pt");
        std::fs::write(&path, bytes).unwrap();
        read_pytorch(&path)
    }

    fn floats(n: u8) -> Vec<u8> {
        (0..n)
            .flat_map(|value| f32::from(value).to_le_bytes())
            .collect()
    }

    #[test]
    fn strides_and_offsets_are_followed() {
        let tensors = read(&saved(&[2, 3], &[1, 2], 1, 8, &floats(8))).unwrap();
        let tensor = &tensors["w"];
        assert_eq!(tensor.shape, [2, 3]);
        assert_eq!(*tensor.floats(), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
        assert_eq!(tensors.len(), 1);
    }

    #[test]
    fn what_promises_more_than_it_holds_is_refused() {
        let cases = [
            saved(&[2, 5], &[5, 1], 0, 8, &floats(8)),
            saved(&[2, 3], &[3, 1], 5, 8, &floats(8)),
            saved(&[2, 3], &[200, 1], 0, 8, &floats(8)),
            saved(&[2, 3], &[3, 1], 0, 200, &floats(8)),
            saved(&[255, 255], &[0, 0], 0, 8, &floats(8)),
            archive(&[("archive/other", b"")]),
            archive(&[("archive/data.pkl", b"\x80\x02}.")]),
            b"\x80\x02}.".to_vec(),
            Vec::new(),
        ];
        for bytes in cases {
            assert_eq!(read(&bytes).unwrap_err().exit_code(), 3);
        }
    }

    #[test]
    fn every_cut_of_a_file_is_refused() {
        let whole = saved(&[2, 3], &[3, 1], 0, 8, &floats(8));
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end} bytes");
        }
    }
}
