//! What all ranks of a job have to have in common before the first step, compared field by field.

use super::ranks::Ranks;
use crate::error::{Error, Problem};
use std::collections::BTreeMap;

/// Everything that decides the bits of a training on this rank, by the name under which a difference is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts(pub BTreeMap<String, String>);

impl Facts {
    /// Adds a fact.
    pub fn with(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.0.insert(name.into(), value.to_string());
        self
    }
}

impl Ranks {
    /// Compares the facts of all ranks with those of the first. All ranks call it together.
    ///
    /// # Errors
    /// `Config` on all ranks, with a line for every rank and field that differs.
    pub fn compare(&self, facts: &Facts) -> Result<(), Error> {
        let all = self.gather(&facts.0);
        let (first, others) = all.split_first().expect("this rank is one");
        let mut problems = Vec::new();
        for (rank, other) in (1..).zip(others) {
            let names = first
                .keys()
                .chain(other.keys().filter(|name| !first.contains_key(*name)));
            for name in names.filter(|name| first.get(*name) != other.get(*name)) {
                let of = |facts: &BTreeMap<String, String>| {
                    facts.get(name).map_or("none", String::as_str).to_string()
                };
                let expected = format!("that of rank 0: {}", of(first));
                let problem = Problem::new(format!("rank {rank}"), name, of(other), expected);
                problems.push(
                    problem.advise("start all ranks with the same program, files and settings"),
                );
            }
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Error::Agreed(Error::Config(problems).into())),
        }
    }
}
