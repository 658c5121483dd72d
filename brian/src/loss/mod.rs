//! The losses: one pure function per term.
//!
//! The route losses read the decisions of a [`view`]: of all valid tokens until they leave, or, for parity with the
//! reference, of the last token of every sequence. `p` are the probabilities of the adjusted logits.
//!
//! | term | formula | zero when |
//! |---|---|---|
//! | [`language`] | mean over valid targets of `−ln p(target)` | every target is certain |
//! | [`z_loss`] | mean over valid targets of `(ln Σ exp(logit))²` | the softmax needs no normaliser |
//! | [`imitation`] | mean of `−ln p(teacher's action)` | the router is certain of it; there is no teacher |
//! | [`balance`] | `mean_a (mean p_a − 1/n_pool)²` | the blocks are equally likely and OUT is not |
//! | [`load::selected_balance`] | `mean_a (load_a − Σ load / n_pool)²` | the blocks are executed equally often |
//! | [`load::coverage_floor`] | `Σ_a max(0, least − load_a)` | every block has its least share |
//! | [`transition`] | `1 − H(q) / ln n_pool²` over pairs of blocks | all moves are equally frequent |
//! | [`cost`] | `mean Σ_s alive_s (1 − p_OUT,s)` | every token leaves at once |
//! | [`location`] | mean of `Σ_a p_a abs(P' − E_a)²` | the walk goes where it stands |
//! | [`exit_boundary`] | cross-entropy of `p_OUT` with a rising target | OUT comes exactly at the end |
//! | [`input_anchor`] | `abs(start − mean_a norm(E_a))²` | walks start amid the blocks, or at block 0 |
//! | [`halting_prior`] | `KL(π ‖ geometric)` | tokens leave as the prior says |

pub mod balance;
pub mod cost;
pub mod exit_boundary;
pub mod halting_prior;
pub mod imitation;
pub mod input_anchor;
pub mod language;
pub mod load;
pub mod location;
pub mod route;
#[cfg(all(test, feature = "ndarray"))]
mod tests;
pub mod transition;
pub mod view;
pub mod z_loss;
