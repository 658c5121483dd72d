//! Tests of `nerve import` for decoders: the same weights give the same run from every file format, wrapping, sharding and
//! number type; faulty or lossy files are refused in a line.

use crate::support::{Torch, Workplace};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use train::import;

/// Letters and special tokens of the tokenizer, width, inner width.
const SIZES: [usize; 3] = [23, 4, 6];

type Tensor = (&'static str, Vec<usize>, Vec<f32>);

/// A baseline of one block. Every number is a sixty-fourth of a small whole one, so that halves hold it too.
fn tensors() -> Vec<Tensor> {
    let [vocabulary, d, d_ff] = SIZES;
    let tensor = |number: usize, name, shape: Vec<usize>| {
        let n: usize = shape.iter().product();
        let value = |place: usize| ((number * 31 + place * 17) % 97) as f32 / 64.0 - 0.75;
        (name, shape, (0..n).map(value).collect::<Vec<f32>>())
    };
    let mut all = vec![
        tensor(0, "token_embedding.weight", vec![vocabulary, d]),
        tensor(1, "blocks.0.attn_norm.weight", vec![d]),
        tensor(2, "blocks.0.attn.qkv.weight", vec![3 * d, d]),
        tensor(3, "blocks.0.attn.out.weight", vec![d, d]),
        tensor(4, "blocks.0.ffn_norm.weight", vec![d]),
        tensor(5, "blocks.0.ffn.w1.weight", vec![d_ff, d]),
        tensor(6, "blocks.0.ffn.w2.weight", vec![d_ff, d]),
        tensor(7, "blocks.0.ffn.w3.weight", vec![d, d_ff]),
        tensor(8, "norm.weight", vec![d]),
    ];
    all.push(("lm_head.weight", vec![vocabulary, d], all[0].2.clone()));
    all
}

fn torch(tensors: &[Tensor], prefix: &str) -> Torch {
    let mut torch = Torch::default();
    for (name, shape, values) in tensors {
        torch.tensor(&format!("{prefix}{name}"), shape, values);
    }
    torch
}

/// The bytes of a safetensors file of some kind of numbers, and of a counter.
fn safetensors(tensors: &[Tensor], dtype: &str) -> Vec<u8> {
    let (mut header, mut numbers) = (serde_json::Map::new(), Vec::new());
    let mut add = |name: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>| {
        let start = numbers.len();
        numbers.extend(bytes);
        let entry =
            json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, numbers.len()] });
        header.insert(name.to_string(), entry);
    };
    for (name, shape, values) in tensors {
        let bytes = |value: &f32| match dtype {
            "F64" => f64::from(*value).to_le_bytes().to_vec(),
            "BF16" => value.to_le_bytes()[2..].to_vec(),
            _ => value.to_le_bytes().to_vec(),
        };
        add(name, dtype, shape, values.iter().flat_map(bytes).collect());
    }
    add("steps", "I64", &[], vec![0; 8]);
    let header = Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &numbers].concat()
}

fn workplace() -> Workplace {
    let workplace = Workplace::new();
    workplace.write("letters.txt", "abcdefghijklmnopqrs");
    workplace
        .nerve("tokenizer train letters.txt --kind character --output letters.json")
        .expect(0);
    workplace
}

fn line(file: &str) -> String {
    let [_, d, d_ff] = SIZES;
    format!(
        "import {file} --recipe assets/recipes/baseline/tiny.toml --set tokenizer.file=letters.json --set run.root=runs \
         --set model.d_model={d} --set model.n_heads=1 --set model.d_ff={d_ff} --set model.n_layers=1"
    )
}

