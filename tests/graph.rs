//! Tests of the program on BriLLM runs: counting pairs, training, exact resume, evaluation, sampling, streaming, a prior alone
//! as bigram model, and refusal of damaged or foreign counts.

use crate::determinism::check_every_resume;
use crate::support::Workplace;
use brillm::graph::BackOff;
use brillm::prior::{Prior, Weights};
use std::fs;
use train::data::{Bigrams, Split};

/// A workplace with counted stories, and the line that trains a few steps of the tiny graph on them.
pub fn counted() -> (Workplace, String) {
    let workplace = Workplace::with_few_stories();
    let count = "data bigrams data/stories/train.bin --valid data/stories/valid.bin \
                 --output data/stories/bigrams.safetensors --json";
    let counted = workplace.nerve(count).expect(0).json();
    let coverage = counted["held_out"][0]["coverage"].as_f64().unwrap();
    assert!(coverage > 0.5 && coverage < 1.0, "{coverage}");
    let fit = "fit assets/recipes/brillm/tiny.toml --render none --set stage.train.steps=8 \
               --set stage.train.learning_rate.warmup_steps=2 --set batch.sequences=3 \
               --set watch.log_every_steps=1 --set watch.valid_every_steps=3 --set watch.valid_tokens=512 \
               --set watch.sample_every_steps=5 --set watch.sample_tokens=8 --set checkpoint.every_steps=1 \
               --set checkpoint.keep_last=100 --set data.train=[{path='data/stories/train.bin',weight=1.0}] \
               --set data.valid=[{name='stories',path='data/stories/valid.bin'}]";
    (workplace, fit.to_string())
}

#[test]
fn counts_are_the_same_bytes_every_time_and_of_the_training_split_alone() {
    let (workplace, _) = counted();
    let again = "data bigrams data/stories/train.bin --output again.safetensors";
    workplace.nerve(again).expect(0);
    let bytes = |path: &str| fs::read(workplace.path(path)).unwrap();
    assert!(bytes("again.safetensors") == bytes("data/stories/bigrams.safetensors"));
    workplace.nerve(again).expect(2);
}

