//! `Family`: the architectures that can be taken over, and what transformers (4.40 to 5.x) takes for a field that `config.json`
//! leaves out. These are its `LlamaConfig`, `MistralConfig`, `Qwen2Config` and `Qwen3Config`.

/// An architecture and the defaults of its fields.
#[derive(Debug)]
pub struct Family {
    /// Its `model_type`.
    pub model_type: &'static str,
    /// Its class with a head.
    pub architecture: &'static str,
    /// `vocab_size`
    pub vocab_size: u64,
    /// `hidden_size`
    pub hidden_size: u64,
    /// `intermediate_size`
    pub intermediate_size: u64,
    /// `num_hidden_layers`
    pub num_hidden_layers: u64,
    /// `num_attention_heads`
    pub num_attention_heads: u64,
    /// `num_key_value_heads`; as many as `num_attention_heads` if it has no number of its own.
    pub num_key_value_heads: Option<u64>,
    /// `head_dim`; `hidden_size / num_attention_heads` if it has no number of its own.
    pub head_dim: Option<u64>,
    /// `max_position_embeddings`
    pub max_position_embeddings: u64,
    /// Which biases attention has.
    pub biases: Biases,
    /// Whether queries and keys are normed, head by head.
    pub normed: bool,
    /// What `sliding_window` means.
    pub window: Window,
}

/// Which biases attention has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Biases {
    /// `attention_bias`, false if it is absent: all four maps or none.
    AsTold,
    /// Never.
    Never,
    /// Always, of queries, keys and values.
    QueryKeyValue,
}

/// What `sliding_window` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The family has no such field.
    Unknown,
    /// Every layer has it, unless it is null; 4096 if it is absent.
    Always,
    /// Layers have it only with `use_sliding_window`, which is false if it is absent.
    IfUsed,
}

/// `rms_norm_eps` of all families, where it is absent.
pub const RMS_NORM_EPS: f64 = 1e-6;
/// `rope_theta` of all families, where it is absent.
pub const ROPE_THETA: f64 = 10_000.0;
/// `sliding_window` of Mistral and Qwen, where it is absent.
pub const SLIDING_WINDOW: u64 = 4096;

const LLAMA: Family = Family {
    model_type: "llama",
    architecture: "LlamaForCausalLM",
    vocab_size: 32_000,
    hidden_size: 4096,
    intermediate_size: 11_008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: None,
    head_dim: None,
    max_position_embeddings: 2048,
    biases: Biases::AsTold,
    normed: false,
    window: Window::Unknown,
};

/// All of them.
pub const FAMILIES: [Family; 4] = [
    LLAMA,
    Family {
        model_type: "mistral",
        architecture: "MistralForCausalLM",
        intermediate_size: 14_336,
        num_key_value_heads: Some(8),
        max_position_embeddings: 131_072,
        biases: Biases::Never,
        window: Window::Always,
        ..LLAMA
    },
    Family {
        model_type: "qwen2",
        architecture: "Qwen2ForCausalLM",
        vocab_size: 151_936,
        intermediate_size: 22_016,
        num_key_value_heads: Some(32),
        max_position_embeddings: 32_768,
        biases: Biases::QueryKeyValue,
        window: Window::IfUsed,
        ..LLAMA
    },
    Family {
        model_type: "qwen3",
        architecture: "Qwen3ForCausalLM",
        vocab_size: 151_936,
        intermediate_size: 22_016,
        num_key_value_heads: Some(32),
        head_dim: Some(128),
        max_position_embeddings: 32_768,
        normed: true,
        window: Window::IfUsed,
        ..LLAMA
    },
];
