//! Tests of importing foreign files: numbers, names, layouts, pieces, and the refusal of what would be lost.

use super::brian::{first_difference, target};
use super::brillm::{Release, Sizes, kept, overflows};
use super::checkpoint::{Checkpoint, Doubled, Ignored, in_shape};
use super::fit::{Fit, Theirs, What};
use super::pytorch::Globals;
use super::shards::Shards;
use crate::run::HostTensor;
use brillm::table::Storage;
use safetensors::tensor::{Dtype, TensorView};
use std::fs;
use std::path::{Path, PathBuf};

/// A file of float tensors, each counting on from a number of its own.
fn write(path: &Path, tensors: &[(&str, &[usize], f32)]) -> PathBuf {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape, first)| {
            let n = shape.iter().product::<usize>();
            let values = (0..n).map(|place| first + place as f32);
            values.flat_map(f32::to_le_bytes).collect()
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
        (name.to_string(), view.unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    path.to_path_buf()
}

fn counting(from: f32, n: usize) -> Vec<f32> {
    (0..n).map(|place| from + place as f32).collect()
}

fn open(paths: &[PathBuf], doubled: Doubled) -> Result<Checkpoint, String> {
    Checkpoint::open(paths, Globals::Any, doubled).map_err(|error| error.to_string())
}

#[test]
fn every_tensor_of_a_block_has_its_place_and_only_matrices_of_linear_layers_are_turned() {
    let members = [
        ("attn_norm.weight", "attention_norm.gamma", false),
        ("attn.qkv.weight", "attention.query_key_value.weight", true),
        ("attn.out.weight", "attention.output.weight", true),
        ("ffn_norm.weight", "feed_forward_norm.gamma", false),
        ("ffn.w1.weight", "feed_forward.gate.weight", true),
        ("ffn.w2.weight", "feed_forward.up.weight", true),
        ("ffn.w3.weight", "feed_forward.down.weight", true),
    ];
    let stacks = [
        ("blocks.3.", "blocks.3."),
        ("pre_blocks.0.", "pre.0."),
        ("post_blocks.12.", "post.12."),
        ("route_blocks.1.block.", "pool.1.block."),
    ];
    let mut places = vec![
        (
            "token_embedding.weight".to_string(),
            "embedding.weight".to_string(),
            false,
        ),
        ("norm.weight".into(), "norm.gamma".into(), false),
        (
            "position_table.embeddings".into(),
            "position.embeddings".into(),
            false,
        ),
        (
            "position_table.input_position".into(),
            "position.start".into(),
            false,
        ),
        (
            "router.net.0.weight".into(),
            "router.input.weight".into(),
            true,
        ),
        (
            "router.net.0.bias".into(),
            "router.input.bias".into(),
            false,
        ),
        (
            "router.net.2.weight".into(),
            "router.output.weight".into(),
            true,
        ),
        (
            "router.net.2.bias".into(),
            "router.output.bias".into(),
            false,
        ),
        (
            "exit_block.position_adapter.weight".into(),
            "exit.adapter.weight".into(),
            true,
        ),
        (
            "exit_block.norm.weight".into(),
            "exit.norm.gamma".into(),
            false,
        ),
        (
            "exit_block.proj.weight".into(),
            "exit.projection.weight".into(),
            true,
        ),
        (
            "route_blocks.4.position_adapter.weight".into(),
            "pool.4.adapter.weight".into(),
            true,
        ),
        (
            "global_write.1.proj.weight".into(),
            "memory.write.1.code.weight".into(),
            true,
        ),
        (
            "global_read.query.weight".into(),
            "memory.read.0.query.weight".into(),
            true,
        ),
        (
            "global_read.1.out.weight".into(),
            "memory.read.1.output.weight".into(),
            true,
        ),
        (
            "global_read.1.gate".into(),
            "memory.read.1.gate".into(),
            false,
        ),
        (
            "global_read.head_delta_down".into(),
            "memory.read.0.heads.down".into(),
            false,
        ),
        (
            "global_write.2.head_delta_up".into(),
            "memory.write.2.heads.up".into(),
            false,
        ),
    ];
    for (theirs, ours, turned) in members {
        let of_stack =
            |(from, to): (&str, &str)| (format!("{from}{theirs}"), format!("{to}{ours}"), turned);
        places.extend(stacks.map(of_stack));
    }
    for side in ["key_write", "value_write", "key_read", "value_read"] {
        let theirs = format!("route_blocks.2.block.attn.global_{side}.weight");
        places.push((theirs, format!("memory.blocks.2.maps.{side}.weight"), true));
    }
    for (theirs, ours, turned) in &places {
        let found = target(theirs).unwrap_or_else(|| panic!("{theirs} has no place"));
        assert_eq!((&found.path, found.transposed), (ours, *turned), "{theirs}");
        // A square matrix shows no fault in its shape.
        let square = HostTensor::new(vec![3, 3], counting(1.0, 9));
        let expected = match turned {
            true => vec![1.0, 4.0, 7.0, 2.0, 5.0, 8.0, 3.0, 6.0, 9.0],
            false => counting(1.0, 9),
        };
        assert_eq!(found.layout(square).into_values(), expected);
        let shapes = match turned {
            true => (vec![5, 2], vec![5, 2]),
            false => (vec![2, 5], vec![2, 5]),
        };
        assert_eq!((found.shape(vec![2, 5]), found.theirs(vec![2, 5])), shapes);
    }
    for name in [
        "blocks.x.attn.out.weight",
        "blocks.0.ffn.w4.weight",
        "route_blocks.0.attn.out.weight",
        "lm_head.weight",
    ] {
        assert_eq!(target(name), None, "{name}");
    }
}

#[test]
fn numbers_differ_to_the_bit_and_where_one_list_ends() {
    assert_eq!(first_difference(&[1.0, f32::NAN], &[1.0, f32::NAN]), None);
    assert_eq!(first_difference(&[1.0, 0.0], &[1.0, -0.0]), Some(1));
    assert_eq!(first_difference(&[1.0, 2.0, 3.0], &[1.0, 2.0]), Some(2));
    assert_eq!(first_difference(&[2.0], &[1.0, 2.0]), Some(0));
}

#[test]
fn rows_of_a_release_are_matrices_with_their_biases_below() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.safetensors");
    let file = write(
        &path,
        &[
            ("positions", &[1, 5, 1], 1000.0),
            ("weights", &[4, 2, 2], 0.0),
            ("biases", &[4, 1, 2], 100.0),
            ("node_bias", &[3, 1, 2], 200.0),
        ],
    );
    let mut checkpoint = open(&[file], Doubled::Refused).unwrap();
    assert_eq!(checkpoint.release().unwrap(), Release::Rows(4));
    for storage in [Storage::F32, Storage::Bf16] {
        let sizes = Sizes {
            nodes: 3,
            rows: 4,
            d: 2,
            mix: 5,
            storage,
        };
        let bytes = match storage {
            Storage::F32 => 4 * (24 + 6 + 5),
            Storage::Bf16 => 2 * 24 + 4 * (6 + 5),
        };
        assert_eq!(sizes.bytes(), bytes);
        let fits = checkpoint.compare(Release::Rows(4), sizes);
        assert!(fits.len() == 4 && fits.iter().all(Fit::is_fine));
        let casts: Vec<&str> = fits
            .iter()
            .filter(|fit| fit.cast())
            .map(Fit::name)
            .collect();
        let of_table = match storage {
            Storage::F32 => vec![],
            Storage::Bf16 => vec!["biases", "weights"],
        };
        assert_eq!(casts, of_table);
        let tensors = checkpoint.load(Release::Rows(4), sizes).unwrap();
        let row = |row: usize| {
            let (matrix, bias) = (4.0 * row as f32, 100.0 + 2.0 * row as f32);
            [counting(matrix, 4), counting(bias, 2)].concat()
        };
        assert_eq!(tensors["edges"].shape, [4, 3, 2]);
        assert_eq!(
            *tensors["edges"].floats(),
            (0..4).flat_map(row).collect::<Vec<f32>>()
        );
        assert_eq!(*tensors["mix"].floats(), counting(1000.0, 5));
        assert_eq!(tensors["node_bias"].shape, [3, 2]);
        assert_eq!(*tensors["node_bias"].floats(), counting(200.0, 6));
    }
    let other = Sizes {
        nodes: 3,
        rows: 5,
        d: 2,
        mix: 5,
        storage: Storage::F32,
    };
    let what: Vec<String> = checkpoint
        .compare(Release::Rows(4), other)
        .iter()
        .map(|fit| format!("{}: {:?}", fit.name(), fit.what))
        .collect();
    let expected = [
        "biases: OtherShape([5, 1, 2])",
        "node_bias: Fits",
        "positions: Fits",
        "weights: OtherShape([5, 2, 2])",
    ];
    assert_eq!(what, expected);
}

