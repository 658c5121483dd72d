//! Collects everything that is wrong with a recipe, so that the user sees all of it at once.

use crate::error::Problem;
use crate::recipe::path::KeyPath;
use crate::recipe::source::Source;
use std::cell::{Cell, RefCell};

/// More problems than this are only counted: nobody reads them, and a hostile file has many.
const MOST: usize = 200;

/// The problems of one recipe.
#[derive(Debug)]
pub struct Report<'a> {
    /// The recipe that they are found in.
    pub source: &'a Source,
    problems: RefCell<Vec<Problem>>,
    wrong: RefCell<Vec<KeyPath>>,
    silenced: RefCell<Vec<KeyPath>>,
    registered: RefCell<Vec<Registered>>,
    further: Cell<usize>,
}

/// Kinds that a program has registered for the choice at a path.
#[derive(Debug)]
struct Registered {
    path: KeyPath,
    kinds: Vec<&'static str>,
    chosen: Option<&'static str>,
}

impl<'a> Report<'a> {
    /// A report without problems.
    pub fn new(source: &'a Source) -> Self {
        Self {
            source,
            problems: RefCell::default(),
            wrong: RefCell::default(),
            silenced: RefCell::default(),
            registered: RefCell::default(),
            further: Cell::new(0),
        }
    }

    /// Lets a choice know kinds that a program has registered besides its own: they are read by whoever asks [`Self::chosen`].
    pub fn register(&self, path: &KeyPath, kinds: Vec<&'static str>) {
        self.registered.borrow_mut().push(Registered {
            path: path.clone(),
            kinds,
            chosen: None,
        });
    }

    /// These kinds and those that were registered for the choice at this path.
    pub fn kinds(&self, path: &KeyPath, own: &[&'static str]) -> Vec<&'static str> {
        let registered = self.registered.borrow();
        let here = registered.iter().filter(|one| one.path == *path);
        let further = here.flat_map(|one| &one.kinds);
        own.iter().chain(further).copied().collect()
    }

    /// Notes what a choice means.
    pub fn chose(&self, path: &KeyPath, kind: &'static str) {
        for one in &mut *self.registered.borrow_mut() {
            if one.path == *path && one.kinds.contains(&kind) {
                one.chosen = Some(kind);
            }
        }
    }

    /// The registered kind that the choice at this path means, also if it is misspelt.
    pub fn chosen(&self, path: &KeyPath) -> Option<&'static str> {
        let registered = self.registered.borrow();
        let mut here = registered.iter().filter(|one| one.path == *path);
        here.find_map(|one| one.chosen)
    }

    /// Reports that the value at `path` is not what it should be; later checks of this value are silent.
    pub fn add(&self, path: &KeyPath, found: impl Into<String>, expected: impl Into<String>) {
        self.add_with_advice(path, found, expected, "");
    }

    /// The same, with advice.
    pub fn add_with_advice(
        &self,
        path: &KeyPath,
        found: impl Into<String>,
        expected: impl Into<String>,
        advice: impl Into<String>,
    ) {
        if self.problems.borrow().len() == MOST {
            self.further.set(self.further.get() + 1);
            return;
        }
        let place = self.source.place(path);
        let problem = Problem::new(&self.source.file, place, found, expected).advise(advice);
        self.problems.borrow_mut().push(problem);
        self.wrong.borrow_mut().push(path.clone());
    }

    /// Silences later checks of this value, because a problem with a part of it or with its name is reported.
    pub fn silence(&self, path: &KeyPath) {
        self.silenced.borrow_mut().push(path.clone());
    }

    /// Whether a problem with this value, or with what holds it, is reported already.
    pub fn is_wrong(&self, path: &KeyPath) -> bool {
        // What was only counted is not known by its path; then no check of values is worth anything.
        self.further.get() > 0
            || self.wrong.borrow().iter().any(|wrong| path.is_below(wrong))
            || self
                .silenced
                .borrow()
                .iter()
                .any(|silenced| path.is_below(silenced))
    }

    /// All problems in the order of the text.
    pub fn into_problems(self) -> Vec<Problem> {
        let paths = self.wrong.into_inner();
        let lines = paths.iter().map(|path| self.source.line(path));
        let mut problems: Vec<_> = lines.zip(self.problems.into_inner()).collect();
        problems.sort_by_key(|(line, _)| *line);
        let mut problems: Vec<Problem> = problems.into_iter().map(|(_, problem)| problem).collect();
        if self.further.get() > 0 {
            let found = format!("{} further problems", self.further.get());
            problems.push(Problem::new(&self.source.file, "", found, "none"));
        }
        problems
    }
}
