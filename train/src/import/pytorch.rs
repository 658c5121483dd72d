//! Reads tensors by name from files of `torch.save`. Nothing is executed; what is not a state dict is skipped and listed.
//!
//! Values are read one tensor at a time and in pieces, so that a file larger than half of the memory can be read.

use super::json::shown;
use super::number::{Cast, Dtype, Number, UNDERSTOOD};
use super::pickle::{Index, Pickle, Value};
use super::source::{Aside, MOST_TENSORS, Source, Stored, dimensions, place, product};
use super::{PIECE_BYTES, Pieces};
use crate::error::{Error, Problem};
use crate::file::open_regular;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

/// The largest pickle that is read: names and shapes, not values.
const MOST_PICKLE_BYTES: u64 = 64 << 20;

/// The longest directory of an archive that is read.
const MOST_DIRECTORY_BYTES: u64 = 32 << 20;

/// What a jump to another place costs of that.
const SEEK_BYTES: u64 = 4096;

/// The keys under which a training script keeps its state dict.
const STATE_DICTS: [&str; 3] = ["model", "state_dict", "model_state_dict"];

/// How many such keys may lie within each other.
const MOST_KEYS: usize = 4;

/// What is expected of such a file.
const EXPECTED: &str = "a file of torch.save in its zip format";

/// Which classes and functions a file may name. None of them is ever called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Globals {
    /// Any; unknown ones are skipped.
    Any,
    /// Those of tensors and of a command line's options: nothing else has a place in a release or a checkpoint.
    OfTensors,
}

impl Globals {
    fn allow(self, module: &str, name: &str) -> bool {
        match (module, name) {
            _ if self == Self::Any => true,
            ("collections", "OrderedDict") | ("argparse", "Namespace") => true,
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_parameter") => true,
            ("torch", name) => name.ends_with("Storage"),
            _ => false,
        }
    }
}

/// A file whose tensors are known by name and whose values are not read yet.
pub struct PytorchFile {
    path: PathBuf,
    archive: Archive,
    prefix: String,
    described: Described,
    /// How many tensors lie in each storage.
    users: HashMap<String, usize>,
    /// Storages in which several lie, until all of these were read.
    kept: HashMap<String, (Vec<u8>, usize)>,
}

impl PytorchFile {
    /// Reads names and shapes. The state dict is the file itself or lies in it under one of [`STATE_DICTS`].
    ///
    /// # Errors
    /// `Invalid` if the file is missing, not of this format, incomplete, or names a class or function that is not allowed.
    pub fn open(path: &Path, globals: Globals) -> Result<Self, Error> {
        let file = open_regular(path, EXPECTED)?;
        let unreadable = |cause| Error::unreadable(path, EXPECTED, cause);
        let length = file.metadata().map_err(unreadable)?.len();
        let wrong = |place: &str, found: String| wrong(path, place, found, EXPECTED);
        let mut archive = Archive::of(file, length)
            .map_err(|cause| wrong("", format!("no zip archive ({cause})")))?;
        let prefix = archive.prefix().map_err(|found| wrong("", found))?;
        archive
            .require_little_endian(&prefix)
            .map_err(|found| wrong("byteorder", found))?;
        let pickle = archive
            .entry(&format!("{prefix}data.pkl"), MOST_PICKLE_BYTES)
            .and_then(|bytes| Pickle::read(&bytes))
            .map_err(|found| wrong("data.pkl", found))?;
        let mut named = pickle.globals();
        if let Some((module, name)) = named.find(|(module, name)| !globals.allow(module, name)) {
            let name = format!("{module}.{name}");
            let found = format!("{name:?}, which is no part of a tensor");
            return Err(wrong("data.pkl", found));
        }
        let described = Described::read(path, &pickle, length)?;
        let mut users = HashMap::new();
        for view in described.views.values() {
            *users.entry(view.storage.clone()).or_insert(0) += 1;
        }
        Ok(Self {
            path: path.to_path_buf(),
            archive,
            prefix,
            described,
            users,
            kept: HashMap::new(),
        })
    }

