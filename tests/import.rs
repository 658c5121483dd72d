//! Tests of `nerve import` on the release formats of BriLLM: the run predicts as the reference does, `--probe` finds wrong
//! positions, and faulty files or options are refused in a line.

use crate::signal;
use crate::support::{Finished, GOLDEN, TestAutodiff, Torch, Workplace};
use brillm::BriLlm;
use brillm::compat;
use burn::tensor::Device;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use train::data::{Bigrams, Tokenizer};
use train::family::brillm::BriLlmTask;
use train::import;
use train::ladder::{self, Blueprint, load_into};
use train::run::checkpoint;
use train::run::{RunDirectory, TensorMap};

const CASES: [&str; 3] = ["dense_d8", "sparse_d16", "sparse_d32_wd"];

fn fixture(case: &str, file: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/brillm");
    fixtures.join(case).join(file)
}

/// A workplace that holds the files of a golden case, under the names of a release, and `recipe.toml`, whose run goes to
/// `runs/imported`.
fn workplace(case: &str) -> Workplace {
    let workplace = Workplace::new();
    for (from, to) in [
        ("weights.bin", "model.bin"),
        ("weights.safetensors", "model.safetensors"),
        ("vocab.json", "vocab.json"),
        ("word_frequency.json", "counts.json"),
    ] {
        let from = fixture(case, from);
        if from.exists() {
            fs::copy(from, workplace.path(to)).unwrap();
        }
    }
    let d = signal::json(&fixture(case, "case.json"))["d"]
        .as_u64()
        .unwrap();
    recipe(&workplace, d, !case.starts_with("dense"));
    workplace
}

/// The published recipe at another width; without counts every pair has an edge.
fn recipe(workplace: &Workplace, d: u64, counted: bool) {
    let published = fs::read_to_string(workplace.path("assets/recipes/brillm/zh_4k.toml")).unwrap();
    let root = workplace.path("runs");
    let line = |line: &str| -> Option<String> {
        let key = line.split('=').next().unwrap_or("").trim();
        let changed = match key {
            "d_node" => format!("d_node = {d}"),
            "name" if line.contains("brillm-zh-4k") => "name = \"imported\"".to_string(),
            "root" => format!("root = {root:?}"),
            "kind" if !counted && line.contains("counted") => "kind = \"full\"".to_string(),
            "candidates" if !counted => "candidates = \"all\"".to_string(),
            "counts" | "min_count" | "back_off" | "back_off_rows" if !counted => return None,
            _ => line.to_string(),
        };
        Some(changed)
    };
    let lines: Vec<String> = published.lines().filter_map(line).collect();
    workplace.write("recipe.toml", lines.join("\n") + "\n");
}

/// The line that imports a file of a workplace.
fn line(workplace: &Workplace, files: &str) -> String {
    let counts = match workplace.path("counts.json").exists() {
        true => "--counts counts.json",
        false => "",
    };
    format!("import {files} --recipe recipe.toml --vocabulary vocab.json {counts}")
}

/// What `eval` and `sample` make of a run.
fn model_of(run: &Path) -> BriLlm {
    let recipe = train::recipe::load(&run.join("recipe.toml"), &[]).unwrap();
    let tokenizer = Tokenizer::load(&recipe.tokenizer.file).unwrap();
    let counts = ladder::counts(&recipe, &tokenizer).unwrap();
    let counts = counts.map(|(_, bigrams)| Arc::new(bigrams.counts));
    let blueprint = Blueprint {
        recipe: &recipe,
        vocabulary: tokenizer.vocabulary_size(),
        counts: counts.as_ref(),
        ranks: None,
    };
    let device = Device::<TestAutodiff>::default();
    let skeleton = blueprint.skeleton::<TestAutodiff>(&recipe.stage[0].policy, &device);
    let model = load_into(skeleton, weights_of(run), run).unwrap();
    let signal = model.get::<BriLlmTask<TestAutodiff>>();
    signal
        .expect("the recipe is that of a graph")
        .read()
        .model
        .clone()
}

