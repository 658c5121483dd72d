//! Finds the files of a checkpoint from a file, an index or a directory; checks that files hold the tensors an index names.

use super::json::{Entries, Object, shown};
use super::source::in_tensor;
use crate::error::{Error, Problem};
use crate::file::read_regular;
use crate::run::checkpoint;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is expected of an index.
const EXPECTED: &str =
    "an index of shards: an object with weight_map, from tensors to files beside it";

/// What is expected of a directory.
const DIRECTORY: &str = "model.safetensors.index.json, pytorch_model.bin.index.json or a checkpoint of a run in the directory";

/// The names of an index in a directory.
const INDICES: [&str; 2] = [
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
];

/// The largest index that is read.
const MOST_INDEX_BYTES: u64 = 64 << 20;

/// The files of a checkpoint.
pub struct Shards {
    /// The files, each once.
    pub files: Vec<PathBuf>,
    /// Which of them holds which tensor, if an index says so.
    pub index: Option<Index>,
}

/// The content of an index.
pub struct Index {
    /// The index.
    pub path: PathBuf,
    /// The file of each tensor, as a position in the list of files, and whether it was found there.
    pub places: BTreeMap<String, (usize, bool)>,
}

impl Shards {
    /// The files that a path on the command line stands for.
    ///
    /// # Errors
    /// `Invalid` if an index is broken or names a file that is not beside it, or if a directory holds no checkpoint.
    pub fn of(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            return Self::of_directory(path);
        }
        match path.extension() {
            Some(end) if end == "json" => Self::of_index(path),
            _ => Ok(Self {
                files: vec![path.to_path_buf()],
                index: None,
            }),
        }
    }

    /// Refuses a tensor that the index has elsewhere or not at all; remembers that it was found.
    ///
    /// # Errors
    /// `Invalid` with the file, by its position, and where the index has the tensor.
    pub fn require_place(&mut self, file: usize, name: &str) -> Result<(), Error> {
        let Some(index) = &mut self.index else {
            return Ok(());
        };
        let expected = match index.places.get_mut(name) {
            Some((place, found)) if *place == file => {
                *found = true;
                return Ok(());
            }
            Some((place, _)) => format!("it in {}", self.files[*place].display()),
            None => "a tensor that it names".to_string(),
        };
        let expected = format!("{expected}, by {}", index.path.display());
        Err(in_tensor(&self.files[file], name, "it here", expected))
    }

    /// Refuses an index that names tensors which its shards do not hold.
    ///
    /// # Errors
    /// `Invalid` with the first of them.
    pub fn require_all_found(&self) -> Result<(), Error> {
        let Some(Index { path, places }) = &self.index else {
            return Ok(());
        };
        match places.iter().find(|(_, (_, found))| !found) {
            None => Ok(()),
            Some((name, (file, _))) => {
                let expected = format!("a tensor that {} names", path.display());
                Err(in_tensor(&self.files[*file], name, "none", expected))
            }
        }
    }

    fn of_directory(path: &Path) -> Result<Self, Error> {
        let indices = INDICES.map(|name| path.join(name));
        if let Some(index) = indices.iter().find(|index| index.exists()) {
            return Self::of_index(index);
        }
        if !path.join("manifest.json").exists() {
            let problem = Problem::new(path, "", "a directory without any of them", DIRECTORY);
            return Err(Error::Invalid(problem));
        }
        if let Some(problem) = checkpoint::verify(path).into_iter().next() {
            return Err(Error::Invalid(problem));
        }
        let mut files = checkpoint::entries(path)?;
        files.retain(|file| {
            let name = checkpoint::file_name(file);
            name.starts_with("model-") && name.ends_with(".safetensors")
        });
        files.sort();
        Ok(Self { files, index: None })
    }

    fn of_index(path: &Path) -> Result<Self, Error> {
        let bytes = read_regular(path, EXPECTED, MOST_INDEX_BYTES)?;
        let wrong = |found: String, expected: &str| {
            Error::Invalid(Problem::new(path, "weight_map", found, expected))
        };
        let content: Content = serde_json::from_slice(&bytes).map_err(|cause| {
            let found = crate::text::json_complaint(&cause);
            Error::Invalid(Problem::new(path, "", found, EXPECTED))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let mut files = Vec::new();
        let mut places = BTreeMap::new();
        for (name, file) in content.weight_map {
            if Path::new(&file).file_name() != Some(file.as_ref()) || file.ends_with(".json") {
                let found = format!("the file {} for {}", shown(&file), shown(&name));
                return Err(wrong(found, "the name of a file beside the index"));
            }
            let number = *numbers.entry(file.clone()).or_insert_with(|| {
                files.push(folder.join(&file));
                files.len() - 1
            });
            if places.insert(name.clone(), (number, false)).is_some() {
                let found = format!("{} a second time", shown(&name));
                return Err(wrong(found, "every tensor once"));
            }
        }
        if files.is_empty() {
            return Err(wrong("no tensor".to_string(), EXPECTED));
        }
        if let Some(absent) = files.iter().find(|file| !file.exists()) {
            let expected = format!("a shard that {} names", path.display());
            let problem = Problem::new(absent, "", "no such file", expected);
            return Err(Error::Invalid(
                problem.advise("put all shards beside the index"),
            ));
        }
        let index = Index {
            path: path.to_path_buf(),
            places,
        };
        Ok(Self {
            files,
            index: Some(index),
        })
    }
}

#[derive(Deserialize)]
struct Content {
    #[serde(deserialize_with = "pairs")]
    weight_map: Vec<(String, String)>,
}

fn pairs<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<(String, String)>, D::Error> {
    let pairs = Object(Pairs(Vec::new())).deserialize(json)?;
    Ok(pairs.0)
}

/// The texts of an object in its order: a name that stands in it twice is here twice.
struct Pairs(Vec<(String, String)>);

impl Entries for Pairs {
    const EXPECTED: &'static str = "an object of tensors and their files";

    fn entry<'de, A: MapAccess<'de>>(&mut self, name: String, map: &mut A) -> Result<(), A::Error> {
        let file = map.next_value().map_err(|cause| {
            let name = shown(&name);
            A::Error::custom(format!("a file of tensor {name} with {cause}"))
        })?;
        self.0.push((name, file));
        Ok(())
    }
}
