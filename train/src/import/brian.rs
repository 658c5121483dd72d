//! Translates the names and layouts of the reference's PyTorch state dict into parameter paths and tensors of [`brian`].
//!
//! PyTorch keeps a linear map as `[d_out, d_in]`, Burn as `[d_in, d_out]`, so matrices of linear layers are transposed.

use super::fit::Target;
use crate::run::{HostTensor, TensorMap};
use std::collections::BTreeSet;

/// The name of the head in the reference, whose value is that of the embedding.
pub const HEAD: &str = "lm_head.weight";

/// The name of the embedding in the reference.
pub const EMBEDDING: &str = "token_embedding.weight";

/// All tensors that our model has, by our paths, and the names of those that it does not have. A head equal to the embedding is
/// in neither list, because the embedding stands for it.
pub fn translate(tensors: TensorMap) -> (TensorMap, Vec<String>) {
    let floats = |name| tensors.get(name).map(HostTensor::floats);
    let pair = floats(HEAD).zip(floats(EMBEDDING));
    let tied = pair.is_some_and(|(head, other)| first_difference(&head, &other).is_none());
    let shares = tensors.keys().any(|name| name.ends_with(HEAD_READ));
    // The reference lists the maps that blocks share once more under each of them.
    let copied: BTreeSet<String> = tensors
        .iter()
        .filter(|_| shares)
        .filter_map(|(name, tensor)| {
            let (first, _) = shared_map(name)?;
            let is_copy = name != first && tensors.get(first) == Some(tensor);
            is_copy.then(|| name.clone())
        })
        .collect();
    let mut known = TensorMap::new();
    let mut unknown = Vec::new();
    for (name, tensor) in tensors {
        let shared = shared_map(&name).filter(|_| shares);
        let target = match shared {
            Some((first, path)) => (name == first).then(|| Target::new(path, true)),
            None => target(&name),
        };
        match target {
            Some(target) => {
                let tensor = target.layout(tensor);
                known.insert(target.path, tensor);
            }
            None if name == HEAD && tied || copied.contains(&name) => {}
            None => unknown.push(name),
        }
    }
    (known, unknown)
}

/// What a state dict has only if the blocks of the pool share codes.
const HEAD_READ: &str = ".attn.global_key_head_read";

/// Of a map that all blocks of the pool share: its name under the first of them, and our path.
pub fn shared_map(name: &str) -> Option<(&'static str, &'static str)> {
    let (_, map) = name.strip_prefix("route_blocks.")?.split_once('.')?;
    match map {
        "block.attn.global_key_write.weight" => Some((
            "route_blocks.0.block.attn.global_key_write.weight",
            "memory.key_write.weight",
        )),
        "block.attn.global_value_write.weight" => Some((
            "route_blocks.0.block.attn.global_value_write.weight",
            "memory.value_write.weight",
        )),
        _ => None,
    }
}

/// The first position at which two lists of numbers differ, compared bit by bit.
pub fn first_difference(left: &[f32], right: &[f32]) -> Option<usize> {
    let mut pairs = left.iter().zip(right);
    let differs = pairs.position(|(left, right)| left.to_bits() != right.to_bits());
    differs.or((left.len() != right.len()).then(|| left.len().min(right.len())))
}

/// The parameter of ours for a tensor with this name in the reference.
pub fn target(name: &str) -> Option<Target> {
    let (path, transposed) = match name {
        "token_embedding.weight" => ("embedding.weight", false),
        "norm.weight" => ("norm.gamma", false),
        "position_table.embeddings" => ("position.embeddings", false),
        "position_table.input_position" => ("position.start", false),
        "router.net.0.weight" => ("router.input.weight", true),
        "router.net.0.bias" => ("router.input.bias", false),
        "router.net.2.weight" => ("router.output.weight", true),
        "router.net.2.bias" => ("router.output.bias", false),
        "exit_block.position_adapter.weight" => ("exit.adapter.weight", true),
        "exit_block.norm.weight" => ("exit.norm.gamma", false),
        "exit_block.proj.weight" => ("exit.projection.weight", true),
        _ => return in_block(name).or_else(|| in_memory(name)),
    };
    Some(Target::new(path, transposed))
}