fn weights_of(run: &Path) -> TensorMap {
    let run = RunDirectory::open(run).unwrap();
    checkpoint::latest(&run).unwrap().unwrap().snapshot.model
}

/// The one line that refuses, and that no run was made.
fn refused(workplace: &Workplace, finished: Finished) -> String {
    let error = finished.expect(3).stderr;
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    assert!(!workplace.path("runs").exists(), "{error}");
    error
}

#[test]
fn imported_golden_weights_predict_as_the_reference_from_either_format() {
    for case in CASES {
        let workplace = workplace(case);
        let import = |file: &str| {
            let run = workplace.nerve(&line(&workplace, file)).expect(0);
            PathBuf::from(run.answer())
        };
        let [of_bin, of_safetensors] = ["model.bin", "model.safetensors"].map(import);
        let weights = |run: &Path| {
            fs::read(run.join("ckpt/step-00000000/model-00001-of-00001.safetensors")).unwrap()
        };
        assert!(weights(&of_bin) == weights(&of_safetensors), "{case}");
        let model = model_of(&of_bin);
        let golden = signal::json(&fixture(case, "case.json"));
        let mode = golden["mode"].as_str().unwrap();
        assert_eq!(*model.graph, signal::graph_of(&fixture(case, ""), mode));
        assert_eq!(model.config.flow, compat::REFERENCE);
        let batch = signal::inputs(&fixture(case, "inputs.safetensors"));
        let expected = import::read(&fixture(case, "expected.safetensors")).unwrap();
        let expected = expected["energies"].clone().into_values();
        let found: Vec<f32> = signal::energies(&model, &batch).concat();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() <= GOLDEN,
                "{case}: {found} {expected}"
            );
        }
        for decode in golden["decode"].as_array().unwrap() {
            signal::check_decode(&model, decode);
        }
    }
}

#[test]
fn an_imported_run_needs_nothing_else_and_is_a_run_like_any_other() {
    let workplace = workplace("sparse_d16");
    let run = workplace.nerve(&line(&workplace, "model.bin")).expect(0);
    let run = run.answer().to_string();
    for file in ["model.bin", "vocab.json", "counts.json", "recipe.toml"] {
        fs::remove_file(workplace.path(file)).ok();
    }
    let sample = format!("sample {run} --prompt ab --tokens 6 --temperature 0");
    let text = workplace.nerve(&sample).expect(0).stdout;
    assert!(
        text.starts_with("ab") && text.trim_end().len() <= 8,
        "{text}"
    );
    workplace.nerve(&format!("runs verify {run}")).expect(0);
    // It has no token that begins a document, and none that ends one.
    let error = workplace.nerve(&format!("sample {run}")).expect(2).stderr;
    assert!(error.contains("--prompt: found no token"), "{error}");
    workplace.write("text.txt", "abcabd\nbadcab\nefgh\nponmlk\n".repeat(9));
    let prepare = format!(
        "data prepare text.txt --document line --valid 0.3 --output data --tokenizer {run}/tokenizer.json"
    );
    workplace.nerve(&prepare).expect(0);
    let ending = format!("{prepare} --force --end-of-document true");
    workplace.nerve(&ending).expect(2);
    let measured = workplace
        .nerve(&format!("eval {run} --data data/valid.bin --json"))
        .expect(0)
        .json();
    let loss = measured["splits"][0]["loss/lm"].as_f64().unwrap();
    // Random weights over 17 tokens know nothing.
    assert!(loss > 1.5 && loss < 9.0, "{loss}");
}

