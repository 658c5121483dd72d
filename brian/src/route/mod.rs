//! Where a walk goes: the state (hidden, position), the actions `0..n_pool` (run that block) and OUT = `n_pool`.
//!
//! | file | what |
//! |---|---|
//! | `rules` | everything that decides a walk besides the parameters |
//! | `policy` | who chooses: teachers, the router, or one of them by lot |
//! | `position` | where the operators lie |
//! | `router` | (hidden, position) → action logits |
//! | `constraint`, `exploration` | what is added to the logits, and what disturbs the choice |
//! | `draws` | chance that depends on neither batch nor future |
//! | `choose` | logits → action, one token, on the host |
//! | `execute` | runs the chosen blocks |
//! | `resting` | what is made once of a token that has left |
//! | `leave` | how the task reaches OUT |
//! | `walk` | the loop |
//! | `parallel` | several paths at once: what a beam is |
//! | `branch` | children of branches and which of them stay, on the host |
//! | `scores` | what branches weigh, on the device |
//! | `beam` | the loop over branches of every token |
//! | `sequence_beam` | the same over branches of every sequence: the reference's, not causal |
//! | `past` | what it needs to know of tokens that do not walk again |
//! | `trace` | what it did |

mod beam;
mod branch;
mod choose;
pub mod constraint;
pub mod context;
pub mod draws;
mod execute;
mod exited_cache;
pub mod exploration;
mod leave;
pub mod parallel;
pub mod policy;
pub mod position;
pub mod router;
pub mod rules;
mod scores;
mod sequence_beam;
#[cfg(all(test, feature = "ndarray"))]
mod tests;
pub mod trace;
pub mod walk;
pub(crate) mod walk_cache;
