//! `CodeMaps`, what a memory of codes asks of its parameters: which slots are kept, whose maps there are, and what they write and
//! read. Its answers for both kinds: ours and a program's.

use super::config::{Adapters, Lifecycle};
use super::custom::{CustomCodes, Found};
use super::hidden_code::HiddenCode;
use super::window::Window;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The parameters of a memory of codes, of either kind.
pub(crate) trait CodeMaps<B: Backend> {
    /// Which slots are kept.
    fn retention(&self) -> Window;

    /// What exists of a token that has left.
    fn lifecycle(&self) -> Lifecycle;

    /// Whose maps write and read.
    fn adapters(&self) -> Adapters;

    /// Codes of hidden states by one of the adapters.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to `[batch, seq, d_code]`
    fn write(&self, adapter: usize, hidden: Tensor<B, 3>) -> Tensor<B, 3>;

    /// What tokens find in codes by one of the adapters.
    ///
    /// # Shapes
    /// As [`Reader::forward`](super::hidden_code::Reader::forward)
    fn read(
        &self,
        adapter: usize,
        hidden: Tensor<B, 3>,
        codes: Tensor<B, 3>,
        mask: Tensor<B, 3>,
    ) -> Found<B>;
}

impl<B: Backend> CodeMaps<B> for HiddenCode<B> {
    fn retention(&self) -> Window {
        self.config.retention()
    }

    fn lifecycle(&self) -> Lifecycle {
        self.config.lifecycle
    }

    fn adapters(&self) -> Adapters {
        self.config.adapters
    }

    fn write(&self, adapter: usize, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        self.write[adapter].forward(hidden)
    }

    fn read(
        &self,
        adapter: usize,
        hidden: Tensor<B, 3>,
        codes: Tensor<B, 3>,
        mask: Tensor<B, 3>,
    ) -> Found<B> {
        self.read[adapter].forward(hidden, codes, mask)
    }
}

/// One set of maps, and nothing of a token that has left.
impl<B: Backend> CodeMaps<B> for CustomCodes<B> {
    fn retention(&self) -> Window {
        self.memory.rule().retention()
    }

    fn lifecycle(&self) -> Lifecycle {
        Lifecycle::Frozen
    }

    fn adapters(&self) -> Adapters {
        Adapters::Shared
    }

    fn write(&self, _: usize, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        self.written(hidden)
    }

    fn read(
        &self,
        _: usize,
        hidden: Tensor<B, 3>,
        codes: Tensor<B, 3>,
        mask: Tensor<B, 3>,
    ) -> Found<B> {
        self.found(hidden, codes, mask)
    }
}