#[test]
fn the_tokenizer_of_a_vocabulary_has_its_ids_and_reads_full_width_forms() {
    let workplace = workplace("sparse_d16");
    let run = workplace.nerve(&line(&workplace, "model.bin")).expect(0);
    let inspect = format!(
        "tokenizer inspect {}/tokenizer.json --json --text",
        run.answer()
    );
    let of = |text: &str| {
        workplace
            .nerve(&format!("{inspect} {text}"))
            .expect(0)
            .json()
    };
    assert_eq!(of("pab")["text"]["ids"], json!([16, 1, 2]));
    assert_eq!(of("ｐａb")["text"]["ids"], json!([16, 1, 2]));
    assert_eq!(of("a，b")["text"]["ids"], json!([1, 0, 2]));
    assert_eq!(of("a")["specials"], json!({ "<unk>": 0 }));
    assert_eq!(of("a")["normalise"], "half_width");
}

#[test]
fn a_dry_run_prints_the_table_and_writes_nothing() {
    let workplace = workplace("sparse_d16");
    let dry = format!("{} --dry-run", line(&workplace, "model.bin"));
    let table = workplace.nerve(&dry).expect(0).stdout;
    for row in [
        "weights    [137, 16, 16]  edges      [137, 17, 16]  fits",
        "positions  [1, 512, 1]    mix        [512]          fits",
        "136 of 289 pairs own a row, and row 0 is shared: 137 rows, as the checkpoint has",
    ] {
        assert!(table.contains(row), "{table}");
    }
    let other = workplace.nerve(&format!("{dry} --set model.d_node=8"));
    assert!(
        other.stdout.contains("has another shape"),
        "{}",
        other.stdout
    );
    assert!(refused(&workplace, other).contains("has another shape (biases), and 2 more"));
}

#[test]
fn another_number_of_rows_is_refused_with_both_numbers() {
    let workplace = workplace("sparse_d16");
    let counts = fs::read_to_string(workplace.path("counts.json")).unwrap();
    let expected = |found: u32| {
        format!(
            "found {} pairs that own a row, so {found} rows, expected 137 rows",
            found - 1
        )
    };
    for (from, to, rows) in [
        ("\"f\": 34", "\"f\": 0", 136),
        ("\"p\": 0", "\"p\": 2", 138),
    ] {
        workplace.write("counts.json", counts.replacen(from, to, 1));
        let error = refused(&workplace, workplace.nerve(&line(&workplace, "model.bin")));
        assert!(error.contains(&expected(rows)), "{error}");
        assert!(error.contains("never padded or trimmed"), "{error}");
    }
}