#[test]
fn the_release_with_a_tensor_per_source_leaves_row_zero_and_goes_on_source_by_source() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.safetensors");
    let file = write(
        &path,
        &[
            ("positions", &[1, 4, 1], 0.0),
            ("network.0", &[2, 2, 2], 10.0),
            ("network.1", &[2, 2, 2], 20.0),
            ("bias.0", &[2, 1, 2], 50.0),
            ("bias.1", &[2, 1, 2], 60.0),
        ],
    );
    let mut checkpoint = open(&[file], Doubled::Refused).unwrap();
    assert_eq!(checkpoint.release().unwrap(), Release::Sources);
    let sizes = Sizes {
        nodes: 2,
        rows: 5,
        d: 2,
        mix: 4,
        storage: Storage::F32,
    };
    let names: Vec<String> = checkpoint
        .compare(Release::Sources, sizes)
        .iter()
        .map(|fit| format!("{} {}", fit.name(), fit.what))
        .collect();
    let expected = [
        "positions fits",
        "bias.0 and so on, 2 in all fits",
        "network.0 and so on, 2 in all fits",
    ];
    assert_eq!(names, expected);
    let tensors = checkpoint.load(Release::Sources, sizes).unwrap();
    let rows: [[f32; 6]; 5] = [
        [0.0; 6],
        [10.0, 11.0, 12.0, 13.0, 50.0, 51.0],
        [14.0, 15.0, 16.0, 17.0, 52.0, 53.0],
        [20.0, 21.0, 22.0, 23.0, 60.0, 61.0],
        [24.0, 25.0, 26.0, 27.0, 62.0, 63.0],
    ];
    assert_eq!(*tensors["edges"].floats(), rows.concat());
    assert_eq!(*tensors["node_bias"].floats(), [0.0; 4]);
}

