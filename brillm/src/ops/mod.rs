//! The operations of the signal flow, one per file: equation, source, shapes, definition composed of Burn's elementary
//! operations, and where faster versions are. `fused`, in this file, returns the result of the first version that applies.
//!
//! What is fused is a whole pass or a whole step, so `pass` and `step` alone have versions to choose from, and `fused`
//! chooses: a version returns `None` where it does not apply, and then the definition runs. With `NERVE_COMPOSED=1` in the
//! environment no version is asked.
//!
//! | file | operation | on the host | on a GPU |
//! |---|---|---|---|
//! | `gelu` | `z Φ(z)` | `host/numeric` | `resident/arithmetic` |
//! | `first_signal` | the signal at the first token | `flow` | `flow` |
//! | `hop` | `GELU(h W + b + code)` | `flow`, `host/trail` | `resident/trail` |
//! | `mix` | `S / Z` over the past signals | `flow`, `host/trail` | `resident/mix` |
//! | `path` | the mix at every place of the paths | `host/trail` | `resident/trail` |
//! | `energy` | `‖GELU(h W + b + code)‖` | `host/score` | `resident/score` |
//! | `competition` | `−ln p(truth)` among weighted rows | `host/score` | `resident/score` |
//! | `pass` | the losses of a batch, and their gradients | `host/pass` | |
//! | `step` | a pass, and AdamW on the rows that it used | `host/pass` | `resident` |
//! | `gather` | what a pass uses of the parameters, on a device | | |
//! | `composed` | the switch that makes every definition run | | |

mod competition;
pub(crate) mod composed;
mod energy;
mod first_signal;
pub mod gather;
mod gelu;
mod hop;
pub mod host;
mod mix;
pub mod pass;
mod path;
pub(crate) mod step;
#[cfg(test)]
mod tests;

/// Whether passes over a part of a table are to be had: the definitions read a whole one.
pub fn know_shards() -> bool {
    !composed::only()
}

/// A fused version; `None` where it does not apply.
type Version<'a, S, T> = &'a dyn Fn(&mut S) -> Option<T>;

/// The result of the first fused version that applies; `None` if the definition has to run. No other place chooses.
fn fused<S, T>(of: &mut S, versions: &[Version<'_, S, T>]) -> Option<T> {
    if composed::only() {
        return None;
    }
    let found = versions.iter().find_map(|version| version(of))?;
    #[cfg(test)]
    tests::count_fused();
    Some(found)
}