#[test]
fn pairs_that_the_counts_do_not_mention_own_rows() {
    let workplace = workplace("sparse_d16");
    let whole = workplace.nerve(&line(&workplace, "model.bin")).expect(0);
    let mut counts: Value = signal::json(&workplace.path("counts.json"));
    let of_unknown = counts["<unk>"].as_object_mut().unwrap();
    assert!(of_unknown.remove("f").is_some() && of_unknown.remove("a").is_some());
    counts["a"]["nobody"] = json!(3);
    workplace.write("counts.json", counts.to_string());
    let run = workplace.nerve(&line(&workplace, "model.bin")).expect(0);
    assert!(
        run.stderr.contains("2 pairs are not in the counts"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr
            .contains("1 counts are of tokens that the vocabulary does not have")
    );
    let run = Path::new(run.answer());
    assert_eq!(model_of(run), model_of(Path::new(whole.answer())));
    let bigrams = Bigrams::load(&run.join("bigrams.safetensors")).unwrap();
    assert_eq!(
        (bigrams.counts.count(0, 6), bigrams.counts.pairs()),
        (0, 136)
    );
}

/// The two files of the older release: `n` tokens, `d` wide, every number different.
fn write_dense_2025(workplace: &Workplace, n: usize, d: usize) {
    let value = |tensor: usize, place: usize| ((tensor * 7919 + place) as f32 * 0.37).sin() * 0.5;
    let values = |tensor: usize, n: usize| -> Vec<f32> {
        (0..n).map(|place| value(tensor, place)).collect()
    };
    let mut files = [Torch::default(), Torch::default()];
    files[0].tensor("positions", &[1, 512, 1], &values(0, 512));
    for source in 0..n {
        let file = &mut files[source % 2];
        file.tensor(
            &format!("network.{source}"),
            &[n, d, d],
            &values(1 + source, n * d * d),
        );
        file.tensor(
            &format!("bias.{source}"),
            &[n, 1, d],
            &values(100 + source, n * d),
        );
    }
    // What both files have, the later one says.
    files[1].tensor("bias.0", &[n, 1, d], &values(100, n * d));
    files[0].tensor("bias.1", &[n, 1, d], &vec![9.0; n * d]);
    for (index, file) in files.iter().enumerate() {
        file.write(&workplace.path(&format!("model_{index}.bin")));
    }
    workplace.write(
        "vocab.json",
        r#"{"<unk>": 0, "a": 1, "b": 2, "c": 3, "d": 4}"#,
    );
    recipe(workplace, d as u64, false);
}

#[test]
fn the_release_of_two_files_has_a_row_for_every_pair() {
    let workplace = Workplace::new();
    let (n, d) = (5, 8);
    write_dense_2025(&workplace, n, d);
    let flow = "--set model.flow.first=even --set model.flow.first_hop=0";
    let files = format!("model_0.bin model_1.bin {flow}");
    let table = workplace
        .nerve(&format!("{} --dry-run", line(&workplace, &files)))
        .expect(0);
    assert!(
        table.stdout.contains("network.0 and so on, 5 in all"),
        "{}",
        table.stdout
    );
    assert_eq!(table.stderr, "");
    let run = workplace.nerve(&line(&workplace, &files)).expect(0);
    let model = model_of(Path::new(run.answer()));
    assert_eq!(model.config.flow, compat::DENSE_2025);
    assert_eq!(model.graph.rows(), 26);
    let weights = weights_of(Path::new(run.answer()));
    let edges = weights["edges"].clone().into_values();
    let row = |row: usize| &edges[row * d * (d + 1)..][..d * (d + 1)];
    assert!(row(0).iter().all(|&value| value == 0.0));
    let both =
        [0, 1].map(|index| import::read(&workplace.path(&format!("model_{index}.bin"))).unwrap());
    for source in 0..n {
        // The file that holds the matrices is the one whose biases count.
        let file = &both[source % 2];
        let matrices = file[&format!("network.{source}")].clone().into_values();
        let biases = match source {
            0 => &both[1],
            _ => file,
        };
        let biases = biases[&format!("bias.{source}")].clone().into_values();
        for target in 0..n {
            let row = row(1 + source * n + target);
            assert_eq!(row[..d * d], matrices[target * d * d..][..d * d]);
            assert_eq!(row[d * d..], biases[target * d..][..d]);
        }
    }
    workplace
        .nerve(&format!("sample {} --prompt abc --tokens 4", run.answer()))
        .expect(0);
    // Half of it is no release.
    let half = line(&workplace, &format!("model_0.bin {flow}"));
    let error = workplace.nerve(&half).expect(3).stderr;
    assert!(error.contains("is missing"), "{error}");
}

#[test]
fn a_training_checkpoint_is_unwrapped_and_no_foreign_class_gets_in() {
    let workplace = workplace("sparse_d16");
    let mut torch = Torch::default();
    for (name, tensor) in import::read(&workplace.path("model.bin")).unwrap() {
        let shape = tensor.shape.clone();
        torch.tensor(&name, &shape, &tensor.into_values());
    }
    torch.write_wrapped(&workplace.path("hostile.bin"), "os\nsystem");
    let error = refused(
        &workplace,
        workplace.nerve(&line(&workplace, "hostile.bin")),
    );
    assert!(
        error.contains("\"os.system\", which is no part of a tensor"),
        "{error}"
    );
    torch.write(&workplace.path("plain.bin"));
    torch.write_wrapped(&workplace.path("wrapped.bin"), "argparse\nNamespace");
    let runs = ["model.bin", "plain.bin", "wrapped.bin"].map(|file| {
        let run = workplace.nerve(&line(&workplace, file)).expect(0);
        weights_of(Path::new(run.answer()))
    });
    assert!(runs[0] == runs[1] && runs[0] == runs[2]);
}

#[test]
fn every_fault_of_the_files_is_refused_in_a_line() {
    let workplace = workplace("sparse_d16");
    let whole: Vec<(&str, Vec<u8>)> = [
        "model.bin",
        "model.safetensors",
        "vocab.json",
        "counts.json",
    ]
    .map(|file| (file, fs::read(workplace.path(file)).unwrap()))
    .into();
    let import = |broken: &str| {
        let weights = match broken {
            "model.safetensors" => broken,
            _ => "model.bin",
        };
        let error = refused(&workplace, workplace.nerve(&line(&workplace, weights)));
        assert!(
            error.contains(broken) || error.contains("counts.json"),
            "{error}"
        );
        assert!(
            error.contains("found ") && error.contains("expected "),
            "{error}"
        );
        error
    };
    for (file, bytes) in &whole {
        for cut in [0, 1, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
            workplace.write(file, &bytes[..cut]);
            import(file);
        }
        workplace.write(file, b"nothing of the kind");
        import(file);
        // `--counts` must not be left out because the file is missing.
        let line = line(
            &workplace,
            if *file == "model.safetensors" {
                file
            } else {
                "model.bin"
            },
        );
        fs::remove_file(workplace.path(file)).unwrap();
        assert!(refused(&workplace, workplace.nerve(&line)).contains("no such file"));
        fs::create_dir(workplace.path(file)).unwrap();
        let error = workplace.nerve(&line);
        assert!(matches!(error.code, 3 | 4), "{}", error.stderr);
        fs::remove_dir(workplace.path(file)).unwrap();
        workplace.write(file, bytes);
    }
    // A bit anywhere in the numbers: the archive has a checksum of them.
    for part in 1..8 {
        let (file, bytes) = &whole[0];
        let mut flipped = bytes.clone();
        flipped[bytes.len() * part / 8] ^= 1 << part;
        workplace.write(file, flipped);
        let error = import(file);
        assert!(
            error.contains("checksum") || error.contains("tensor"),
            "{error}"
        );
        workplace.write(file, bytes);
    }
    let vocabulary = String::from_utf8(whole[2].1.clone()).unwrap();
    let counts = String::from_utf8(whole[3].1.clone()).unwrap();
    for (file, text, from, to, expected) in [
        (
            "vocab.json",
            &vocabulary,
            "\"a\": 1, \"b\": 2",
            "\"b\": 2, \"a\": 1",
            "found id 2 of \"b\", expected id 1",
        ),
        (
            "vocab.json",
            &vocabulary,
            "\"b\": 2",
            "\"b\": 1",
            "found id 1 of \"b\", expected id 2",
        ),
        (
            "vocab.json",
            &vocabulary,
            "\"b\"",
            "\"a\"",
            "found \"a\" a second time",
        ),
        (
            "vocab.json",
            &vocabulary,
            "\"p\": 16",
            "\"p\": 16, \"q\": 17",
            "found no source \"q\"",
        ),
        (
            "vocab.json",
            &vocabulary,
            ", \"p\": 16",
            "",
            "rows, expected 137 rows",
        ),
        (
            "vocab.json",
            &vocabulary,
            "\"p\"",
            "\"pq\"",
            "id 16: found the token \"pq\", expected single characters",
        ),
        (
            "counts.json",
            &counts,
            "\"f\": 34",
            "\"f\": 34.5",
            "line 3, column 14: found 34.5, expected a count",
        ),
        (
            "counts.json",
            &counts,
            "\"f\": 34",
            "\"f\": -34",
            "found -34, expected a count",
        ),
        (
            "counts.json",
            &counts,
            "\"f\": 34",
            "\"f\": \"34\"",
            "found the text \"34\", expected a count",
        ),
        (
            "counts.json",
            &counts,
            "\"f\": 34",
            "\"f\": 34, \"f\": 34",
            "found the target \"f\" a second time",
        ),
        (
            "counts.json",
            &counts,
            "  \"a\": {",
            "  \"A\": {",
            "found no source \"a\"",
        ),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, **text, "{from}");
        workplace.write(file, changed);
        let error = refused(&workplace, workplace.nerve(&line(&workplace, "model.bin")));
        assert!(error.contains(expected), "{error}");
        workplace.write(file, text);
    }
    let without = line(&workplace, "model.bin").replace("--counts counts.json", "");
    let error = refused(&workplace, workplace.nerve(&without));
    assert!(error.contains("found 137 rows, expected 290"), "{error}");
    assert!(error.contains("--counts"), "{error}");
}