fn in_block(name: &str) -> Option<Target> {
    let (stack, rest) = name.split_once('.')?;
    let (index, rest) = rest.split_once('.')?;
    index.parse::<usize>().ok()?;
    let (block, member) = match (stack, rest) {
        ("blocks", rest) => (format!("blocks.{index}"), rest),
        ("pre_blocks", rest) => (format!("pre.{index}"), rest),
        ("post_blocks", rest) => (format!("post.{index}"), rest),
        ("route_blocks", "position_adapter.weight") => {
            return Some(Target::new(format!("pool.{index}.adapter.weight"), true));
        }
        ("route_blocks", rest) => {
            let rest = rest.strip_prefix("block.")?;
            if let Some(name) = rest.strip_prefix("attn.global_") {
                return in_prefix(index, name);
            }
            (format!("pool.{index}.block"), rest)
        }
        _ => return None,
    };
    let (member, transposed) = match member {
        "attn_norm.weight" => ("attention_norm.gamma", false),
        "attn.qkv.weight" => ("attention.query_key_value.weight", true),
        "attn.out.weight" => ("attention.output.weight", true),
        "ffn_norm.weight" => ("feed_forward_norm.gamma", false),
        "ffn.w1.weight" => ("feed_forward.gate.weight", true),
        "ffn.w2.weight" => ("feed_forward.up.weight", true),
        "ffn.w3.weight" => ("feed_forward.down.weight", true),
        _ => return None,
    };
    Some(Target::new(format!("{block}.{member}"), transposed))
}

/// What a pool block has for a memory of keys and values, or for codes that blocks share.
fn in_prefix(index: &str, name: &str) -> Option<Target> {
    let (member, transposed) = match name {
        "logit_bias" => ("bias", false),
        "key_head_read" => ("key_head_read", false),
        "value_head_read" => ("value_head_read", false),
        "key_write.weight" => ("maps.key_write.weight", true),
        "value_write.weight" => ("maps.value_write.weight", true),
        "key_read.weight" => ("maps.key_read.weight", true),
        "value_read.weight" => ("maps.value_read.weight", true),
        _ => return None,
    };
    let path = format!("memory.blocks.{index}.{member}");
    Some(Target::new(path, transposed))
}

/// A memory of codes: `global_write.` or `global_read.`, then an index where there is one for every action.
fn in_memory(name: &str) -> Option<Target> {
    let (side, rest) = name.strip_prefix("global_")?.split_once('.')?;
    let (index, member) = match rest.split_once('.') {
        Some((index, member)) if index.parse::<usize>().is_ok() => (index, member),
        _ => ("0", rest),
    };
    let (member, transposed) = match (side, member) {
        ("write", "proj.weight") => ("code.weight", true),
        ("read", "query.weight") => ("query.weight", true),
        ("read", "out.weight") => ("output.weight", true),
        ("read", "gate") => ("gate", false),
        ("write" | "read", "head_delta_down") => ("heads.down", false),
        ("write" | "read", "head_delta_up") => ("heads.up", false),
        _ => return None,
    };
    let path = format!("memory.{side}.{index}.{member}");
    Some(Target::new(path, transposed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_tensor_has_rows_and_columns_exchanged() {
        let target = target("router.net.0.weight").unwrap();
        let tensor = HostTensor::new(vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let turned = target.layout(tensor);
        assert_eq!(turned.shape, [3, 2]);
        assert_eq!(*turned.floats(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }

    #[test]
    fn names_without_a_place_are_reported_and_the_tied_head_is_not_one() {
        let names = [
            "blocks.0.attn.out.weight",
            "lm_head.weight",
            "token_embedding.weight",
            "global_write.proj.bias",
        ];
        let tensor = || HostTensor::new(vec![1, 1], vec![0.0]);
        let mut tensors: TensorMap = names.map(|name| (name.to_string(), tensor())).into();
        let (known, unknown) = translate(tensors.clone());
        assert_eq!(
            known.into_keys().collect::<Vec<_>>(),
            ["blocks.0.attention.output.weight", "embedding.weight"]
        );
        assert_eq!(unknown, ["global_write.proj.bias"]);
        // Equal numbers, other bits.
        tensors.insert(HEAD.to_string(), HostTensor::new(vec![1, 1], vec![-0.0]));
        let (_, unknown) = translate(tensors);
        assert_eq!(unknown, ["global_write.proj.bias", "lm_head.weight"]);
    }

    #[test]
    fn names_of_the_memory_have_their_places() {
        let places = [
            (
                "global_write.proj.weight",
                "memory.write.0.code.weight",
                true,
            ),
            (
                "global_write.3.head_delta_up",
                "memory.write.3.heads.up",
                false,
            ),
            (
                "global_read.query.weight",
                "memory.read.0.query.weight",
                true,
            ),
            ("global_read.2.gate", "memory.read.2.gate", false),
            (
                "route_blocks.1.block.attn.global_logit_bias",
                "memory.blocks.1.bias",
                false,
            ),
            (
                "route_blocks.1.block.attn.global_key_read.weight",
                "memory.blocks.1.maps.key_read.weight",
                true,
            ),
        ];
        for (name, path, transposed) in places {
            let path = path.to_string();
            assert_eq!(target(name), Some(Target { path, transposed }), "{name}");
        }
        assert_eq!(target("blocks.1.attn.global_logit_bias"), None);
    }

    #[test]
    fn a_single_number_becomes_a_vector_of_one() {
        let number = HostTensor::new(vec![], vec![-4.0]);
        let turned = target("global_read.gate").unwrap().layout(number);
        assert_eq!(turned.shape, [1]);
    }
}
