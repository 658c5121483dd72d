//! What the tests share: the test backend, tolerances with their reasons, small baselines and BRIANs, values and gradients as
//! lists, and differences of lists; re-exports `Workplace`, `Torch` and `in_float64`.

mod precision;
mod program;
mod torch;

pub use precision::in_float64;
pub use program::{Finished, Workplace, lines};
pub use torch::Torch;

use brian::memory::{
    Adapters, AttendedConfig, BothConfig, Compression, HiddenCodeConfig, KeyValuePrefixConfig,
    Lifecycle, SharedCodeConfig, SharedCodes,
};
use brian::{
    AttentionBias, BaselineConfig, BrianConfig, Exit, Initial, Layout, MemoryConfig,
    PositionConfig, ResidualScale, RopeScaling, WidthTransfer,
};
use burn::backend::Autodiff;
use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use burn_ndarray::NdArray;

/// The backend of every test.
pub type TestBackend = NdArray;
/// The same with gradients.
pub type TestAutodiff = Autodiff<TestBackend>;

/// Logits and losses against values computed in float64 and stored as float32: the bar of the golden cases.
pub const GOLDEN: f32 = 1e-4;
/// Gradients against the largest entry of the same tensor: the bar of the golden cases.
pub const GOLDEN_GRADIENT: f32 = 1e-3;
/// Two ways to the same number in float32 that sum in another order.
pub const REORDERED: f32 = 1e-5;
/// Two ways to the same numbers in float64, against the largest of them: what is left is that norms take their means, and tests
/// read, in float32.
pub const EXACT: f32 = 1e-6;

/// A baseline with sizes that are no powers of two, and weights large enough for every part to matter.
pub fn small_baseline() -> BaselineConfig {
    BaselineConfig {
        d_model: 24,
        n_heads: 3,
        d_ff: 40,
        n_layers: 4,
        context: 48,
        rope_base: 10_000.0,
        norm_epsilon: 1e-6,
        initial: Initial::Scaled { std: 0.3 },
        ..BaselineConfig::small()
    }
}

/// The routed model over the same blocks.
pub fn small_brian(exit: Exit, layout: Layout) -> BrianConfig {
    let BaselineConfig {
        d_model,
        n_heads,
        d_ff,
        context,
        rope_base,
        norm_epsilon,
        initial,
        ..
    } = small_baseline();
    let small = BrianConfig::small();
    BrianConfig {
        d_model,
        n_heads,
        d_ff,
        n_pool: 2,
        d_ff_pool: d_ff,
        context,
        rope_base,
        norm_epsilon,
        initial,
        position: PositionConfig {
            d_position: 5,
            layout,
            ..small.position
        },
        exit,
        ..small
    }
}

/// The same with all that attention of pretrained models has: shared keys and values, heads of a width of their own, biases,
/// norms of heads, slower angles; and a head of its own behind a soft cap, scaled residuals, and a width
/// that is transferred.
pub fn as_pretrained(config: &mut BrianConfig) {
    config.n_kv_heads = Some(1);
    config.d_head = Some(6);
    config.attention_bias = Some(AttentionBias::All);
    config.query_key_norm = Some(true);
    config.untied_head = Some(true);
    config.logit_cap = Some(30.0);
    config.residual_scale = Some(ResidualScale::Depth);
    config.width_transfer = Some(WidthTransfer {
        base_d_model: 8,
        base_d_head: 4,
    });
    config.rope_scaling = Some(RopeScaling::Llama3 {
        factor: 4.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 16,
    });
}

/// Every kind of memory, with slots that a walk of four steps evicts.
pub fn small_memories() -> Vec<MemoryConfig> {
    let codes_of = |sink, window, adapters, head_rank| HiddenCodeConfig {
        d_code: 5,
        sink,
        window,
        adapters,
        head_rank,
        lifecycle: Lifecycle::Frozen,
    };
    let codes = |sink, window, adapters, head_rank| {
        MemoryConfig::HiddenCode(codes_of(sink, window, adapters, head_rank))
    };
    let prefix_of = |sink, window, compression| KeyValuePrefixConfig {
        sink,
        window,
        bias: -4.0,
        compression,
        lifecycle: Lifecycle::Frozen,
    };
    let prefix = |sink, window, compression| {
        MemoryConfig::KeyValuePrefix(prefix_of(sink, window, compression))
    };
    let both = |attended| {
        let codes = codes_of(1, 1, Adapters::Shared, 0);
        MemoryConfig::Both(BothConfig { codes, attended })
    };
    let shared = |codes| MemoryConfig::SharedCode(SharedCodeConfig { d_code: 5, codes });
    vec![
        codes(1, 2, Adapters::Shared, 0),
        codes(0, 2, Adapters::PerBlock, 2),
        codes(1, 0, Adapters::Shared, 2),
        prefix(1, 1, Compression::None),
        prefix(0, 2, Compression::Code { d_code: 3 }),
        shared(SharedCodes::Current),
        shared(SharedCodes::CurrentAndLast { bias: -0.5 }),
        both(AttendedConfig::KeyValuePrefix(prefix_of(
            1,
            1,
            Compression::None,
        ))),
        both(AttendedConfig::SharedCode(SharedCodeConfig {
            d_code: 5,
            codes: SharedCodes::CurrentAndLast { bias: -0.5 },
        })),
    ]
}

/// Tokens `[batch, seq]` as a tensor.
pub fn tokens<B: Backend>(rows: &[Vec<i64>]) -> Tensor<B, 2, Int> {
    let data = TensorData::new(rows.concat(), [rows.len(), rows[0].len()]);
    Tensor::from_data(data, &B::Device::default())
}

/// All values of a tensor, in order.
pub fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter().collect()
}

/// The gradients of all parameters, one after the other; zeros where there is none.
pub fn gradients<B: AutodiffBackend, M: AutodiffModule<B>>(
    model: &M,
    gradients: &B::Gradients,
) -> Vec<f32> {
    struct All<'a, B: AutodiffBackend> {
        gradients: &'a B::Gradients,
        values: Vec<f32>,
    }

    impl<B: AutodiffBackend> ModuleVisitor<B> for All<'_, B> {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
            let zeros = || vec![0.0; parameter.shape().num_elements()];
            let gradient = parameter.val().grad(self.gradients);
            self.values.extend(gradient.map_or_else(zeros, values));
        }
    }

    let values = Vec::new();
    let mut all = All { gradients, values };
    model.visit(&mut all);
    all.values
}

/// The largest absolute difference.
///
/// # Panics
/// If the lengths differ.
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let distance = |(a, b): (&f32, &f32)| match (a - b).abs() {
        _ if a == b => 0.0,
        // What is no number is as far as can be: `max` alone would pass over it.
        distance if distance.is_nan() => f32::INFINITY,
        distance => distance,
    };
    a.iter().zip(b).map(distance).fold(0.0, f32::max)
}

/// The same against the largest value expected; what is expected to be zero everywhere has no scale of its own.
pub fn relative(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0.0, |a, b| f32::max(a, b.abs()));
    match largest {
        0.0 => difference(found, expected),
        _ => difference(found, expected) / largest,
    }
}
