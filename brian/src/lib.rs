//! BRIAN: a decoder-only Transformer with a pool of middle layers; a router chooses the next layer for every token.
//!
//! ```text
//! tokens → embedding → pre blocks → walk over the pool (block, block, …, OUT) → exit → post blocks → norm → logits
//! ```
//!
//! The folders follow the equation: [`block`] holds the blocks, [`route`] chooses which block runs next, [`memory`] is what
//! tokens leave for later steps, [`loss`] holds the losses, and [`ops`] the operations that all of these are made of.
//! [`Baseline`] is the same Transformer with its blocks in a fixed row; a [`Brian`] with a baseline's weights gives the
//! baseline's logits on the sequential path. [`Rules`] are everything that decides a walk besides the weights.
//!
//! ```
//! use brian::{Baseline, BaselineConfig, Initial};
//! use burn::tensor::{Int, Tensor, backend::Backend};
//!
//! fn logits<B: Backend>(device: &B::Device) -> Tensor<B, 3> {
//!     let config = BaselineConfig {
//!         d_model: 64,
//!         n_heads: 4,
//!         d_ff: 256,
//!         n_layers: 4,
//!         context: 64,
//!         rope_base: 10_000.0,
//!         norm_epsilon: 1e-6,
//!         initial: Initial::Scaled { std: 0.02 },
//!         ..BaselineConfig::small()
//!     };
//!     let model: Baseline<B> = config.init(260, 1, device);
//!     model.forward(Tensor::<B, 2, Int>::zeros([1, 16], device))
//! }
//! ```

#![recursion_limit = "256"]

pub mod baseline;
pub mod block;
pub mod collapse;
pub mod compat;
pub mod decode;
pub mod described;
pub mod error;
pub mod flops;
pub mod generate;
pub mod initial;
pub mod loss;
pub mod memory;
pub mod model;
pub mod ops;
pub mod parameter;
pub mod places;
pub mod precision;
pub mod random;
pub mod route;
pub mod segments;
pub mod stats;
pub mod width_transfer;

pub use baseline::{Baseline, BaselineConfig};
pub use block::AttentionBias;
pub use block::causal::RopeScaling;
pub use block::exit::Exit;
pub use block::residual::ResidualScale;
pub use decode::{Decoder, Decoding};
pub use error::ConfigError;
pub use initial::Initial;
pub use memory::MemoryConfig;
pub use model::{Brian, BrianConfig};
pub use ops::recompute::Recompute;
pub use route::position::{Layout, PositionConfig};
pub use route::rules::{RouteConfig, Rules};
pub use segments::Segments;
pub use width_transfer::WidthTransfer;
