//! Reads a safetensors file one tensor at a time and in pieces, because it may be larger than half of the memory.

use super::Pieces;
use super::json::{Entries, Object, shown};
use super::number::{Cast, Dtype, UNDERSTOOD};
use super::source::{MOST_TENSORS, Source, Stored, dimensions, in_tensor};
use crate::error::{Error, Problem};
use crate::file::open_regular;
use crate::text::json_complaint;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What is expected of such a file.
const EXPECTED: &str = "a safetensors file of floating-point numbers";

/// The largest header, as in the library.
const MOST_HEADER_BYTES: u64 = 100_000_000;

/// A file whose tensors are known by name and whose values are not read yet.
pub struct SafetensorsFile {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, Stored>,
    /// Where the values of each begin in the file.
    starts: BTreeMap<String, u64>,
}

impl SafetensorsFile {
    /// Reads names and shapes.
    ///
    /// # Errors
    /// `Invalid` if the file is missing, not of this format, or its tensors do not follow each other up to its end.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |cause| Error::unreadable(path, EXPECTED, cause);
        let wrong = |found| wrong(path, found);
        let mut file = open_regular(path, EXPECTED)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size)
            .map_err(|_| wrong(format!("{length} bytes")))?;
        let size = u64::from_le_bytes(size);
        if size > MOST_HEADER_BYTES || size > length.saturating_sub(8) {
            let found = format!("a header of {size} bytes in a file of {length}");
            return Err(wrong(found));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(unreadable)?;
        let mut json = serde_json::Deserializer::from_slice(&header);
        let described = Object(Header(Vec::new())).deserialize(&mut json);
        let described = described.and_then(|header| json.end().map(|()| header.0));
        let described = described.map_err(|cause| wrong(json_complaint(&cause)))?;
        let mut tensors = BTreeMap::new();
        let mut places = Vec::new();
        for (name, info) in described {
            let (stored, place) = info.check(path, &name)?;
            places.push((place, name.clone()));
            if tensors.insert(name.clone(), stored).is_some() {
                let found = "a second description of it";
                return Err(in_tensor(path, &name, found, "every tensor once"));
            }
        }
        let first = 8 + size;
        places.sort();
        require_a_row(path, &places, length - first)?;
        let starts = places.into_iter();
        Ok(Self {
            path: path.to_path_buf(),
            file,
            tensors,
            starts: starts
                .map(|((start, _), name)| (name, first + start))
                .collect(),
        })
    }
}

impl Source for SafetensorsFile {
    fn tensors(&self) -> &BTreeMap<String, Stored> {
        &self.tensors
    }

    fn read(&mut self, name: &str, pieces: Pieces<'_>) -> Result<Cast, Error> {
        let (number, n) = self.tensors[name].numbers();
        let start = self.file.seek(SeekFrom::Start(self.starts[name]));
        let cast = start.and_then(|_| number.stream(&mut self.file, n, pieces));
        cast.map_err(|cause| in_tensor(&self.path, name, cause.to_string(), EXPECTED))
    }
}

/// Where the values of a tensor lie behind the header.
type Place = (u64, u64);

/// Refuses tensors that do not lie one behind the other, or do not fill the file.
fn require_a_row(path: &Path, places: &[(Place, String)], bytes: u64) -> Result<(), Error> {
    let mut end = 0;
    for ((start, stop), name) in places {
        if *start != end {
            let found = format!("bytes {start} to {stop}");
            let expected = format!("its first byte at {end}, where the tensor before it ends");
            return Err(in_tensor(path, name, found, expected));
        }
        end = *stop;
    }
    if end != bytes {
        let found = format!("{bytes} bytes behind the header, which promises {end}");
        return Err(wrong(path, found));
    }
    Ok(())
}

fn wrong(path: &Path, found: String) -> Error {
    Error::Invalid(Problem::new(path, "", found, EXPECTED))
}

/// What a header says, in its order: a name that stands in it twice is here twice.
struct Header(Vec<(String, Info)>);

#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Info {
    /// The tensor and its place, if there are as many bytes as its shape says.
    fn check(self, path: &Path, name: &str) -> Result<(Stored, Place), Error> {
        let (shape, (start, end)) = (self.shape, self.data_offsets);
        let Some(dtype) = Dtype::of_safetensors(&self.dtype) else {
            let found = format!("dtype {}", shown(&self.dtype));
            return Err(in_tensor(path, name, found, UNDERSTOOD));
        };
        let stored = Stored { shape, dtype };
        let wanted = stored.bytes();
        if wanted.is_some() && wanted == end.checked_sub(start) {
            return Ok((stored, (start, end)));
        }
        let wanted = wanted.map_or("more than there are".to_string(), |n| n.to_string());
        let (dtype, shape) = (dtype.name(), dimensions(&stored.shape));
        let found = format!("bytes {start} to {end}");
        let expected = format!("{wanted} bytes for {dtype} {shape}");
        Err(in_tensor(path, name, found, expected))
    }
}

impl Entries for Header {
    const EXPECTED: &'static str = "an object of tensors";

    fn entry<'de, A: MapAccess<'de>>(&mut self, name: String, map: &mut A) -> Result<(), A::Error> {
        if name == "__metadata__" {
            return map.next_value::<IgnoredAny>().map(drop);
        }
        let info = map.next_value().map_err(|cause| {
            let name = shown(&name);
            A::Error::custom(format!("a description of tensor {name} with {cause}"))
        })?;
        if self.0.len() == MOST_TENSORS {
            let found = format!("more than {MOST_TENSORS} tensors");
            return Err(A::Error::custom(found));
        }
        self.0.push((name, info));
        Ok(())
    }
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
        assert_eq!(file.tensors()["w"].shape, [2, 1]);
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
        let twice = HEADER.replacen("\"h\"", "\"w\"", 1);
        let named = |header: &str| {
            let error = open(&file_of(header, &whole[8 + HEADER.len()..]));
            error.err().unwrap().to_string()
        };
        let error = named(&twice);
        assert!(
            error.contains("tensor \"w\": found a second description"),
            "{error}"
        );
        let error = named(&HEADER.replacen("[8,14]", "[4,10]", 1));
        assert!(
            error.contains("tensor \"h\": found bytes 4 to 10, expected its first byte at 8"),
            "{error}"
        );
        let error = named(&HEADER.replacen("BF16", "F8_E4M3", 1));
        assert!(
            error.contains("tensor \"h\": found dtype \"F8_E4M3\", expected F64"),
            "{error}"
        );
        let deep = format!("{{\"w\":{}", "[".repeat(1 << 20));
        assert_eq!(named(&deep).lines().count(), 1);
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
                let tensors = file.tensors().clone();
                for (name, _) in tensors
                    .iter()
                    .filter(|(_, stored)| stored.dtype.number().is_some())
                {
                    let _ = file.read(name, &mut |_| {});
                }
            }
        }
    }
}