    fn values(&mut self, name: &str, pieces: Pieces<'_>) -> Result<Cast, String> {
        let (number, _) = self.described.tensors[name].numbers();
        let view = &self.described.views[name];
        let entry = format!("{}data/{}", self.prefix, view.storage);
        let users = self.users[&view.storage];
        if users == 1 && view.lies_in_order() {
            return view.stream(number, &mut self.archive, &entry, pieces);
        }
        // Read once for all of them: thousands may lie in one storage.
        let (bytes, left) = match self.kept.remove(&view.storage) {
            Some(kept) => kept,
            None => {
                let bytes = self.archive.entry(&entry, u64::MAX)?;
                view.require_numbers(number, bytes.len() as u64)?;
                (bytes, users)
            }
        };
        let cast = view.gather(number, &bytes, pieces);
        if left > 1 {
            self.kept.insert(view.storage.clone(), (bytes, left - 1));
        }
        Ok(cast)
    }
}

impl Source for PytorchFile {
    fn tensors(&self) -> &BTreeMap<String, Stored> {
        &self.described.tensors
    }

    fn asides(&self) -> &[Aside] {
        &self.described.asides
    }

    fn key(&self) -> &str {
        &self.described.key
    }

    fn read(&mut self, name: &str, pieces: Pieces<'_>) -> Result<Cast, Error> {
        let cast = self.values(name, pieces);
        cast.map_err(|found| wrong(&self.path, place(name), found, EXPECTED))
    }
}

fn wrong(path: &Path, place: impl Into<String>, found: String, expected: &str) -> Error {
    let problem = Problem::new(path, place, found, expected);
    Error::Invalid(problem.advise("save it again with torch.save(model.state_dict(), file)"))
}

/// What a pickle says.
#[derive(Default)]
struct Described {
    tensors: BTreeMap<String, Stored>,
    views: HashMap<String, View>,
    asides: Vec<Aside>,
    key: String,
}

impl Described {
    /// Reads the descriptions of a file of so many bytes.
    fn read(path: &Path, pickle: &Pickle, length: u64) -> Result<Self, Error> {
        let (key, entries) = state_dict(pickle, pickle.root(), 0).ok_or_else(|| {
            let found = "no dictionary of tensors".to_string();
            wrong(path, "data.pkl", found, EXPECTED)
        })?;
        let mut all = Self {
            key: key.join("."),
            ..Self::default()
        };
        all.pass_over_others(pickle, &key);
        let mut storages: HashMap<String, (String, usize)> = HashMap::new();
        // Tied weights are stored once and named twice; more than that is no checkpoint.
        let (mut values_left, mut bytes_left) = (length.saturating_mul(2), length);
        for &(name, value) in entries {
            let (Some(name), Some(view)) = (pickle.text(name), View::find(pickle, value)) else {
                all.pass_over(pickle, name, value);
                continue;
            };
            let at = |found: String| wrong(path, place(name), found, EXPECTED);
            let view = view.map_err(at)?;
            let dtype = view.dtype.ok_or_else(|| {
                let found = format!("numbers of kind {}", shown(&view.kind));
                wrong(path, place(name), found, UNDERSTOOD)
            })?;
            let numbers = view.numbers;
            let too_large = || {
                at(format!(
                    "a storage of {numbers} numbers, more than the file can hold"
                ))
            };
            let kind = (view.kind.clone(), numbers);
            match storages.get(&view.storage) {
                Some(other) if *other != kind => {
                    let found = format!("another description of storage {:?}", view.storage);
                    return Err(at(found));
                }
                Some(_) => {}
                None => {
                    let bytes = (numbers as u64).checked_mul(dtype.size as u64);
                    let left = bytes.and_then(|bytes| bytes_left.checked_sub(bytes));
                    bytes_left = left.ok_or_else(too_large)?;
                    storages.insert(view.storage.clone(), kind);
                }
            }
            let n_values = view.check(values_left).map_err(at)?;
            if dtype.number().is_some() {
                values_left -= n_values as u64;
            }
            if all.tensors.len() == MOST_TENSORS {
                return Err(at(format!("more than {MOST_TENSORS} tensors")));
            }
            let shape = view.shape.clone();
            let stored = Stored { shape, dtype };
            if all.tensors.insert(name.to_string(), stored).is_some() {
                return Err(at("a second description of it".to_string()));
            }
            all.views.insert(name.to_string(), view);
        }
        Ok(all)
    }

    /// What lies beside the state dict, at every key on the way to it.
    fn pass_over_others(&mut self, pickle: &Pickle, keys: &[&str]) {
        let mut at = pickle.root();
        for key in keys {
            let mut next = at;
            for &(name, value) in pickle.entries(at).unwrap_or(&[]) {
                match pickle.text(name) == Some(key) {
                    true => next = value,
                    false => self.pass_over(pickle, name, value),
                }
            }
            at = next;
        }
    }

