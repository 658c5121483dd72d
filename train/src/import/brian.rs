//! The reference implementation's state dict (PyTorch names and layouts) → parameter paths of [`brian`].
//!
//! PyTorch keeps a linear map as `[d_out, d_in]`, Burn as `[d_in, d_out]`, so matrices of linear layers are transposed.

use crate::run::{HostTensor, TensorMap};

/// Where one of the reference's tensors goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Our parameter path.
    pub path: String,
    /// Whether rows and columns change places.
    pub transposed: bool,
}

impl Target {
    /// A tensor in our layout.
    ///
    /// # Panics
    /// If a tensor to be transposed is no matrix.
    pub fn layout(&self, tensor: HostTensor) -> HostTensor {
        if !self.transposed {
            return tensor;
        }
        let [rows, columns] = tensor.shape[..] else {
            panic!("{} has shape {:?}", self.path, tensor.shape);
        };
        let values = tensor.floats();
        let value = |index: usize| values[index % rows * columns + index / rows];
        HostTensor::new(
            vec![columns, rows],
            (0..rows * columns).map(value).collect(),
        )
    }
}

/// All tensors that have a place here, by our paths; the names of those that have none.
pub fn translate(tensors: TensorMap) -> (TensorMap, Vec<String>) {
    let mut known = TensorMap::new();
    let mut unknown = Vec::new();
    for (name, tensor) in tensors {
        match target(&name) {
            Some(target) => {
                let tensor = target.layout(tensor);
                known.insert(target.path, tensor);
            }
            // The tied head is stored a second time.
            None if name == "lm_head.weight" => {}
            None => unknown.push(name),
        }
    }
    (known, unknown)
}

/// Where a tensor goes, by its name in the reference.
pub fn target(name: &str) -> Option<Target> {
    let keep = |path: &str| {
        Some(Target {
            path: path.to_string(),
            transposed: false,
        })
    };
    let turn = |path: &str| {
        Some(Target {
            path: path.to_string(),
            transposed: true,
        })
    };
    match name {
        "token_embedding.weight" => keep("embedding.weight"),
        "norm.weight" => keep("norm.gamma"),
        "position_table.embeddings" => keep("position.embeddings"),
        "position_table.input_position" => keep("position.start"),
        "router.net.0.weight" => turn("router.input.weight"),
        "router.net.0.bias" => keep("router.input.bias"),
        "router.net.2.weight" => turn("router.output.weight"),
        "router.net.2.bias" => keep("router.output.bias"),
        "exit_block.position_adapter.weight" => turn("exit.adapter.weight"),
        "exit_block.norm.weight" => keep("exit.norm.gamma"),
        "exit_block.proj.weight" => turn("exit.projection.weight"),
        _ => in_block(name),
    }
}

fn in_block(name: &str) -> Option<Target> {
    let (stack, rest) = name.split_once('.')?;
    let (index, rest) = rest.split_once('.')?;
    index.parse::<usize>().ok()?;
    let (ours, rest) = match (stack, rest) {
        ("blocks", rest) => ("blocks", rest),
        ("pre_blocks", rest) => ("pre", rest),
        ("post_blocks", rest) => ("post", rest),
        ("route_blocks", "position_adapter.weight") => {
            let path = format!("pool.{index}.adapter.weight");
            return Some(Target {
                path,
                transposed: true,
            });
        }
        ("route_blocks", rest) => ("pool", rest.strip_prefix("block.")?),
        _ => return None,
    };
    let (member, transposed) = match rest {
        "attn_norm.weight" => ("attention_norm.gamma", false),
        "attn.qkv.weight" => ("attention.query_key_value.weight", true),
        "attn.out.weight" => ("attention.output.weight", true),
        "ffn_norm.weight" => ("feed_forward_norm.gamma", false),
        "ffn.w1.weight" => ("feed_forward.gate.weight", true),
        "ffn.w2.weight" => ("feed_forward.up.weight", true),
        "ffn.w3.weight" => ("feed_forward.down.weight", true),
        _ => return None,
    };
    let block = if ours == "pool" { "block." } else { "" };
    Some(Target {
        path: format!("{ours}.{index}.{block}{member}"),
        transposed,
    })
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
            "global_write.proj.weight",
        ];
        let tensor = || HostTensor::new(vec![1, 1], vec![0.0]);
        let (known, unknown) = translate(names.map(|name| (name.to_string(), tensor())).into());
        assert_eq!(
            known.into_keys().collect::<Vec<_>>(),
            ["blocks.0.attention.output.weight"]
        );
        assert_eq!(unknown, ["global_write.proj.weight"]);
    }
}
