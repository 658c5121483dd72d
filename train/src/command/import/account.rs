//! The report of an import, on every tensor of a checkpoint: printed to stderr, and kept in the run as `import.json`.

use super::table;
use crate::import::Checkpoint;
use crate::import::fit::{Fit, What};
use crate::say::{self, note};
use serde_json::{Value, json};

/// The whole report, for the run. All values have been read, and `fits` is every tensor of the checkpoint and of our model.
pub(super) fn to_json(checkpoint: &Checkpoint, fits: &[Fit]) -> Value {
    let files = checkpoint.files().map(|file| file.display().to_string());
    let casts = checkpoint.casts().iter().map(|(name, cast)| {
        let counts = json!({ "became_zero": cast.vanished, "became_subnormal": cast.subnormal });
        (name.clone(), counts)
    });
    json!({
        "schema": 1,
        "files": files.collect::<Vec<_>>(),
        "state_dict": checkpoint.keys(),
        "prefix": checkpoint.prefix(),
        "tensors": fits.iter().map(Fit::to_json).collect::<Vec<_>>(),
        "lost": casts.collect::<serde_json::Map<_, _>>(),
    })
}

/// Prints the table and the notes.
pub(super) fn say(checkpoint: &Checkpoint, fits: &[Fit]) {
    say::say(table(fits).trim_end());
    say_notes(checkpoint, fits);
}

/// Prints notes: facts that no row shows, and the counts of the rows.
pub(super) fn say_notes(checkpoint: &Checkpoint, fits: &[Fit]) {
    let keys = checkpoint.keys().join(", ");
    if !keys.is_empty() {
        note(&format!("the state dict lies under {keys}"));
    }
    let prefix = checkpoint.prefix();
    if !prefix.is_empty() {
        note(&format!("the prefix {prefix} was taken off every name"));
    }
    let casts = checkpoint.casts();
    let zeros: u64 = casts.values().map(|cast| cast.vanished).sum();
    let digits: u64 = casts.values().map(|cast| cast.subnormal).sum();
    if zeros + digits > 0 {
        note(&format!(
            "{} numbers of {} tensors are too small for single precision: {zeros} became zero, {digits} lost digits",
            zeros + digits,
            casts.len()
        ));
    }
    let count = |wanted: &dyn Fn(&Fit) -> bool| fits.iter().filter(|fit| wanted(fit)).count();
    let copies = match count(&|fit| fit.what == What::Copy) {
        0 => String::new(),
        n => format!(", {n} stored once more"),
    };
    note(&format!(
        "{} tensors taken over ({} renamed, {} transposed, {} cast), {} tied, {} ignored{copies}",
        count(&|fit| fit.what == What::Fits),
        count(&|fit| fit.what == What::Fits && fit.renamed()),
        count(&|fit| fit.what == What::Fits && fit.transposed),
        count(&Fit::cast),
        count(&|fit| fit.what == What::Tied),
        count(&|fit| matches!(fit.what, What::Ignored(_))),
    ));
}
