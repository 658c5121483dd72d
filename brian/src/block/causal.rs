//! Rotary angles of places in a sequence and the causal mask, shared by all attention layers of one pass. Where windows hold
//! several texts, both are those of each text alone.

use crate::error::Problems;
use crate::ops::attention_spans::{AttentionSpans, MASKED};
use crate::ops::cat::cat;
pub use crate::ops::rotary::Angles;
use crate::ops::rotary::apply_rotary;
use crate::segments::Segments;
use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use serde::Deserialize;
use std::f64::consts::TAU;
use std::sync::{Arc, OnceLock};

/// How rotary angles grow over places and pairs.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// Pair `j` turns by `base^(-2j / d_head)` per place.
    pub base: f64,
    /// What changes that for a longer context.
    pub scaling: Option<RopeScaling>,
}

/// How pairs turn more slowly, so that a model keeps its sense of distance in a context longer than it was trained with.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeScaling {
    /// All pairs turn `factor` times more slowly (Chen et al. 2023).
    Linear {
        /// By how much.
        factor: f64,
    },
    /// Pairs that turn rarely within the context of training turn `factor` times more slowly, those that turn often as
    /// before, those between something between (Llama 3.1, Grattafiori et al. 2024).
    Llama3 {
        /// By how much.
        factor: f64,
        /// Pairs with at most so many turns within `original_context` are slowed down.
        low_freq_factor: f64,
        /// Pairs with at least so many turns stay as they are.
        high_freq_factor: f64,
        /// The context of training.
        original_context: usize,
    },
}

impl Rope {
    /// By how much a pair turns per place: as `base` alone says, and as it is computed.
    pub fn turns(&self, pair: usize, d_head: usize) -> [f64; 2] {
        let angle = self.base.powf(-2.0 * pair as f64 / d_head as f64);
        let scaled = self.scaling.map_or(angle, |scaling| scaling.scaled(angle));
        [angle, scaled]
    }
}

impl RopeScaling {
    /// All fields that make no angles.
    pub(crate) fn check(self, problems: &mut Problems) {
        let mut at_least_1 = |field, factor: f64| {
            let holds = factor.is_finite() && factor >= 1.0;
            problems.require(holds, field, factor, "a number of at least 1");
        };
        match self {
            Self::Linear { factor } => at_least_1("rope_scaling.factor", factor),
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_context,
            } => {
                at_least_1("rope_scaling.factor", factor);
                let holds = low.is_finite() && low > 0.0;
                let field = "rope_scaling.low_freq_factor";
                problems.require(holds, field, low, "a number above 0");
                let holds = high.is_finite() && high > low;
                let field = "rope_scaling.high_freq_factor";
                problems.require(holds, field, high, "more than low_freq_factor");
                let field = "rope_scaling.original_context";
                problems.at_least_1(field, original_context);
            }
        }
    }

    /// What a pair turns by, instead of `angle` per place.
    fn scaled(self, angle: f64) -> f64 {
        match self {
            Self::Linear { factor } => angle / factor,
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_context,
            } => {
                let n_turns = original_context as f64 * angle / TAU;
                let kept = ((n_turns - low) / (high - low)).clamp(0.0, 1.0);
                kept * angle + (1.0 - kept) * angle / factor
            }
        }
    }
}

/// Cosines and sines of the rotary angles of all places in a model's context.
#[derive(Module, Debug)]
pub struct Rotary<B: Backend> {
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
    #[module(skip)]
    query_factor: f64,
}

impl<B: Backend> Rotary<B> {
    /// Tables `[context, d_head / 2]`, computed in float64; queries have no factor besides the width of a head.
    pub fn new(context: usize, d_head: usize, rope: Rope, device: &B::Device) -> Self {
        let half = d_head / 2;
        let per_place: Vec<f64> = (0..half).map(|pair| rope.turns(pair, d_head)[1]).collect();
        let table = |of: fn(f64) -> f64| {
            let value = |index: usize| {
                let place = (index / half) as f64;
                of(place * per_place[index % half]) as f32
            };
            let values: Vec<f32> = (0..context * half).map(value).collect();
            Tensor::from_data(TensorData::new(values, [context, half]), device)
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
            query_factor: 1.0,
        }
    }

