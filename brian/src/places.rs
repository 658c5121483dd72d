//! `Place`: what a pass gives at a named place of a model: of every block the outputs of attention and of feed-forward and the stream
//! behind it, of a route the scores of its first step and the states that leave it, then the normed states before the head, and the
//! logits. For measuring how they grow with the width; training and decoding do not come by here.
//!
//! A block of the pool is run on the states that enter the walk, at the walk's start, so that what it gives depends on no decision.
//! Where blocks attend to codes that they share, only the walk says what they find: their places are left out.

use crate::baseline::Baseline;
use crate::block::causal::Causal;
use crate::block::transformer::TransformerBlock;
use crate::memory::Memory;
use crate::memory::pass::Attended;
use crate::memory::record::Measures;
use crate::model::Brian;
use crate::ops::embedding::embed;
use crate::ops::linear::linear;
use crate::ops::reshape::{per_row, reshape};
use crate::ops::rms_norm::rms_norm;
use crate::route::context::WalkState;
use crate::route::policy::SequenceInfo;
use crate::route::rules::Rules;
use burn::nn::RmsNorm;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

/// What a pass gives at a place.
#[derive(Clone, Debug)]
pub struct Place<B: Backend> {
    /// `blocks.0.attention`, `pool.1`, `logits`.
    pub name: String,
    /// `[batch * seq, width]`.
    pub values: Tensor<B, 2>,
}

/// The places of a pass, in the order in which it comes by.
struct Places<B: Backend>(Vec<Place<B>>);

impl<B: Backend> Places<B> {
    fn add<const D: usize>(&mut self, name: &str, values: Tensor<B, D>) {
        let width = values.dims()[D - 1];
        self.0.push(Place {
            name: name.to_string(),
            values: values.reshape([-1, width as i32]),
        });
    }

    /// Runs a block, `[batch, seq, d_model]` to the same, and adds its places.
    fn block(
        &mut self,
        name: &str,
        block: &TransformerBlock<B>,
        x: Tensor<B, 3>,
        causal: &Causal<B>,
    ) -> Tensor<B, 3> {
        let dims @ [batch, _, _] = x.dims();
        let x = per_row(x);
        let part = block.residual_factor.unwrap_or(1.0);
        let found = block
            .attention
            .forward(&x, &block.attention_norm, batch, causal);
        let mut attended = linear(found, &block.attention.output).cast(x.dtype());
        if let Some(bias) = &block.attention.output.bias {
            attended = attended + bias.val().unsqueeze();
        }
        let attended = attended * part;
        self.add(&format!("{name}.attention"), attended.clone());
        let x = x + attended;
        let normed = rms_norm(&x, &block.feed_forward_norm, block.products());
        let fed = block.feed_forward.forward(normed).cast(x.dtype()) * part;
        self.add(&format!("{name}.feed_forward"), fed.clone());
        let x = x + fed;
        self.add(name, x.clone());
        reshape(x, dims)
    }

    fn row(
        &mut self,
        name: &str,
        blocks: &[TransformerBlock<B>],
        x: Tensor<B, 3>,
        causal: &Causal<B>,
    ) -> Tensor<B, 3> {
        let blocks = blocks.iter().enumerate();
        blocks.fold(x, |x, (index, block)| {
            self.block(&format!("{name}.{index}"), block, x, causal)
        })
    }

    fn end(
        mut self,
        norm: &RmsNorm<B>,
        hidden: &Tensor<B, 3>,
        logits: Tensor<B, 3>,
    ) -> Vec<Place<B>> {
        let rows = per_row(hidden.clone());
        self.add("hidden", rms_norm(&rows, norm, rows.dtype()));
        self.add("logits", logits);
        self.0
    }
}

impl<B: Backend> Baseline<B> {
    /// What a pass gives at its places, in its order. The last one's values are the logits of [`Self::forward`], up to rounding.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn places(&self, tokens: Tensor<B, 2, Int>) -> Vec<Place<B>> {
        let causal = self.rotary.causal(tokens.dims()[1]);
        let mut places = Places(Vec::new());
        let embedded = embed(&self.embedding, tokens);
        let hidden = places.row("blocks", &self.blocks, embedded, &causal);
        let logits = self.head(hidden.clone());
        places.end(&self.norm, &hidden, logits)
    }
}

impl<B: Backend> Brian<B> {
    /// What a pass gives at its places, in its order. The last one's values are the logits of [`Self::forward`], up to rounding.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn places(
        &self,
        tokens: Tensor<B, 2, Int>,
        rules: &Rules,
        rows: &[SequenceInfo],
    ) -> Vec<Place<B>> {
        let [batch, seq] = tokens.dims();
        let causal = self.rotary.causal(seq);
        let mut places = Places(Vec::new());
        let embedded = embed(&self.embedding, tokens);
        let entered = places.row("pre", &self.pre, embedded, &causal);
        let start = WalkState {
            hidden: entered.clone(),
            position: self.position.table().start(batch * seq),
        };
        let attended = self.memory.as_ref().and_then(Memory::attended);
        if !matches!(attended, Some(Attended::Shared(_))) {
            let told = self.told(&start);
            for (index, routed) in self.pool.iter().enumerate() {
                let x = routed.add_position(entered.clone(), told.clone());
                places.block(&format!("pool.{index}"), &routed.block, x, &causal);
            }
        }
        let position = self.position.reach().tell_router(start.position);
        let scores = self.router.forward(per_row(entered.clone()), position);
        places.add("router", scores);
        let (left, _, _) = self.walked(entered, &causal, rules, rows, Measures::Nothing);
        places.add("walk", left.clone());
        let hidden = places.row("post", &self.post, left, &causal);
        let logits = self.head(hidden.clone());
        places.end(&self.norm, &hidden, logits)
    }
}