    fn pass_over(&mut self, pickle: &Pickle, name: Index, value: Index) {
        let name = pickle.text(name).unwrap_or("a key that is no text");
        self.asides.push(Aside {
            name: name.to_string(),
            kind: in_words(pickle, value),
        });
    }
}

/// What a value is.
fn in_words(pickle: &Pickle, value: Index) -> String {
    match pickle.get(value) {
        Value::Integer(_) => "a whole number".to_string(),
        Value::Text(_) => "a text".to_string(),
        Value::Sequence(_) => "a list".to_string(),
        Value::Dictionary(_) => "a dictionary".to_string(),
        Value::Call { .. } => match pickle.call(value) {
            Some(("collections", "OrderedDict", _)) => "a dictionary".to_string(),
            Some((module, name, _)) => format!("made by {module}.{name}"),
            None => "an object".to_string(),
        },
        _ => "no tensor".to_string(),
    }
}

struct Archive {
    archive: ZipArchive<BufReader<Metered>>,
    length: u64,
}

impl Archive {
    fn of(file: File, length: u64) -> Result<Self, ZipError> {
        let left = Arc::new(AtomicU64::new(MOST_DIRECTORY_BYTES));
        let file = Metered {
            file,
            left: left.clone(),
        };
        let archive = ZipArchive::new(BufReader::new(file))?;
        left.store(u64::MAX, Ordering::Relaxed);
        Ok(Self { archive, length })
    }

    /// What stands in front of every name: a folder of any name.
    fn prefix(&self) -> Result<String, String> {
        let folder = |name: &str| {
            let folder = name.strip_suffix("data.pkl")?;
            (folder.is_empty() || folder.ends_with('/')).then(|| folder.to_string())
        };
        let mut folders = self.archive.file_names().filter_map(folder);
        match (folders.next(), folders.next()) {
            (Some(folder), None) => Ok(folder),
            (Some(_), Some(_)) => Err("an archive with more than one data.pkl".to_string()),
            (None, _) => Err("an archive without data.pkl".to_string()),
        }
    }

    fn require_little_endian(&mut self, prefix: &str) -> Result<(), String> {
        let name = format!("{prefix}byteorder");
        if self.archive.index_for_name(&name).is_none() {
            // Files of older versions do not say.
            return Ok(());
        }
        match self.entry(&name, 16)? == b"little" {
            true => Ok(()),
            false => Err("numbers that are not little-endian".to_string()),
        }
    }

    /// Opens an entry, which is not compressed and not larger than `most` or the file.
    fn open(&mut self, name: &str, most: u64) -> Result<(impl Read + '_, u64), String> {
        let most = most.min(self.length);
        let entry = self.archive.by_name(name);
        let entry = entry.map_err(|cause| format!("no {name} ({cause})"))?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("{name} compressed"));
        }
        let (size, stored) = (entry.size(), entry.compressed_size());
        if size > most {
            return Err(format!("{size} bytes of {name}, more than {most}"));
        }
        match size == stored {
            true => Ok((entry, size)),
            false => Err(format!(
                "{stored} bytes of {name} where {size} are promised"
            )),
        }
    }

    /// The bytes of an entry.
    fn entry(&mut self, name: &str, most: u64) -> Result<Vec<u8>, String> {
        let (mut entry, size) = self.open(name, most)?;
        let mut bytes = Vec::new();
        let read = entry.read_to_end(&mut bytes);
        read.map_err(|cause| format!("{name} unreadable ({cause})"))?;
        let read = bytes.len() as u64;
        match read == size {
            true => Ok(bytes),
            false => Err(format!("{read} bytes of {name} where {size} are promised")),
        }
    }
}

/// A file of which not too much is read: the archive looks for its directory everywhere, and believes how long it is.
struct Metered {
    file: File,
    left: Arc<AtomicU64>,
}

impl Metered {
    fn pay(&self, bytes: u64) -> io::Result<()> {
        let left = self.left.load(Ordering::Relaxed).checked_sub(bytes);
        let left =
            left.ok_or_else(|| io::Error::other("its directory is too long or not at its end"))?;
        self.left.store(left, Ordering::Relaxed);
        Ok(())
    }
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.pay(n as u64).map(|()| n)
    }
}

impl Seek for Metered {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.pay(SEEK_BYTES)?;
        self.file.seek(to)
    }
}