    /// The same with queries multiplied by a factor.
    pub(crate) fn with_query_factor(self, query_factor: f64) -> Self {
        Self {
            query_factor,
            ..self
        }
    }

    /// The most tokens a pass can have.
    pub fn context(&self) -> usize {
        let [context, _] = self.cos.dims();
        context
    }

    /// The angles of tokens of any sequences, which stand at `places` in them.
    pub(crate) fn angles(&self, places: Vec<usize>) -> Angles<B> {
        Angles {
            cos: self.cos.clone(),
            sin: self.sin.clone(),
            places: Some(places),
            query_factor: self.query_factor,
        }
    }

    /// Angles and mask of a pass over `seq` tokens.
    ///
    /// # Panics
    /// If `seq` exceeds the context of the tables.
    pub fn causal(&self, seq: usize) -> Causal<B> {
        self.causal_after(0, seq)
    }

    /// Angles and mask of a pass over windows of `seq` tokens that may hold several texts.
    ///
    /// # Panics
    /// If `seq` exceeds the context of the tables.
    pub fn causal_of(&self, seq: usize, segments: &Segments) -> Causal<B> {
        let apart = (!segments.is_whole()).then(|| Apart {
            segments: Arc::new(segments.clone()),
            spans: Arc::new(AttentionSpans::each(
                segments.ranges().map(|text| text.len()).collect(),
            )),
        });
        Causal {
            apart,
            ..self.causal(seq)
        }
    }

    /// Angles and mask of a pass over `seq` tokens behind `before` earlier ones, which are visible but not run again.
    ///
    /// # Panics
    /// If `before + seq` exceeds the context of the tables.
    pub fn causal_after(&self, before: usize, seq: usize) -> Causal<B> {
        let (context, end) = (self.context(), before + seq);
        assert!(
            end <= context,
            "a sequence of {end} in a context of {context}"
        );
        Causal {
            cos: self.cos.clone().slice_dim(0, before..end),
            sin: self.sin.clone().slice_dim(0, before..end),
            before,
            apart: None,
            query_factor: self.query_factor,
            mask: OnceLock::new(),
        }
    }
}

/// Angles and mask of one pass.
#[derive(Clone, Debug)]
pub struct Causal<B: Backend> {
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
    before: usize,
    apart: Option<Apart>,
    query_factor: f64,
    /// Made when it is asked for: passes on the host need none, and it grows with the square of the length.
    mask: OnceLock<Tensor<B, 3>>,
}

/// Texts of windows that hold several.
#[derive(Clone, Debug)]
struct Apart {
    segments: Arc<Segments>,
    spans: Arc<AttentionSpans>,
}

impl<B: Backend> Causal<B> {
    /// Rotates queries or keys to their places.
    ///
    /// # Shapes
    /// `[batch, n_heads, seq, d_head]` to the same
    pub fn rotate(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let [batch, _, seq, _] = x.dims();
        let [cos, sin] = self.all_angles().tables().map(|table| {
            let [n_rows, half] = table.dims();
            let table = table.reshape([n_rows / seq, 1, seq, half]);
            match self.apart {
                // The branches of a beam count as further windows with the same texts.
                Some(_) => table.repeat_dim(0, batch * seq / n_rows),
                None => table,
            }
        });
        apply_rotary(x, 3, cos, sin)
    }

    /// How texts lie in windows, if any holds several.
    pub fn segments(&self) -> Option<&Arc<Segments>> {
        self.apart.as_ref().map(|apart| &apart.segments)
    }

