//! The report of an import, on every tensor of a checkpoint: printed to stderr, and kept in the run as `import.json`.

use super::table;
use crate::import::Checkpoint;
use crate::import::fit::{Fit, What};
use crate::say::{note, say};
use serde_json::{Value, json};

/// The report of an import.
pub(super) struct Account<'a> {
    /// The checkpoint, with all values already read.
    pub checkpoint: &'a Checkpoint,
    /// Every tensor of the checkpoint and of our model.
    pub fits: &'a [Fit],
}

impl Account<'_> {
    /// The whole report, for the run.
    pub fn to_json(&self) -> Value {
        let checkpoint = self.checkpoint;
        let files = checkpoint.files().map(|file| file.display().to_string());
        let casts = checkpoint.casts().iter().map(|(name, cast)| {
            let counts =
                json!({ "became_zero": cast.vanished, "became_subnormal": cast.subnormal });
            (name.clone(), counts)
        });
        json!({
            "schema": 1,
            "files": files.collect::<Vec<_>>(),
            "state_dict": checkpoint.keys(),
            "prefix": checkpoint.prefix(),
            "tensors": self.fits.iter().map(Fit::to_json).collect::<Vec<_>>(),
            "lost": casts.collect::<serde_json::Map<_, _>>(),
        })
    }

    /// Prints the table and the notes.
    pub fn say(&self) {
        say(table(self.fits).trim_end());
        self.say_notes();
    }

    /// Prints notes: facts that no row shows, and the counts of the rows.
    pub fn say_notes(&self) {
        let checkpoint = self.checkpoint;
        if !checkpoint.keys().is_empty() {
            note(&format!(
                "the state dict lies under {}",
                checkpoint.keys().join(", ")
            ));
        }
        if !checkpoint.prefix().is_empty() {
            let prefix = checkpoint.prefix();
            note(&format!("the prefix {prefix} was taken off every name"));
        }
        let mut lost = 0;
        for cast in checkpoint.casts().values() {
            lost += cast.vanished + cast.subnormal;
        }
        if lost > 0 {
            let zeros: u64 = checkpoint.casts().values().map(|cast| cast.vanished).sum();
            let names = checkpoint.casts().len();
            note(&format!(
                "{lost} numbers of {names} tensors are too small for single precision: {zeros} became zero, {} lost digits",
                lost - zeros
            ));
        }
        let count =
            |wanted: &dyn Fn(&Fit) -> bool| self.fits.iter().filter(|fit| wanted(fit)).count();
        note(&format!(
            "{} tensors taken over ({} renamed, {} transposed, {} cast), {} tied, {} ignored",
            count(&|fit| fit.what == What::Fits),
            count(&|fit| fit.what == What::Fits && fit.renamed()),
            count(&|fit| fit.what == What::Fits && fit.transposed),
            count(&Fit::cast),
            count(&|fit| fit.what == What::Tied),
            count(&|fit| matches!(fit.what, What::Ignored(_))),
        ));
    }
}