#[test]
fn what_is_too_large_for_half_the_bits_is_named_with_its_index() {
    // The largest number of bf16 is 255 · 2^120; half a step further it rounds to infinity.
    let largest = 255.0 * 2f32.powi(120);
    assert!(!overflows(largest) && !overflows(f32::INFINITY) && !overflows(f32::NAN));
    assert!(overflows(f32::MAX) && overflows(-f32::MAX));
    assert!(overflows(255.5 * 2f32.powi(120)) && !overflows(255.4 * 2f32.powi(120)));
    let edges = Some(("edges".to_string(), vec![1]));
    let mix = Some(("mix".to_string(), vec![1]));
    let of = |ours| [Storage::F32, Storage::Bf16].map(|storage| kept(ours, storage));
    assert_eq!(
        (of(&edges), of(&mix), of(&None)),
        (["F32", "BF16"], ["F32"; 2], ["F32"; 2])
    );
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.safetensors");
    let tensors: [(&str, &[usize], f32); 4] = [
        ("positions", &[1, 1, 1], 0.0),
        ("weights", &[1, 2, 2], f32::MAX),
        ("biases", &[1, 1, 2], 0.0),
        ("node_bias", &[1, 1, 2], f32::MAX),
    ];
    let mut checkpoint = open(&[write(&path, &tensors)], Doubled::Refused).unwrap();
    let mut load = |storage| {
        let sizes = Sizes {
            nodes: 1,
            rows: 1,
            d: 2,
            mix: 1,
            storage,
        };
        checkpoint
            .load(Release::Rows(1), sizes)
            .map_err(|error| error.to_string())
    };
    assert!(load(Storage::F32).is_ok());
    let error = load(Storage::Bf16).unwrap_err();
    assert!(
        error.contains("tensor \"weights\": found 3.4028235e38 at index 0, too large"),
        "{error}"
    );
}

