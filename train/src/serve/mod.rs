//! Serves a model over HTTP, with the requests of OpenAI's completions and of lm-eval's remote tokenizer (`docs/server.md`).
//!
//! ```text
//! command → connection → http → request → engine → model's slots
//!                            ← answer ← choice ←
//! ```
//!
//! | file | what |
//! |---|---|
//! | `engine` | the loop of the model's own thread: texts in slots, chunks of prompts, rounds, draws |
//! | `served` | the model as requests see it |
//! | `request`, `refusal` | JSON read field by field, and why a request gets no answer |
//! | `choice`, `answer` | a text from tokens to characters, and all texts of a request as one object or as events |
//! | `http` | paths, keys, bodies |
//! | `connection`, `patient` | connections and their bounds; a client that does not read |
//! | `metrics` | counters, and places in the queue |

pub mod answer;
pub mod choice;
pub mod connection;
pub mod engine;
pub mod http;
pub mod metrics;
mod patient;
pub mod refusal;
pub mod request;
pub mod served;
