//! `Section`: a table of a recipe under check, with one method per sort of rule (range, share, name, path, known name, one of
//! two keys); each broken rule is reported, with what would be right. The rules themselves lie elsewhere.

use super::nearest::{nearest, one_of};
use super::path::KeyPath;
use super::report::Report;
use std::path::Path;

/// The largest width, length or count. No machine can hold more, and products of a few of them still fit in 64 bits.
pub const MOST: u64 = 1 << 20;

/// The largest number of steps or tokens.
pub const MOST_STEPS: u64 = 1 << 50;

/// A table of the recipe whose values are checked.
pub struct Section<'a> {
    /// The report that collects problems.
    pub report: &'a Report<'a>,
    /// The path of the table.
    pub path: KeyPath,
}

impl Section<'_> {
    /// The table under a key of this one.
    pub fn key(&self, key: &str) -> Self {
        Self {
            report: self.report,
            path: self.path.key(key),
        }
    }

    /// The element at an index, if this is a list.
    pub fn index(&self, index: usize) -> Self {
        Self {
            report: self.report,
            path: self.path.index(index),
        }
    }

    /// Reports the value of a key unless `holds`.
    pub fn require(&self, key: &str, holds: bool, expected: impl Into<String>) {
        self.relate(key, &[], holds, expected);
    }

    /// Reports a value of this table, or of one in it (`position.d_position`), unless `holds`.
    pub fn field(&self, field: &str, holds: bool, expected: impl Into<String>) {
        match field.split_once('.') {
            Some((table, field)) => self.key(table).field(field, holds, expected),
            None => self.require(field, holds, expected),
        }
    }

    /// Requires that exactly one of two keys is written.
    pub fn either<A, B>(&self, first: &str, a: Option<A>, second: &str, b: Option<B>) {
        let wrong = |path: &KeyPath| self.report.is_wrong(path);
        let found = match (a.is_some(), b.is_some()) {
            (true, true) => format!("both {first} and {second}"),
            (false, false) => format!("neither {first} nor {second}"),
            _ => return,
        };
        let keys = [self.path.key(first), self.path.key(second)];
        if !keys.iter().any(wrong) {
            self.report.add(&self.path, found, "exactly one of the two");
        }
    }

    /// Reports the value of a key unless `holds`, a rule that also depends on the values of others.
    pub fn relate(&self, key: &str, others: &[KeyPath], holds: bool, expected: impl Into<String>) {
        self.relate_with_advice(key, others, holds, expected, "");
    }

    /// The same, with advice.
    pub fn relate_with_advice(
        &self,
        key: &str,
        others: &[KeyPath],
        holds: bool,
        expected: impl Into<String>,
        advice: &str,
    ) {
        let path = self.path.key(key);
        let wrong = |path: &KeyPath| self.report.is_wrong(path);
        if holds || wrong(&path) || others.iter().any(wrong) {
            return;
        }
        let source = self.report.source;
        let found = source.describe(source.locate(&path).node);
        self.report.add_with_advice(&path, found, expected, advice);
    }

    /// Requires a whole number in a range.
    pub fn whole(&self, key: &str, value: u64, least: u64, most: u64) {
        let expected = format!("a whole number from {least} to {most}");
        self.require(key, (least..=most).contains(&value), expected);
    }

    /// Requires a number from 0 to 1.
    pub fn share(&self, key: &str, value: f64) {
        self.require(key, (0.0..=1.0).contains(&value), "from 0 to 1");
    }

    /// Requires a number of at least `least`.
    pub fn least(&self, key: &str, value: f64, least: f64) {
        self.require(key, value >= least, format!("at least {least}"));
    }

    /// Requires a name that can be part of a path.
    pub fn name(&self, key: &str, name: &str) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        // A dot in front hides a folder, and a dash makes it look like an option.
        let holds = (1..=100).contains(&name.len())
            && name.chars().all(allowed)
            && name.starts_with(|c: char| c.is_ascii_alphanumeric());
        self.require(
            key,
            holds,
            "1 to 100 letters, digits, `.`, `_` or `-`, beginning with a letter or digit",
        );
    }

    /// Requires a path that is not empty.
    pub fn path_to_something(&self, key: &str, path: &Path) {
        let bytes = path.as_os_str().as_encoded_bytes();
        self.require(key, !bytes.is_empty() && !bytes.contains(&0), "a path");
    }

    /// Requires one of these names.
    pub fn known(&self, key: &str, name: &str, names: &[&str]) {
        let path = self.path.key(key);
        if names.contains(&name) || self.report.is_wrong(&path) {
            return;
        }
        let meant = nearest(name, names.iter().copied());
        let advice = meant
            .map(|meant| format!("did you mean {meant:?}?"))
            .unwrap_or_default();
        let source = self.report.source;
        let found = source.describe(source.locate(&path).node);
        let expected = one_of(names);
        self.report.add_with_advice(&path, found, expected, advice);
    }
}
