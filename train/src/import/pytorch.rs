//! Files of `torch.save` → tensors by name. Nothing in them is executed; what is not a state dict is passed over.

use super::pickle::{Index, Pickle, Value};
use crate::error::{Error, Problem};
use crate::run::{HostTensor, TensorMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// The largest pickle that is read: names and shapes, not values.
const MOST_PICKLE_BYTES: u64 = 64 << 20;

/// The keys under which a training script keeps its state dict.
const STATE_DICTS: [&str; 3] = ["model", "state_dict", "model_state_dict"];

/// Reads the floating-point tensors of a state dict, which is the file itself or lies in it under `model`, `state_dict` or
/// `model_state_dict`. Halves and doubles become single precision; whole numbers are left out.
///
/// # Errors
/// `Invalid` if the file is missing, no such file, or promises what it does not hold.
pub fn read_pytorch(path: &Path) -> Result<TensorMap, Error> {
    let expected = "a file of torch.save in its zip format";
    let file = File::open(path).map_err(|cause| Error::unreadable(path, expected, cause))?;
    let length = file
        .metadata()
        .map_err(|cause| Error::unreadable(path, expected, cause))?
        .len();
    let wrong = |place: &str, found: String| {
        let problem = Problem::new(path, place, found, expected);
        Error::Invalid(problem.advise("save it again with torch.save(model.state_dict(), file)"))
    };
    let archive = ZipArchive::new(BufReader::new(file));
    let archive = archive.map_err(|cause| wrong("", format!("no zip archive ({cause})")))?;
    let mut archive = Archive { archive, length };
    let prefix = archive.prefix().map_err(|found| wrong("", found))?;
    let order = archive.entry(&format!("{prefix}byteorder"), 16).ok();
    if order.is_some_and(|order| order != b"little") {
        return Err(wrong(
            "byteorder",
            "numbers that are not little-endian".to_string(),
        ));
    }
    let name = format!("{prefix}data.pkl");
    let bytes = archive
        .entry(&name, MOST_PICKLE_BYTES)
        .map_err(|found| wrong("data.pkl", found))?;
    let pickle = Pickle::read(&bytes).map_err(|found| wrong("data.pkl", found))?;
    let entries = state_dict(&pickle)
        .ok_or_else(|| wrong("data.pkl", "no dictionary of tensors".to_string()))?;
    let mut tensors = TensorMap::new();
    // Tied weights are stored once and named twice; more than that is no checkpoint.
    let mut values_left = length.saturating_mul(2);
    for &(name, value) in entries {
        let (Some(name), Some(tensor)) = (pickle.text(name), Tensor::find(&pickle, value)) else {
            continue;
        };
        let place = format!("tensor {name}");
        let tensor = tensor.map_err(|found| wrong(&place, found))?;
        if let Some(read) = tensor.read(&mut archive, &prefix, &mut values_left) {
            let tensor = read.map_err(|found| wrong(&place, found))?;
            tensors.insert(name.to_string(), tensor);
        }
    }
    Ok(tensors)
}

struct Archive {
    archive: ZipArchive<BufReader<File>>,
    length: u64,
}

impl Archive {
    /// What stands in front of every name.
    fn prefix(&self) -> Result<String, String> {
        let mut names = self.archive.file_names();
        let prefix = names.find_map(|name| name.strip_suffix("data.pkl").map(str::to_string));
        prefix.ok_or_else(|| "an archive without data.pkl".to_string())
    }

    /// The bytes of an entry, which is not compressed and not larger than `most` or the file.
    fn entry(&mut self, name: &str, most: u64) -> Result<Vec<u8>, String> {
        let most = most.min(self.length);
        let entry = self.archive.by_name(name);
        let mut entry = entry.map_err(|cause| format!("no {name} ({cause})"))?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("{name} compressed"));
        }
        if entry.size() > most {
            return Err(format!(
                "{} bytes of {name}, more than {most}",
                entry.size()
            ));
        }
        let mut bytes = Vec::new();
        let read = entry.by_ref().take(most + 1).read_to_end(&mut bytes);
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

    /// Its values; nothing if they are whole numbers.
    fn read(
        &self,
        archive: &mut Archive,
        prefix: &str,
        values_left: &mut u64,
    ) -> Option<Result<HostTensor, String>> {
        let number = match self.kind.as_str() {
            "FloatStorage" => Number::F32,
            "DoubleStorage" => Number::F64,
            "HalfStorage" => Number::F16,
            "BFloat16Storage" => Number::Bf16,
            _ => return None,
        };
        Some(self.read_as(number, archive, prefix, values_left))
    }

    fn read_as(
        &self,
        number: Number,
        archive: &mut Archive,
        prefix: &str,
        values_left: &mut u64,
    ) -> Result<HostTensor, String> {
        let n_values = self.check(*values_left)?;
        *values_left -= n_values as u64;
        let bytes = archive.entry(&format!("{prefix}data/{}", self.storage), u64::MAX)?;
        let size = number.size();
        if bytes.len() / size < self.numbers {
            let found = bytes.len() / size;
            return Err(format!(
                "{found} numbers where {} are promised",
                self.numbers
            ));
        }
        let value = |index: usize| {
            let mut rest = index;
            let mut place = self.offset;
            for (length, stride) in self.shape.iter().zip(&self.strides).rev() {
                place += rest % length * stride;
                rest /= length;
            }
            number.read(&bytes[place * size..][..size])
        };
        let values = (0..n_values).map(value).collect();
        Ok(HostTensor::new(self.shape.clone(), values))
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

#[derive(Clone, Copy)]
enum Number {
    F16,
    Bf16,
    F32,
    F64,
}

impl Number {
    fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn read(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::F16, &[a, b]) => from_half(u16::from_le_bytes([a, b])),
            (Self::Bf16, &[a, b]) => f32::from_le_bytes([0, 0, a, b]),
            (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (_, bytes) => f64::from_le_bytes(bytes.try_into().expect("eight bytes")) as f32,
        }
    }
}

/// IEEE 754 half precision.
fn from_half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
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

    #[test]
    fn halves_are_what_they_stand_for() {
        let cases = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
        ];
        for (bits, expected) in cases {
            assert_eq!(from_half(bits), expected);
        }
        assert_eq!(Number::Bf16.read(&0x3fc0u16.to_le_bytes()), 1.5);
    }
}