#[test]
fn options_that_contradict_the_recipe_are_refused() {
    let sparse = workplace("sparse_d16");
    let whole = line(&sparse, "model.bin");
    let without = whole.replace("--vocabulary vocab.json", "");
    let error = sparse.nerve(&without).expect(2).stderr;
    assert!(error.contains("--vocabulary: found none"), "{error}");
    for (set, expected) in [
        (
            "model.edges.min_count=5",
            "model.edges.min_count: found 5, expected 1",
        ),
        (
            "model.edges.back_off={kind='classes',n_classes=4}",
            "model.edges.back_off: found something else, expected shared_row",
        ),
    ] {
        let error = sparse
            .nerve(&format!("{whole} --set {set}"))
            .expect(2)
            .stderr;
        assert!(error.contains(expected), "{error}");
    }
    let dense = workplace("dense_d8");
    fs::copy(sparse.path("counts.json"), dense.path("counts.json")).unwrap();
    let error = dense.nerve(&line(&dense, "model.bin")).expect(2).stderr;
    assert!(
        error.contains("model.edges: found full, expected counted"),
        "{error}"
    );
    let decoder = format!("{whole} --recipe assets/recipes/brian/tiny.toml")
        .replace("--recipe recipe.toml", "");
    let error = sparse.nerve(&decoder).expect(2).stderr;
    assert!(error.contains("the recipe's model is a decoder"), "{error}");
}

