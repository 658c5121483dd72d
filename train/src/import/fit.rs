//! A tensor of a foreign checkpoint beside ours.

/// It can be taken over.
pub const FITS: &str = "fits";
/// It is stored a second time, and left out.
pub const TIED: &str = "tied head, stored twice";
/// There is no such tensor in our model.
pub const NO_PLACE: &str = "has no place";
/// There is, but of another shape.
pub const OTHER_SHAPE: &str = "has another shape";
/// Ours has none in the checkpoint.
pub const MISSING: &str = "is missing";

/// A tensor of theirs, ours, or both.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// Its name and shape in the checkpoint.
    pub theirs: Option<(String, Vec<usize>)>,
    /// The name and shape of the parameter that it becomes.
    pub ours: Option<(String, Vec<usize>)>,
    /// Whether it fits, and if not, why.
    pub what: &'static str,
}

impl Fit {
    /// Its name, in the checkpoint if it is there.
    pub fn name(&self) -> &str {
        let either = self.theirs.as_ref().or(self.ours.as_ref());
        either.map_or("", |(name, _)| name)
    }

    /// Whether it is no reason to refuse the checkpoint.
    pub fn is_fine(&self) -> bool {
        self.what == FITS || self.what == TIED
    }
}