#[test]
fn a_wrapper_is_taken_off_where_all_names_bear_it() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.safetensors");
    let names = |names: [&str; 2]| {
        let tensors = names.map(|name| (name, &[1usize][..], 1.0));
        let checkpoint = open(&[write(&path, &tensors)], Doubled::Refused).unwrap();
        let found: Vec<String> = checkpoint.tensors().keys().cloned().collect();
        (
            checkpoint.prefix().to_string(),
            found.join(" "),
            checkpoint.hint().is_some(),
        )
    };
    let expected = |prefix: &str, found: &str, hint| (prefix.to_string(), found.to_string(), hint);
    assert_eq!(
        names(["module.a", "module.b"]),
        expected("module.", "a b", false)
    );
    let nested = ["model._orig_mod.a", "model._orig_mod.model.b"];
    assert_eq!(
        names(nested),
        expected("model._orig_mod.", "a model.b", true)
    );
    assert_eq!(names(["module.a", "b"]), expected("", "b module.a", true));
    assert_eq!(
        names(["modules.a", "modules.b"]),
        expected("", "modules.a modules.b", false)
    );
}

#[test]
fn of_two_tensors_of_one_name_the_later_file_counts_or_neither() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let first = write(&at("1.safetensors"), &[("w", &[2], 1.0), ("v", &[1], 5.0)]);
    let second = write(&at("2.safetensors"), &[("w", &[3], 10.0)]);
    let files = [first, second];
    let error = open(&files, Doubled::Refused).err().unwrap();
    assert!(
        error.contains("2.safetensors: tensor \"w\": found a second tensor of this name, first in"),
        "{error}"
    );
    let mut checkpoint = open(&files, Doubled::LaterCounts).unwrap();
    assert_eq!(checkpoint.values("w").unwrap(), [10.0, 11.0, 12.0]);
    assert_eq!(checkpoint.values("v").unwrap(), [5.0]);
    let [ignored] = checkpoint.ignored() else {
        panic!("one is left out")
    };
    assert_eq!(
        (ignored.name.as_str(), &ignored.shape),
        ("w", &Some(vec![2]))
    );
    assert_eq!(checkpoint.files().count(), 2);
}

#[test]
fn parts_are_joined_by_their_numbers_and_only_when_all_are_there() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.safetensors");
    let of = |tensors: &[(&str, &[usize], f32)]| open(&[write(&path, tensors)], Doubled::Refused);
    let mut whole = of(&[
        ("w@00002-of-00003", &[1, 2], 20.0),
        ("w@00001-of-00003", &[2, 2], 10.0),
        ("w@00003-of-00003", &[1, 2], 30.0),
        ("user@host", &[1], 7.0),
    ])
    .unwrap();
    assert_eq!(whole.tensors()["w"].stored.shape, [4, 2]);
    let expected = [10.0, 11.0, 12.0, 13.0, 20.0, 21.0, 30.0, 31.0];
    assert_eq!(whole.values("w").unwrap(), expected);
    assert_eq!(whole.values("user@host").unwrap(), [7.0]);
    for (tensors, found) in [
        (
            &[
                ("w@00001-of-00003", &[2usize, 2][..], 1.0),
                ("w@00002-of-00003", &[1, 2], 2.0),
            ][..],
            "found part 00001-of-00003",
        ),
        (
            &[
                ("w@00001-of-00002", &[2, 2], 1.0),
                ("w@00002-of-00002", &[1, 3], 2.0),
            ],
            "found part 00002-of-00002 of shape [1, 3]",
        ),
        (
            &[("w@00001-of-00001", &[2], 1.0), ("w", &[2], 2.0)],
            "found it whole and in parts",
        ),
    ] {
        let error = of(tensors).err().unwrap();
        assert!(error.contains(found), "{error}");
    }
}

