//! Routing: a state (hidden, position), and actions: to run a block of the pool, and OUT, which leaves the walk.
//!
//! | file | what |
//! |---|---|
//! | `action` | what a token does at a step, and its index in tensors |
//! | `rules` | everything that decides a walk besides the parameters |
//! | `policy` | who chooses: teachers, the router, or one of them by lot |
//! | `path_rule` | teachers whose type only their program knows |
//! | `position` | the positions of the actions |
//! | `router` | (hidden, position) → action logits |
//! | `constraint`, `exploration` | bounds and noise on the logits, random choices |
//! | `draws` | random draws that depend on neither batch nor future |
//! | `choose` | logits → action, one token, on the host |
//! | `execute` | runs the chosen blocks |
//! | `attending` | how blocks attend for some of their tokens, whatever memory there is |
//! | `exited_cache` | rows of tokens that have left, each made once |
//! | `leave` | gradients of the exit |
//! | `walk`, `context` | the loop over steps, and everything it uses |
//! | `parallel` | several paths at once: what a beam is |
//! | `branch` | children of branches and which of them stay, on the host |
//! | `scores` | scores and weights of branches, on the device |
//! | `beam` | the loop over branches of every token |
//! | `sequence_beam` | the same over branches of every sequence: the reference's, not causal |
//! | `walk_cache` | the walks of earlier tokens, for decoding |
//! | `rounds` | walks of many sequences' tokens, each at a step of its own |
//! | `trace` | the record of a walk |

pub mod action;
pub(crate) mod attending;
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
pub mod path_rule;
pub mod policy;
pub(crate) mod pool;
pub mod position;
pub(crate) mod rounds;
pub mod router;
pub mod rules;
mod scores;
mod sequence_beam;
#[cfg(all(test, feature = "ndarray"))]
mod tests;
pub mod trace;
pub mod walk;
pub(crate) mod walk_cache;