/// Keys on the way to a dictionary, and its entries.
type Found<'a> = (Vec<&'static str>, &'a [(Index, Index)]);

/// The keys and entries of the dictionary with the most promising name that holds a tensor.
fn state_dict(pickle: &Pickle, at: Index, depth: usize) -> Option<Found<'_>> {
    let entries = pickle.entries(at)?;
    // A dictionary may hold itself.
    for key in STATE_DICTS.into_iter().filter(|_| depth < MOST_KEYS) {
        let mut named = entries.iter();
        let Some((_, value)) = named.find(|(name, _)| pickle.text(*name) == Some(key)) else {
            continue;
        };
        if let Some((mut keys, found)) = state_dict(pickle, *value, depth + 1) {
            keys.insert(0, key);
            return Some((keys, found));
        }
    }
    let mut values = entries.iter().map(|(_, value)| *value);
    let holds_tensor = values.any(|value| View::find(pickle, value).is_some());
    holds_tensor.then_some((Vec::new(), entries))
}

/// A tensor as the pickle describes it: numbers of a storage, from an offset on, in steps.
struct View {
    storage: String,
    /// The class of the storage, or the name of the kind where the class does not tell it, as the storage is one of bytes.
    kind: String,
    /// How its numbers are stored; `None` if that is not understood.
    dtype: Option<Dtype>,
    numbers: usize,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl View {
    /// The tensor that a value describes, itself or as a parameter; nothing if it is none.
    fn find(pickle: &Pickle, value: Index) -> Option<Result<Self, String>> {
        let tensor = match pickle.call(value)? {
            (
                "torch._utils",
                "_rebuild_parameter" | "_rebuild_parameter_with_state",
                [inner, ..],
            ) => *inner,
            _ => value,
        };
        match pickle.call(tensor)? {
            ("torch._utils", name @ ("_rebuild_tensor_v2" | "_rebuild_tensor_v3"), arguments) => {
                let described = Self::described(pickle, name, arguments);
                Some(described.ok_or_else(|| "a description that is not understood".to_string()))
            }
            _ => None,
        }
    }

    fn described(pickle: &Pickle, function: &str, arguments: &[Index]) -> Option<Self> {
        let [storage, offset, shape, strides, rest @ ..] = arguments else {
            return None;
        };
        let Value::Persistent(id) = pickle.get(*storage) else {
            return None;
        };
        let [_, class, key, _, numbers] = pickle.sequence(*id)? else {
            return None;
        };
        let (_, class) = pickle.global(*class)?;
        let counts = |index: Index| -> Option<Vec<usize>> {
            let counts = pickle.sequence(index)?.iter();
            counts.map(|&count| pickle.count(count)).collect()
        };
        let mut numbers = pickle.count(*numbers)?;
        let (kind, dtype) = match function {
            "_rebuild_tensor_v3" => {
                let (_, name) = pickle.global(*rest.get(2)?)?;
                let dtype = Dtype::of_torch(name);
                numbers /= dtype.map_or(1, |dtype| dtype.size);
                (name, dtype)
            }
            _ => (class, Dtype::of_storage(class)),
        };
        Some(Self {
            storage: pickle.text(*key)?.to_string(),
            kind: kind.to_string(),
            dtype,
            numbers,
            offset: pickle.count(*offset)?,
            shape: counts(*shape)?,
            strides: counts(*strides)?,
        })
    }

    /// Hands over its values, which follow each other in their storage.
    ///
    /// Reads the whole entry, because only at its end the archive compares its checksum.
    fn stream(
        &self,
        number: Number,
        archive: &mut Archive,
        name: &str,
        pieces: Pieces<'_>,
    ) -> Result<Cast, String> {
        let (mut entry, bytes) = archive.open(name, u64::MAX)?;
        self.require_numbers(number, bytes)?;
        let mut stream = || -> io::Result<Cast> {
            let skipped = (self.offset * number.size()) as u64;
            io::copy(&mut entry.by_ref().take(skipped), &mut io::sink())?;
            let cast = number.stream(&mut entry, self.len(), pieces)?;
            io::copy(&mut entry, &mut io::sink()).map(|_| cast)
        };
        stream().map_err(|cause| format!("{name} unreadable ({cause})"))
    }

    fn require_numbers(&self, number: Number, bytes: u64) -> Result<(), String> {
        let found = bytes / number.size() as u64;
        match found == self.numbers as u64 {
            true => Ok(()),
            false => {
                let promised = self.numbers;
                Err(format!("{found} numbers where {promised} are promised"))
            }
        }
    }

    fn len(&self) -> usize {
        product(&self.shape).expect("a size that was checked")
    }

    /// Whether its values follow each other in its storage.
    fn lies_in_order(&self) -> bool {
        let mut wanted = 1;
        let dimensions = self.shape.iter().zip(&self.strides).rev();
        let mut in_order = dimensions.map(|(&length, &stride)| {
            let fits = length == 1 || stride == wanted;
            wanted = usize::saturating_mul(wanted, length.max(1));
            fits
        });
        in_order.all(|fits| fits)
    }

    /// Picks its values out of the bytes of its storage.
    fn gather(&self, number: Number, bytes: &[u8], pieces: Pieces<'_>) -> Cast {
        let size = number.size();
        if self.lies_in_order() {
            let mut bytes = &bytes[self.offset * size..];
            let cast = number.stream(&mut bytes, self.len(), pieces);
            return cast.expect("a storage as long as it was promised");
        }
        let (mut cast, mut values) = (Cast::default(), Vec::new());
        let place = |index: usize| {
            let mut rest = index;
            let mut place = self.offset;
            for (length, stride) in self.shape.iter().zip(&self.strides).rev() {
                place += rest % length * stride;
                rest /= length;
            }
            place
        };
        let n_values = self.len();
        let at_once = PIECE_BYTES / size;
        for start in (0..n_values).step_by(at_once) {
            let end = (start + at_once).min(n_values);
            values.clear();
            for index in start..end {
                let bytes = &bytes[place(index) * size..][..size];
                values.push(number.read(bytes, &mut cast));
            }
            pieces(&values);
        }
        cast
    }

    /// The number of its values, if its shape and strides stay within its storage.
    fn check(&self, values_left: u64) -> Result<usize, String> {
        if self.shape.len() != self.strides.len() {
            return Err("other numbers of lengths and strides".to_string());
        }
        let shape = dimensions(&self.shape);
        let too_large = || format!("shape {shape} in a storage of {}", self.numbers);
        let n_values = product(&self.shape).filter(|&n| n <= self.numbers);
        let n_values = n_values.ok_or_else(too_large)?;
        if n_values as u64 > values_left {
            return Err("more values than the file can hold".to_string());
        }
        if n_values == 0 {
            let within = self.offset <= self.numbers;
            return within.then_some(0).ok_or_else(too_large);
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
    use crate::run::TensorMap;
    use std::io::Write;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    /// A tensor: its name, shape, strides and offset.
    type Described<'a> = (&'a str, &'a [u8], &'a [u8], u8);

    /// The pickle of a dictionary of float tensors over storage `0`, and of a number.
    fn pickle(tensors: &[Described<'_>], numbers: u8) -> Vec<u8> {
        let mut pickle = b"\x80\x02}(".to_vec();
        for (name, shape, strides, offset) in tensors {
            pickle.extend(
                [
                    b"X",
                    &(name.len() as u32).to_le_bytes()[..],
                    name.as_bytes(),
                ]
                .concat(),
            );
            pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(");
            pickle.extend(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK");
            pickle.extend([numbers, b't', b'Q', b'K', *offset]);
            for counts in [shape, strides] {
                pickle.push(b'(');
                counts
                    .iter()
                    .for_each(|&count| pickle.extend([b'K', count]));
                pickle.push(b't');
            }
            pickle.extend(b"\x89}tR");
        }
        pickle.extend(b"X\x04\x00\x00\x00stepK\x05u.");
        pickle
    }

    /// A file like those of torch.save: one float tensor `w` over storage `0`.
    fn saved(shape: &[u8], strides: &[u8], offset: u8, numbers: u8, storage: &[u8]) -> Vec<u8> {
        let pickle = pickle(&[("w", shape, strides, offset)], numbers);
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
        super::super::read(&path)
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
    fn what_is_no_tensor_is_named_and_so_is_the_key_of_the_state_dict() {
        let open = |bytes: &[u8]| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("model.pt");
            std::fs::write(&path, bytes).unwrap();
            PytorchFile::open(&path, Globals::Any)
        };
        let file = open(&saved(&[2], &[1], 0, 2, &floats(2))).unwrap();
        let aside = |name: &str, kind: &str| Aside {
            name: name.to_string(),
            kind: kind.to_string(),
        };
        assert_eq!(file.asides(), [aside("step", "a whole number")]);
        assert_eq!(file.key(), "");
        let text = |text: &str| {
            [
                b"X",
                &(text.len() as u32).to_le_bytes()[..],
                text.as_bytes(),
            ]
            .concat()
        };
        let inner = pickle(&[("w", &[2], &[1], 0)], 2);
        let inner = &inner[2..inner.len() - 1];
        let outer = [
            b"\x80\x02}(",
            &text("state_dict")[..],
            b"}",
            &text("model"),
            inner,
        ];
        let rest = [b"s", &text("seed")[..], b"K\x07u."];
        let nested = [outer.concat(), rest.concat()].concat();
        let wrapped = archive(&[
            ("archive/data.pkl", &nested),
            ("archive/data/0", &floats(2)),
        ]);
        let file = open(&wrapped).unwrap();
        let asides = [
            aside("seed", "a whole number"),
            aside("step", "a whole number"),
        ];
        assert_eq!(
            (file.key(), file.asides()),
            ("state_dict.model", &asides[..])
        );
    }

    #[test]
    fn tensors_that_share_a_storage_read_it_once_in_any_order() {
        let tensors = [
            ("v", &[3u8, 2][..], &[1u8, 3][..], 2),
            ("w", &[2, 3], &[3, 1], 0),
        ];
        let pickle = pickle(&tensors, 8);
        let file = archive(&[
            ("archive/data.pkl", &pickle),
            ("archive/data/0", &floats(8)),
        ]);
        let tensors = read(&file).unwrap();
        assert_eq!(*tensors["v"].floats(), [2.0, 5.0, 3.0, 6.0, 4.0, 7.0]);
        assert_eq!(*tensors["w"].floats(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn what_promises_more_than_it_holds_is_refused() {
        let cases = [
            saved(&[2, 5], &[5, 1], 0, 8, &floats(8)),
            saved(&[2, 3], &[3, 1], 5, 8, &floats(8)),
            saved(&[2, 3], &[1, 2], 3, 8, &floats(8)),
            saved(&[2, 3], &[200, 1], 0, 8, &floats(8)),
            saved(&[2, 3], &[3, 1], 0, 200, &floats(8)),
            saved(&[255, 255], &[0, 0], 0, 8, &floats(8)),
            archive(&[("archive/other", b"")]),
            archive(&[
                ("a/data.pkl", &pickle(&[("w", &[2], &[1], 0)], 2)),
                ("b/data.pkl", &pickle(&[("w", &[2], &[1], 0)], 2)),
                ("a/data/0", &floats(2)),
            ]),
            archive(&[
                (
                    "a/data.pkl",
                    &pickle(&[("w", &[2], &[1], 0), ("w", &[2], &[1], 0)], 2),
                ),
                ("a/data/0", &floats(2)),
            ]),
            saved(&[0], &[1], 9, 8, &floats(8)),
            saved(&[2], &[1], 0, 2, &floats(3)),
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
    fn a_tensor_of_several_pieces_is_whole_in_order_and_turned() {
        // 700 by 400 numbers are more than a MiB; a counter of four bytes names such sizes.
        let long = |count: u32| [&b"J"[..], &count.to_le_bytes()].concat();
        let (rows, columns, offset) = (700u32, 400u32, 3u32);
        let numbers = rows * columns + offset;
        let storage: Vec<u8> = (0..numbers)
            .flat_map(|n| (n as f32).to_le_bytes())
            .collect();
        for strides in [[columns, 1], [1, rows]] {
            let parts: [Vec<u8>; 11] = [
                b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(".to_vec(),
                b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu".to_vec(),
                long(numbers),
                b"tQ".to_vec(),
                long(offset),
                b"(".to_vec(),
                [long(rows), long(columns)].concat(),
                b"t(".to_vec(),
                strides.map(long).concat(),
                b"t\x89}tR".to_vec(),
                b"s.".to_vec(),
            ];
            let file = archive(&[
                ("archive/data.pkl", &parts.concat()),
                ("archive/data/0", &storage),
            ]);
            let tensors = read(&file).unwrap();
            assert_eq!(tensors["w"].shape, [700, 400]);
            let place =
                |index: u32| offset + index / columns * strides[0] + index % columns * strides[1];
            let expected = (0..rows * columns).map(|index| place(index) as f32);
            assert!(
                expected.eq(tensors["w"].floats().iter().copied()),
                "{strides:?}"
            );
        }
    }
}
