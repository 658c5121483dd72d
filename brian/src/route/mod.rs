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
//! | `past` | what it needs to know of tokens that do not walk again |
//! | `trace` | what it did |

mod choose;
pub mod constraint;
pub mod draws;
mod execute;
pub mod exploration;
mod leave;
pub(crate) mod past;
pub mod policy;
pub mod position;
mod resting;
pub mod router;
pub mod rules;
pub mod trace;
pub mod walk;