/// The files of an index in which the first tensors are in one shard and the others in the other.
fn shards(workplace: &Workplace, change: impl Fn(&mut Vec<(&'static str, usize)>)) {
    let all = tensors();
    let halves = [all[..4].to_vec(), all[4..].to_vec()];
    let mut places = Vec::new();
    for (number, half) in halves.iter().enumerate() {
        let file = format!("pytorch_model-0000{}-of-00002.bin", number + 1);
        torch(half, "").write(&workplace.path(&file));
        places.extend(half.iter().map(|(name, ..)| (*name, number + 1)));
    }
    change(&mut places);
    let file = |number| format!("pytorch_model-0000{number}-of-00002.bin");
    let places = places
        .into_iter()
        .map(|(name, number)| (name.to_string(), json!(file(number))));
    let index = json!({ "weight_map": places.collect::<serde_json::Map<_, _>>() });
    workplace.write("pytorch_model.bin.index.json", index.to_string());
}

#[test]
fn equal_weights_are_equal_runs_from_every_format_wrapping_and_kind_of_numbers() {
    let workplace = workplace();
    let all = tensors();
    torch(&all, "").write(&workplace.path("plain.pt"));
    torch(&all, "_orig_mod.module.")
        .write_wrapped(&workplace.path("wrapped.pt"), "argparse\nNamespace");
    workplace.write("double.safetensors", safetensors(&all, "F64"));
    // As safetensors.torch.save_model keeps a tied pair.
    workplace.write("halved.safetensors", safetensors(&all[1..], "BF16"));
    shards(&workplace, |_| {});
    let model = |run: &str| {
        let folder = workplace.path(run).join("ckpt/step-00000000");
        fs::read(folder.join("model-00001-of-00001.safetensors")).unwrap()
    };
    let first = workplace.nerve(&line("plain.pt")).expect(0);
    let weights = model(first.answer());
    let others = [
        (
            "wrapped.pt",
            "the prefix _orig_mod.module. was taken off every name",
        ),
        ("double.safetensors", "9 cast), 1 tied, 1 ignored"),
        ("halved.safetensors", "9 cast), 0 tied, 1 ignored"),
        ("pytorch_model.bin.index.json", "0 cast), 1 tied, 0 ignored"),
    ];
    for (file, said) in others {
        let run = workplace.nerve(&line(file)).expect(0);
        assert!(run.stderr.contains(said), "{file}: {}", run.stderr);
        assert!(model(run.answer()) == weights, "{file}");
    }
    // Ours is read back, by file and by directory.
    let own = format!("{}/ckpt/step-00000000", first.answer());
    for source in [
        format!("{own}/model-00001-of-00001.safetensors"),
        own.clone(),
    ] {
        let run = workplace.nerve(&line(&source)).expect(0);
        assert!(
            run.stderr
                .contains("9 tensors taken over (0 renamed, 0 transposed, 0 cast)")
        );
        assert!(model(run.answer()) == weights, "{source}");
    }
    let file = workplace
        .path(&own)
        .join("model-00001-of-00001.safetensors");
    let ours = import::read(&file).unwrap();
    let (_, _, theirs) = &all[7];
    let down = &ours["blocks.0.feed_forward.down.weight"];
    assert_eq!(down.shape, [6, 4]);
    for (place, value) in down.floats().iter().enumerate() {
        assert_eq!(*value, theirs[place % 4 * 6 + place / 4]);
    }
    // What became of every tensor is kept.
    let text = fs::read(workplace.path(first.answer()).join("import.json")).unwrap();
    let account: Value = serde_json::from_slice(&text).unwrap();
    let rows = account["tensors"].as_array().unwrap();
    let head = rows
        .iter()
        .find(|row| row["theirs"]["name"] == "lm_head.weight");
    assert_eq!(head.unwrap()["what"], "tied head, stored twice");
}

/// A decoder whose blocks share codes, as the reference stores it: with copies of the shared maps under every block, and with biases
/// that change nothing.
#[test]
fn maps_that_blocks_share_are_taken_over_once_and_copies_of_them_compared() {
    let workplace = workplace();
    let fixture = "fixtures/brian/cache_only_top1/weights.safetensors";
    let weights = import::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(fixture)).unwrap();
    let write = |file: &str, more: f32| {
        let mut torch = Torch::default();
        for (name, tensor) in &weights {
            torch.tensor(name, &tensor.shape, &tensor.floats());
        }
        for side in ["key", "value"] {
            let name =
                |block| format!("route_blocks.{block}.block.attn.global_{side}_write.weight");
            let first = &weights[&name(0)];
            torch.tensor(&name(1), &first.shape, &first.floats());
            let mut last = first.floats().to_vec();
            last[5] += more;
            torch.tensor(&name(2), &first.shape, &last);
        }
        torch.write(&workplace.path(file));
    };
    write("copies.pt", 0.0);
    write("others.pt", 1.0);
    let line = |file: &str| {
        format!(
            "import {file} --recipe assets/recipes/brian/tiny.toml --set tokenizer.file=letters.json --set run.root=runs \
             --set model.d_model=16 --set model.n_heads=2 --set model.d_ff=64 --set model.d_ff_pool=64 --set model.n_pool=3 \
             --set model.exit=projection --set model.position.d_position=6 --set model.position.start=first_block \
             --set model.memory={{kind='shared_code',d_code=4,codes='current'}}"
        )
    };
    let imported = workplace.nerve(&line("copies.pt")).expect(0);
    let said = &imported.stderr;
    assert!(said.contains("3 ignored, 4 stored once more"), "{said}");
    let run = imported.answer().to_string();
    workplace
        .nerve(&format!("sample {run} --prompt ab --tokens 3"))
        .expect(0);
    let refused = workplace.nerve(&line("others.pt")).expect(3).stderr;
    let expected = "tensor \"route_blocks.2.block.attn.global_key_write.weight\": found 1 of 64 numbers that differ";
    assert!(refused.contains(expected), "{refused}");
}

#[test]
fn what_would_be_lost_is_refused_in_a_line() {
    let workplace = workplace();
    let changed = |tensor: usize, place: usize, value: f32| {
        let mut all = tensors();
        all[tensor].2[place] = value;
        all
    };
    let mut scalar = tensors();
    scalar[2] = (scalar[2].0, vec![], vec![1.0]);
    let mut partly = torch(&tensors()[..5], "module.");
    for (name, shape, values) in &tensors()[5..] {
        partly.tensor(name, shape, values);
    }
    partly.write(&workplace.path("partly.pt"));
    torch(&changed(9, 13, 0.5), "").write(&workplace.path("untied.pt"));
    torch(&changed(6, 9, f32::NAN), "").write(&workplace.path("nan.pt"));
    torch(&scalar, "").write(&workplace.path("scalar.pt"));
    workplace.write(
        "untied.safetensors",
        safetensors(&changed(9, 13, 0.5), "F32"),
    );
    let refused = |file: &str, expected: &str| {
        let error = workplace.nerve(&line(file)).expect(3).stderr;
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        assert!(error.contains(expected), "{file}: {error}");
        assert!(!workplace.path("runs").exists(), "{error}");
    };
    let head = "tensor \"lm_head.weight\": found 1 of 92 numbers that differ from those of token_embedding.weight, \
                the first at index 13, [3, 1]: 0.5 and";
    refused("untied.pt", head);
    refused("untied.safetensors", head);
    refused(
        "nan.pt",
        "found 1 of 24 numbers that are not finite, the first at index 9, [2, 1]: NaN",
    );
    refused(
        "scalar.pt",
        "has another shape (blocks.0.attn.qkv.weight), and 0 more, expected the tensors of the recipe's model, here [12, 4] instead of []",
    );
    refused(
        "partly.pt",
        "names begin with module., a prefix that is taken off only where all do",
    );
    let index = "pytorch_model.bin.index.json";
    shards(&workplace, |places| places[1].1 = 2);
    refused(
        index,
        "tensor \"blocks.0.attn_norm.weight\": found it here, expected it in pytorch_model-00002-of-00002.bin",
    );
    shards(&workplace, |places| places.truncate(8));
    refused(index, "found it here, expected a tensor that it names");
    shards(&workplace, |places| places.push(("ghost", 1)));
    refused(
        index,
        "tensor \"ghost\": found none, expected a tensor that",
    );
    shards(&workplace, |_| {});
    fs::remove_file(workplace.path("pytorch_model-00002-of-00002.bin")).unwrap();
    refused(
        index,
        "pytorch_model-00002-of-00002.bin: found no such file",
    );
    refused("/dev/zero", "found a device, expected a file of torch.save");
}
