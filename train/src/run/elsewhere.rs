//! `Elsewhere`: numbers of a tensor that do not lie in the memory of this process, read in pieces; `OnDisk`, those in a file of a
//! checkpoint, and `Joined`, those of several places one behind the other.
//!
//! They are for tables that are larger than the memory of one machine.

use crate::error::Problem;
use safetensors::tensor::Dtype;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::tensors::Values;

/// Numbers that are read when they are needed.
pub trait Elsewhere: Debug + Send + Sync {
    /// Their stored type, f32 or bf16.
    fn dtype(&self) -> Dtype;

    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of them.
    ///
    /// # Errors
    /// Where they lie, if they cannot be read.
    fn read(&self, places: Range<usize>) -> Result<Values, Problem>;
}

/// Numbers in a file.
#[derive(Debug)]
pub struct OnDisk {
    pub path: PathBuf,
    /// Where they begin.
    pub offset: u64,
    pub n: usize,
    pub dtype: Dtype,
}

impl Elsewhere for OnDisk {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn len(&self) -> usize {
        self.n
    }

    fn read(&self, places: Range<usize>) -> Result<Values, Problem> {
        let unreadable = |error| self.unreadable(places.start, &error);
        let file = File::open(&self.path).map_err(unreadable)?;
        self.read_of(&file, places)
    }
}

impl OnDisk {
    /// The numbers at these places, from the file that is open already.
    pub fn read_of(&self, file: &File, places: Range<usize>) -> Result<Values, Problem> {
        let mut bytes = vec![0; places.len() * self.size()];
        file.read_exact_at(&mut bytes, self.byte(places.start))
            .map_err(|error| self.unreadable(places.start, &error))?;
        Ok(Values::of_bytes(self.dtype, &bytes))
    }

    /// Bytes of a number.
    fn size(&self) -> usize {
        self.dtype.bitsize() / 8
    }

    /// Where the number at a place begins.
    fn byte(&self, place: usize) -> u64 {
        self.offset + (place * self.size()) as u64
    }

    fn unreadable(&self, place: usize, error: &io::Error) -> Problem {
        let offset = self.byte(place);
        let expected = "a readable file of this checkpoint";
        Problem::new(
            &self.path,
            format!("byte {offset}"),
            error.to_string(),
            expected,
        )
    }
}

/// Numbers of one type that lie in several places.
#[derive(Debug)]
pub struct Joined(pub Vec<Arc<dyn Elsewhere>>);

impl Elsewhere for Joined {
    fn dtype(&self) -> Dtype {
        self.0[0].dtype()
    }

    fn len(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }

    fn read(&self, places: Range<usize>) -> Result<Values, Problem> {
        let mut all = Values::with_room(self.dtype(), places.len());
        let mut first = 0;
        for part in &self.0 {
            let here = places.start.max(first)..places.end.min(first + part.len());
            if !here.is_empty() {
                all.extend(&part.read(here.start - first..here.end - first)?);
            }
            first += part.len();
        }
        Ok(all)
    }
}