    /// Which keys each token sees, if any window holds several texts.
    pub(crate) fn spans(&self) -> Option<&Arc<AttentionSpans>> {
        self.apart.as_ref().map(|apart| &apart.spans)
    }

    /// The place of a token in its text; tokens count `[batch * seq]`.
    pub fn place(&self, token: usize) -> usize {
        let [seq, _] = self.cos.dims();
        match self.segments() {
            Some(segments) => segments.place(token),
            None => token % seq,
        }
    }

    /// The angles of selected tokens, which stand at `places` in their sequences.
    pub fn angles(&self, places: Vec<usize>) -> Angles<B> {
        Angles {
            places: Some(places),
            ..self.all_angles()
        }
    }

    /// The angles of all places, in order.
    pub fn all_angles(&self) -> Angles<B> {
        Angles {
            cos: self.cos.clone(),
            sin: self.sin.clone(),
            places: self.segments().map(|segments| segments.places()),
            query_factor: self.query_factor,
        }
    }

    /// What multiplies queries besides `1/sqrt(d_head)`.
    pub(crate) fn query_factor(&self) -> f64 {
        self.query_factor
    }

    /// The causal mask, to be added to scores: later tokens get probability exactly zero.
    ///
    /// # Shapes
    /// Returns `[1, 1, seq, before + seq]`, or `[batch, 1, seq, seq]` where windows hold several texts
    pub fn mask(&self) -> Tensor<B, 4> {
        self.scores().clone().unsqueeze_dim(1)
    }

    /// [`Self::mask`] without its second dimension.
    fn scores(&self) -> &Tensor<B, 3> {
        self.mask.get_or_init(|| {
            let ([seq, _], device) = (self.cos.dims(), self.cos.device());
            let dims = [seq, self.before + seq];
            let future = Tensor::<B, 2, Bool>::tril_mask(dims, self.before as i64, &device);
            let causal = Tensor::zeros(dims, &device).mask_fill(future, MASKED);
            let Some(segments) = self.segments() else {
                return causal.unsqueeze();
            };
            let texts: Vec<i32> = segments
                .of_tokens()
                .iter()
                .map(|&text| text as i32)
                .collect();
            let batch = texts.len() / seq;
            let texts = TensorData::new(texts, [batch, seq]);
            let texts = Tensor::<B, 2, Int>::from_data(texts, &device);
            let dims = [batch, seq, seq];
            let of_queries = texts.clone().unsqueeze_dim::<3>(2).expand(dims);
            let of_keys = texts.unsqueeze_dim::<3>(1).expand(dims);
            let causal = causal.unsqueeze::<3>().expand(dims);
            causal.mask_fill(of_queries.not_equal(of_keys), MASKED)
        })
    }

    /// The mask for tokens that attend to earlier tokens of another sequence, whose keys come first, and to themselves in their
    /// own. It hides all other keys; `absent` is added to the scores of the other sequence.
    ///
    /// # Shapes
    /// `[batch, 1, 1, seq]` to `[batch, 1, seq, 2 * seq]`
    pub fn mask_beside(&self, absent: Tensor<B, 4>) -> Tensor<B, 4> {
        let [batch, _, _, seq] = absent.dims();
        let masks = beside(self.scores().clone());
        let [earlier, own] = masks.map(|mask| mask.unsqueeze_dim::<4>(1));
        cat(vec![earlier + absent, own.expand([batch, 1, seq, seq])], 3)
    }
}

/// Splits a causal mask `[batch or 1, seq, seq]` in two: one leaves only earlier tokens visible, the other, `[1, seq, seq]`, only the
/// token itself.
pub(crate) fn beside<B: Backend>(mask: Tensor<B, 3>) -> [Tensor<B, 3>; 2] {
    let [_, seq, _] = mask.dims();
    let itself = Tensor::<B, 2>::eye(seq, &mask.device()).unsqueeze::<3>();
    [
        mask + itself.clone() * MASKED,
        (itself.neg() + 1.0) * MASKED,
    ]
}
