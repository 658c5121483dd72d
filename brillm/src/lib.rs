//! BriLLM: a language model that is no Transformer. Every token is a node, every ordered pair of tokens an edge with a
//! small matrix of its own; a signal flows along the sentence, and the next token is the node it reaches with the most
//! energy.
//!
//! Nothing is implemented yet: the crate holds its place in the workspace.