#[test]
fn the_first_number_that_is_not_finite_is_named_by_its_place() {
    assert_eq!(in_shape(0, &[2, 3, 4]), "[0, 0, 0]");
    assert_eq!(in_shape(23, &[2, 3, 4]), "[1, 2, 3]");
    assert_eq!(in_shape(13, &[2, 3, 4]), "[1, 0, 1]");
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.safetensors");
    let mut bytes = [1.0f64; 6];
    let file = |values: &[f64]| {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let view = TensorView::new(Dtype::F64, vec![2, 3], &bytes).unwrap();
        fs::write(&path, safetensors::serialize([("w", view)], None).unwrap()).unwrap();
        let mut checkpoint = open(std::slice::from_ref(&path), Doubled::Refused).unwrap();
        let values = checkpoint.values("w").map_err(|error| error.to_string());
        (values, checkpoint.casts().get("w").copied())
    };
    (bytes[4], bytes[5]) = (1e39, -1e300);
    let error = file(&bytes).0.unwrap_err();
    assert!(
        error.contains(
            "2 of 6 numbers too large for single precision, the first at index 4, [1, 1]: 1e39"
        ),
        "{error}"
    );
    bytes[2] = f64::NAN;
    let error = file(&bytes).0.unwrap_err();
    assert!(
        error.contains("3 of 6 numbers that are not finite, the first at index 2, [0, 2]: NaN"),
        "{error}"
    );
    let (values, cast) = file(&[1.0, 1e-300, 1e-40, 0.5, 0.0, -1e-310]);
    assert_eq!(values.unwrap()[3], 0.5);
    let cast = cast.unwrap();
    assert_eq!((cast.overflowed, cast.vanished, cast.subnormal), (0, 2, 1));
    assert_eq!(file(&[1.0; 6]).1, None);
}

#[test]
fn whole_numbers_are_no_weights_and_their_names_do_not_hide_a_wrapper() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.safetensors");
    let (weight, steps) = (1f32.to_le_bytes(), 9i64.to_le_bytes());
    let views = [
        (
            "module.w",
            TensorView::new(Dtype::F32, vec![1], &weight).unwrap(),
        ),
        (
            "steps",
            TensorView::new(Dtype::I64, vec![], &steps).unwrap(),
        ),
    ];
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let checkpoint = open(&[path], Doubled::Refused).unwrap();
    assert_eq!(
        (checkpoint.prefix(), checkpoint.tensors().len()),
        ("module.", 1)
    );
    let expected = Ignored {
        name: "steps".to_string(),
        theirs: "steps".to_string(),
        shape: Some(vec![]),
        kind: "I64".to_string(),
        why: "whole numbers".to_string(),
    };
    assert_eq!(checkpoint.ignored(), [expected]);
}