/// Trains a small graph of ours by the reference's rules, and writes it as a release.
fn release_of_ours() -> Workplace {
    let workplace = Workplace::with_few_stories();
    // Lines shorter than a path, so that every token has the position in the probe that it had in training.
    let lines = |story: &str| -> Vec<String> {
        let story: Value = serde_json::from_str(story).unwrap();
        let words = story["text"].as_str().unwrap().split_whitespace();
        let words: Vec<&str> = words.collect();
        words.chunks(8).map(|words| words.join(" ")).collect()
    };
    let stories = fs::read_to_string(workplace.path("few.jsonl")).unwrap();
    let lines: Vec<String> = stories.lines().flat_map(lines).collect();
    workplace.write("lines.txt", lines.join("\n"));
    for line in [
        "data prepare lines.txt --document line --valid 0.1 --output data/lines --tokenizer assets/tokenizers/story_bpe.json",
        "data bigrams data/lines/train.bin --start first_token --output data/lines/bigrams.safetensors",
    ] {
        workplace.nerve(line).expect(0);
    }
    let published = fs::read_to_string(workplace.path("assets/recipes/brillm/zh_4k.toml")).unwrap();
    workplace.write("recipe.toml", published.replace("zhwiki", "lines"));
    let sets = "--set model.d_node=8 --set run.name=ours --set batch.sequences=16 --set batch.accumulate=1 \
                --set stage.train.steps=60 --set watch.valid_every_steps=0 --set watch.sample_every_steps=0 \
                --set watch.sample_prompts=['Once']";
    let fit = format!("fit recipe.toml --render none {sets}");
    let run = workplace.nerve(&fit).expect(0).answer().to_string();
    let weights = weights_of(&workplace.path(&run));
    let bigrams = Bigrams::load(&workplace.path("data/lines/bigrams.safetensors")).unwrap();
    let tokenizer = Tokenizer::load(workplace.path("data/lines/tokenizer.json")).unwrap();
    let (nodes, d) = (tokenizer.vocabulary_size(), 8);
    let (edges, mix) = (
        weights["edges"].clone().into_values(),
        weights["mix"].clone().into_values(),
    );
    let rows = || edges.chunks(d * (d + 1));
    let mut torch = Torch::default();
    torch.tensor("positions", &[1, mix.len(), 1], &mix);
    let matrices: Vec<f32> = rows().flat_map(|row| row[..d * d].to_vec()).collect();
    torch.tensor("weights", &[rows().len(), d, d], &matrices);
    let biases: Vec<f32> = rows().flat_map(|row| row[d * d..].to_vec()).collect();
    torch.tensor("biases", &[rows().len(), 1, d], &biases);
    torch.tensor(
        "node_bias",
        &[nodes, 1, d],
        &weights["node_bias"].clone().into_values(),
    );
    torch.write(&workplace.path("model.bin"));
    let token = |id: usize| json!(tokenizer.token_text(id as u32)).to_string();
    // By hand, because the order of the file counts.
    let ids: Vec<String> = (0..nodes)
        .map(|id| format!("{}: {id}", token(id)))
        .collect();
    workplace.write("vocab.json", format!("{{{}}}", ids.join(", ")));
    let of = |source: usize| {
        let count = |target: usize| bigrams.counts.count(source as u32, target as u32);
        let counts: Vec<String> = (0..nodes)
            .map(|target| format!("{}: {}", token(target), count(target)))
            .collect();
        format!("{}: {{{}}}", token(source), counts.join(", "))
    };
    let sources: Vec<String> = (0..nodes).map(of).collect();
    workplace.write("counts.json", format!("{{{}}}", sources.join(",\n")));
    workplace
}

