//! BriLLM, a language model without attention: every token is a node, every ordered pair of tokens an edge with a small matrix;
//! a signal flows along the sentence, and the next token is the node that it reaches with the most energy. Lists the modules.
//!
//! | file | what |
//! |---|---|
//! | `counts` | how often each ordered pair of tokens was seen |
//! | `graph` | which pairs have an edge of their own; the rows of the edge table |
//! | `prior` | the weight with which a pair competes, before any signal flows |
//! | `position` | the code of a position |
//! | `flow` | the first signal, a hop, and the mix of past signals |
//! | `candidate` | which targets compete, grouped by source |
//! | `table` | rows of numbers, as f32 or as bf16 |
//! | `shard` | the rows that lie in this process, where several share a table |
//! | `model` | sizes and parameters |
//! | `ops` | the operations of the signal flow, composed of tensor operations; in `ops/host/` fast, on the host |
//! | `resident` | steps on a GPU, where the table stays between them |
//! | `row_adamw` | AdamW that touches only the rows a batch used |
//! | `training` | one step: groups, pass, AdamW for what is not in the table |
//! | `generate` | the next token after a prompt, in constant memory |
//! | `explain` | why a token came next: traces, contributions, edges |
//! | `compat` | the published configurations by name |

pub mod candidate;
pub mod compat;
pub mod counts;
pub mod decoding;
pub mod explain;
pub mod flow;
pub mod generate;
pub mod graph;
pub mod model;
pub mod ops;
pub mod position;
pub mod prior;
mod resident;
pub mod row_adamw;
pub mod shard;
pub mod table;
#[cfg(test)]
mod tests;
pub mod training;

pub use model::{BriLlm, BriLlmConfig, Parameters};