#[test]
fn a_graph_resumed_from_any_of_its_checkpoints_is_the_one_that_never_stopped() {
    let (workplace, fit) = counted();
    let drawn = "--set model.candidates={kind='sampled',n=20}";
    let frequent = "--set model.candidates={kind='frequent',n=20} --set batch.accumulate=2 --set optimizer.weight_decay=0.1";
    let half = "--set model.storage=bf16 --set optimizer.mode=touched --set model.flow.bias=edge_and_node \
                --set model.flow.encoding={kind='learnt',max_length=20} --set model.edges.back_off={kind='hash',n_rows=50}";
    for (index, sets) in [
        "",
        drawn,
        frequent,
        "--set optimizer.mode=touched",
        "--set optimizer.mode=dense",
        "--set model.edges.back_off_rows=frozen --set model.last_edge=left --set model.flow.bias=node",
        half,
    ]
    .into_iter()
    .enumerate()
    {
        let line = format!("{fit} --set run.name=whole{index} {sets}");
        let run = workplace.nerve(&line).expect(0).answer().to_string();
        check_every_resume(&workplace, &run);
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let (workplace, fit) = counted();
    let run = |threads: &str| {
        let line = format!("{fit} --set run.name=threads{threads}");
        let run = workplace
            .nerve_with(&line, &[("RAYON_NUM_THREADS", threads)])
            .expect(0)
            .answer()
            .to_string();
        workplace.result_of(&run).0[0].clone()
    };
    assert!(run("1") == run("2"));
}

#[test]
fn evaluation_knows_how_often_a_pair_was_seen_and_samples_are_repeatable() {
    let (workplace, fit) = counted();
    let run = workplace.nerve(&fit).expect(0).answer().to_string();
    let measured = workplace
        .nerve(&format!("eval {run} --json"))
        .expect(0)
        .json();
    let split = &measured["splits"][0];
    let parts = split["coverage"].as_array().unwrap();
    let tokens: u64 = parts
        .iter()
        .map(|part| part["tokens"].as_u64().unwrap())
        .sum();
    assert_eq!(Some(tokens), split["tokens"].as_u64());
    let nats: f64 = parts
        .iter()
        .map(|part| part["loss/lm"].as_f64().unwrap() * part["tokens"].as_f64().unwrap())
        .sum();
    assert!((nats / tokens as f64 - split["loss/lm"].as_f64().unwrap()).abs() < 1e-5);
    let bench = format!("bench {run} --rounds 1 --warm-up 0 --tokens 4 --json");
    let bench = workplace.nerve(&bench).expect(0).json();
    assert_eq!(bench["speeds"].as_array().unwrap().len(), 3, "{bench}");
    let sample =
        format!("sample {run} --prompt Once --tokens 12 --seed 3 --temperature 0.7 --top-p 0.9");
    let text = workplace.nerve(&sample).expect(0).stdout;
    assert_eq!(workplace.nerve(&sample).expect(0).stdout, text);
    assert_ne!(
        workplace
            .nerve(&sample.replace("--seed 3", "--seed 4"))
            .expect(0)
            .stdout,
        text
    );
}

#[test]
fn a_prior_alone_predicts_as_the_bigram_model_does() {
    let (workplace, fit) = counted();
    let still = "--set model.initial.half_range=1e-7 --set model.flow.encoding=none --set stage.train.learning_rate.peak=1e-12 \
                 --set stage.train.learning_rate.floor=1e-13 --set watch.valid_tokens=100000";
    let run = workplace
        .nerve(&format!("{fit} {still}"))
        .expect(0)
        .answer()
        .to_string();
    let loss = workplace
        .nerve(&format!("eval {run} --json"))
        .expect(0)
        .json()["splits"][0]["loss/lm"]
        .as_f64()
        .unwrap();
    let bigrams = Bigrams::load(&workplace.path("data/stories/bigrams.safetensors")).unwrap();
    let graph = bigrams.counts.graph(1, BackOff::SharedRow);
    let weights = Weights::new(Prior::Bigram, Some(&bigrams.counts), &graph);
    let split = Split::open(workplace.path("data/stories/valid.bin")).unwrap();
    let (mut nats, mut pairs) = (0.0, 0);
    for document in split.documents() {
        let start = document.start as usize;
        let tokens = split.tokens(start..start + document.tokens as usize);
        let behind_symbol: Vec<u32> = bigrams.start.into_iter().chain(tokens).collect();
        for pair in behind_symbol.windows(2) {
            nats -= weights.of(pair[0], pair[1]).ln();
            pairs += 1;
        }
    }
    let expected = nats / f64::from(pairs);
    assert!((loss - expected).abs() < 1e-4, "{loss} {expected}");
}

#[test]
fn damaged_or_foreign_counts_are_refused_in_a_line() {
    let (workplace, fit) = counted();
    let path = workplace.path("data/stories/bigrams.safetensors");
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [
        &whole[..whole.len() / 2],
        &flipped,
        b"nothing of the kind".as_slice(),
    ] {
        fs::write(&path, damaged).unwrap();
        let error = workplace.nerve(&fit).expect(3).stderr;
        assert!(
            error.contains("bigrams.safetensors") && error.contains("nerve data bigrams"),
            "{error}"
        );
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    }
    fs::remove_file(&path).unwrap();
    workplace.nerve(&fit).expect(3);
    let other = "data prepare few.jsonl --output data/bytes --valid 0.3 --tokenizer assets/tokenizers/byte.json";
    workplace.nerve(other).expect(0);
    let count = "data bigrams data/bytes/train.bin --output data/stories/bigrams.safetensors";
    workplace.nerve(count).expect(0);
    let error = workplace.nerve(&fit).expect(3).stderr;
    assert!(error.contains("another tokenizer"), "{error}");
}

#[test]
fn a_resume_refuses_other_counts() {
    let (workplace, fit) = counted();
    let run = workplace.nerve(&fit).expect(0).answer().to_string();
    // The run has a copy of its own, and knows where that came from.
    for counts in [&format!("{run}/inputs"), "data/stories"] {
        let count = format!(
            "data bigrams data/stories/valid.bin --output {counts}/bigrams.safetensors --force"
        );
        workplace.nerve(&count).expect(0);
    }
    let error = workplace
        .nerve(&format!(
            "fit --resume {run} --extend train=9 --render none"
        ))
        .expect(3)
        .stderr;
    assert!(error.contains("bigrams.safetensors"), "{error}");
}

#[test]
fn a_table_of_bf16_is_saved_as_such_and_small_steps_are_refused_with_it() {
    let (workplace, fit) = counted();
    let half = "--set model.storage=bf16 --set optimizer.mode=touched";
    let run = workplace.nerve(&format!("{fit} {half}")).expect(0);
    let last = workplace.checkpoints(run.answer()).pop().unwrap();
    let model = train::run::read_tensors(&last.join("model-00001-of-00001.safetensors")).unwrap();
    assert_eq!(format!("{:?}", model["edges"].dtype()), "BF16");
    assert_eq!(format!("{:?}", model["mix"].dtype()), "F32");
    workplace.nerve(&format!("eval {}", run.answer())).expect(0);
    let error = workplace.nerve(&format!("{fit} --set model.storage=bf16"));
    let error = error.expect(2).stderr;
    assert!(
        error.contains("optimizer.mode") && error.contains("touched"),
        "{error}"
    );
}

#[test]
fn a_stream_is_the_sample_token_by_token_and_reads_its_prompt_from_a_file() {
    let (workplace, fit) = counted();
    let run = workplace.nerve(&fit).expect(0).answer().to_string();
    let flags = "--tokens 40 --seed 5 --temperature 0.8";
    let sampled = workplace.nerve(&format!("sample {run} --prompt Once {flags}"));
    let continuation = sampled.expect(0).stdout;
    let streamed = workplace.nerve(&format!("sample {run} --stream --prompt Once {flags}"));
    let streamed = streamed.expect(0).stdout;
    assert_eq!(format!("Once{streamed}"), continuation);
    workplace.write("prompt.txt", "Once");
    let of_file = format!("sample {run} --stream --prompt-file prompt.txt {flags}");
    assert_eq!(workplace.nerve(&of_file).expect(0).stdout, streamed);
    let missing = format!("sample {run} --stream --prompt-file nowhere.txt {flags}");
    assert!(
        workplace
            .nerve(&missing)
            .expect(3)
            .stderr
            .contains("nowhere.txt")
    );
}