#[test]
fn a_graph_of_ours_written_as_a_release_comes_back_and_the_probe_knows_its_positions() {
    let workplace = release_of_ours();
    let import = format!(
        "{} --set model.d_node=8 --set run.name=back --tokenizer data/lines/tokenizer.json --probe lines.txt",
        line(&workplace, "model.bin")
    );
    let run = workplace.nerve(&import).expect(0);
    assert!(
        !run.stderr.contains("not clearly the best"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("the recipe"), "{}", run.stderr);
    let back = workplace.path(run.answer());
    assert_eq!(weights_of(&back), weights_of(&workplace.path("runs/ours")));
    let loss = |run: &str| {
        let measured = workplace
            .nerve(&format!("eval {run} --json"))
            .expect(0)
            .json();
        measured["splits"][0]["loss/lm"].as_f64().unwrap()
    };
    assert_eq!(loss(run.answer()), loss("runs/ours"));
    for other in ["model.flow.first_hop=0", "model.flow.encoding=standard"] {
        let wrong = workplace
            .nerve(&format!("{import} --set {other} --dry-run"))
            .expect(0);
        assert!(
            wrong.stderr.contains("not clearly the best"),
            "{}",
            wrong.stderr
        );
        assert!(wrong.stdout.contains("nats per token"), "{}", wrong.stdout);
    }
    // A tokenizer with other ids.
    let other = import.replace("data/lines/tokenizer.json", "assets/tokenizers/byte.json");
    let error = workplace.nerve(&other).expect(3).stderr;
    assert!(
        error.contains("byte.json: id ") && error.contains("as in vocab.json"),
        "{error}"
    );
}