#[test]
fn an_index_says_which_file_holds_which_tensor() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    write(
        &at("x-1.safetensors"),
        &[("a", &[1], 1.0), ("c", &[1], 3.0)],
    );
    write(&at("x-2.safetensors"), &[("b", &[1], 2.0)]);
    let index = at("model.safetensors.index.json");
    let say = |places: &str| {
        fs::write(
            &index,
            format!("{{\"metadata\": {{}}, \"weight_map\": {{{places}}}}}"),
        )
        .unwrap();
        open(std::slice::from_ref(&index), Doubled::Refused)
    };
    let right = r#""b": "x-2.safetensors", "a": "x-1.safetensors", "c": "x-1.safetensors""#;
    let mut checkpoint = say(right).unwrap();
    let values = ["a", "b", "c"].map(|name| checkpoint.values(name).unwrap()[0]);
    assert_eq!(values, [1.0, 2.0, 3.0]);
    // A directory that holds an index is read by it.
    let shards = Shards::of(place.path()).unwrap();
    assert_eq!(shards.files, [at("x-2.safetensors"), at("x-1.safetensors")]);
    let places = shards.index.unwrap().places;
    assert_eq!(
        places.values().map(|(file, _)| *file).collect::<Vec<_>>(),
        [1, 0, 1]
    );
    for (places, found) in [
        (
            r#""a": "x-2.safetensors", "b": "x-2.safetensors", "c": "x-1.safetensors""#,
            "tensor \"a\": found it here, expected it in",
        ),
        (
            r#""a": "x-1.safetensors", "b": "x-2.safetensors""#,
            "tensor \"c\": found it here, expected a tensor that it names",
        ),
        (
            r#""a": "x-1.safetensors", "c": "x-1.safetensors", "d": "x-1.safetensors""#,
            "tensor \"d\": found none",
        ),
        (
            r#""a": "../x-1.safetensors""#,
            "the file \"../x-1.safetensors\" for \"a\"",
        ),
        (
            r#""a": "x-3.safetensors""#,
            "x-3.safetensors: found no such file",
        ),
        (
            r#""a": "x-1.safetensors", "a": "x-1.safetensors""#,
            "\"a\" a second time",
        ),
        ("", "found no tensor"),
    ] {
        let error = say(places).err().unwrap();
        assert!(error.contains(found), "{places}: {error}");
    }
    fs::remove_file(&index).unwrap();
    let error = open(&[place.path().to_path_buf()], Doubled::Refused)
        .err()
        .unwrap();
    assert!(
        error.contains("found a directory without any of them"),
        "{error}"
    );
}

#[test]
fn a_row_of_the_table_says_what_becomes_of_a_tensor() {
    let theirs = |kind: &str| Theirs {
        name: "w".to_string(),
        shape: Some(vec![2, 3]),
        kind: kind.to_string(),
    };
    let fit = Fit {
        theirs: Some(theirs("F16")),
        ours: Some(("v".to_string(), vec![3, 2])),
        transposed: true,
        kept: "F32",
        what: What::Fits,
    };
    assert!(fit.cast() && fit.renamed() && fit.is_fine());
    let cells = [
        "F16 to F32",
        "transposed",
        "w",
        "[2, 3]",
        "v",
        "[3, 2]",
        "fits",
    ];
    assert_eq!(fit.cells(), cells.map(str::to_string));
    let same = Fit {
        theirs: Some(theirs("F32")),
        ours: Some(("w".to_string(), vec![2, 3])),
        transposed: false,
        ..fit.clone()
    };
    assert!(!same.cast() && !same.renamed());
    assert_eq!(
        same.cells()[..2],
        ["F32".to_string(), "as it is".to_string()]
    );
    let missing = Fit::missing("v".to_string(), vec![3]);
    assert!(!missing.is_fine() && !missing.renamed() && !missing.cast());
    let cells = ["-", "as it is", "-", "-", "v", "[3]", "is missing"];
    assert_eq!(missing.cells(), cells.map(str::to_string));
    for (what, fine) in [
        (What::Tied, true),
        (What::Copy, true),
        (What::Ignored("why".to_string()), true),
        (What::NoWeights, false),
        (What::NoPlace, false),
        (What::Taken, false),
        (What::OtherShape(vec![1]), false),
    ] {
        let other = Fit {
            what,
            ..fit.clone()
        };
        assert_eq!((other.is_fine(), other.cast()), (fine, false));
    }
}

#[test]
fn a_tensor_of_several_pieces_is_whole() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.safetensors");
    // Two MiB and a bit: f32 is exact up to 2^24.
    let n = (2 << 20) / 4 + 3;
    let mut checkpoint = open(
        &[write(&path, &[("v", &[2], 1.0), ("w", &[n], 5.0)])],
        Doubled::Refused,
    )
    .unwrap();
    assert!(checkpoint.values("w").unwrap() == counting(5.0, n));
    // A fault in the last piece is named by its place in the tensor.
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - 2 * 4;
    bytes[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let error = checkpoint.values("w").unwrap_err().to_string();
    let found = format!(
        "1 of {n} numbers that are not finite, the first at index {}, [{}]: inf",
        n - 2,
        n - 2
    );
    assert!(error.contains(&found), "{error}");
    assert_eq!(checkpoint.values("v").unwrap(), [1.0, 2.0]);
}
