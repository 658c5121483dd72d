//! Tests of `nerve trace` on a small BriLLM: text, JSON and HTML agree, replaced edges and what-ifs leave the run as it is,
//! edge cards, ablations, edges only raised, and one-line errors.

use crate::graph::counted;
use crate::support::{Finished, Workplace};
use brillm::graph::BackOff;
use serde_json::Value;
use std::fs;
use train::data::{Bigrams, Tokenizer};

const TEXT: &str = "Once upon a time there was a little cat.";

/// Traces a run with the words of a line, and arguments that may hold spaces.
fn trace(workplace: &Workplace, run: &str, line: &str, more: &[&str]) -> Finished {
    let mut command = workplace.command(&format!("trace {run} {line}"));
    command.args(more).env("RAYON_NUM_THREADS", "2");
    command.output().unwrap().into()
}

fn trained(sets: &str) -> (Workplace, String) {
    let (workplace, fit) = counted();
    let fit = workplace.nerve(&format!("{fit} {sets}")).expect(0);
    let run = fit.answer().to_string();
    (workplace, run)
}

fn numbers(list: &Value) -> Vec<f64> {
    let list = list.as_array().unwrap().iter();
    list.map(|value| value.as_f64().unwrap()).collect()
}

/// The ids of the first two tokens behind the start symbol of a traced text, as a pair that a flag takes.
fn first_pair(traced: &Value) -> String {
    format!(
        "#{},#{}",
        traced["tokens"][1]["id"], traced["tokens"][2]["id"]
    )
}

#[test]
fn a_trace_says_the_same_to_people_programs_and_browsers() {
    let (workplace, run) = trained("");
    let files = "--html trace.html --svg trace.svg";
    let traced = trace(
        &workplace,
        &run,
        &format!("--json --top 4 {files}"),
        &["--text", TEXT],
    );
    let traced = traced.expect(0).json();
    let steps = traced["steps"].as_array().unwrap();
    assert_eq!(steps.len(), traced["tokens"].as_array().unwrap().len());
    let mut nats = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        assert_eq!(step["position"], place + 1);
        assert_eq!(step["last"]["id"], traced["tokens"][place]["id"]);
        assert_eq!(step["candidates"].as_array().unwrap().len(), 4);
        assert_eq!(step["shares"].as_array().unwrap().len(), place + 1);
        assert_eq!(step["next"].is_null(), place + 1 == steps.len());
        nats.extend(step["next"]["nats"].as_f64());
        for contribution in step["contributions"].as_array().unwrap() {
            let energy = contribution["energy"].as_f64().unwrap();
            for split in ["gradient", "integrated"] {
                let split = &contribution[split];
                let parts = numbers(&split["positions"]).iter().sum::<f64>();
                let rest = ["bias", "code", "gap"].map(|name| split[name].as_f64().unwrap());
                assert!((parts + rest.iter().sum::<f64>() - energy).abs() < 1e-6);
            }
            let gap = contribution["integrated"]["gap"].as_f64().unwrap();
            assert!(gap.abs() < 1e-3 * energy, "{gap} of {energy}");
        }
    }
    let loss = traced["loss"].as_f64().unwrap();
    assert!((nats.iter().sum::<f64>() / nats.len() as f64 - loss).abs() < 1e-9);

    let shown = trace(&workplace, &run, "--top 4", &["--text", TEXT])
        .expect(0)
        .stdout;
    assert!(shown.contains(&format!("loss {loss:.6} nats")), "{shown}");
    let widest = shown.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{widest:?}");

    let page = fs::read_to_string(workplace.path("trace.html")).unwrap();
    let picture = fs::read_to_string(workplace.path("trace.svg")).unwrap();
    assert!(page.contains(&picture) && picture.starts_with("<svg") && picture.ends_with("</svg>"));
    assert!(page.contains(&format!("loss {loss:.6} nats")));
    // Only the name of SVG is an address, and nothing asks for it.
    assert_eq!(page.matches("http").count(), 1);
    for word in ["<script", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(word), "{word}");
    }
    for tag in [
        "html", "body", "table", "tr", "td", "th", "details", "svg", "text", "p", "h3",
    ] {
        let opened =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    let cells: usize = steps
        .iter()
        .enumerate()
        .map(|(place, _)| place.max(1) + 2)
        .sum();
    assert_eq!(picture.matches("class=\"cell\"").count(), cells);
}

#[test]
fn an_edge_that_is_replaced_in_memory_changes_the_text_and_not_the_run() {
    let (workplace, run) = trained("");
    let checkpoint = || workplace.result_of(&run).0;
    let before = checkpoint();
    let plain = trace(&workplace, &run, "--json", &["--text", TEXT])
        .expect(0)
        .json();
    let pair = first_pair(&plain);
    let ablated = format!("--json --tokens 256 --ablate {pair}");
    let ablated = trace(&workplace, &run, &ablated, &["--text", TEXT])
        .expect(0)
        .json();
    let measured = ablated["ablations"][0]["measured"].as_array().unwrap();
    assert_eq!(measured.len(), 4);
    for (by, index) in [("shared", 0), ("zero", 1)] {
        assert_eq!(measured[index]["replaced_by"], by);
        assert_eq!(measured[index + 2]["on"], "valid");
        let all = &measured[index]["parts"][0];
        // The pass that evaluates, against the trace.
        let loss = [&all["loss_before"], &plain["loss"]].map(|loss| loss.as_f64().unwrap());
        assert!((loss[0] - loss[1]).abs() < 1e-5, "{loss:?}");
        let line = format!("--json --set-edge {pair}={by}");
        let replaced = trace(&workplace, &run, &line, &["--text", TEXT])
            .expect(0)
            .json();
        let changes = [&replaced["set_edge"]["nats_change"], &all["nats_change"]];
        let changes = changes.map(|change| change.as_f64().unwrap());
        assert!((changes[0] - changes[1]).abs() < 1e-4, "{changes:?}");
        assert!(changes[0].abs() > 1e-4, "{changes:?}");
        assert_ne!(replaced["loss"], plain["loss"]);
        let of_validation = &measured[index + 2]["parts"];
        let tokens = [0, 1, 2].map(|part| of_validation[part]["tokens"].as_u64().unwrap());
        assert!(tokens[0] >= 256 && tokens[1] <= tokens[2] && tokens[2] < tokens[0]);
    }
    assert!(checkpoint() == before);
    // An edge in its own place changes nothing.
    let itself = format!("--json --set-edge {pair}={pair}");
    let itself = trace(&workplace, &run, &itself, &["--text", TEXT])
        .expect(0)
        .json();
    assert_eq!(itself["set_edge"]["nats_change"], 0.0);
    assert_eq!(itself["steps"], plain["steps"]);
}

#[test]
fn what_if_a_token_fades_or_was_never_said() {
    let (workplace, run) = trained("");
    let line = "--json --what-if drop=3 --what-if drop=2,4 --what-if remove=3";
    let traced = trace(&workplace, &run, line, &["--text", TEXT])
        .expect(0)
        .json();
    let n = traced["tokens"].as_array().unwrap().len();
    let changed = |index: usize| {
        traced["what_if"][index]["steps"]
            .as_array()
            .unwrap()
            .clone()
    };
    let positions = |index: usize| -> Vec<u64> {
        let steps = changed(index);
        steps
            .iter()
            .map(|step| step["position"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(positions(0), (3..=n as u64).collect::<Vec<_>>());
    assert_eq!(positions(1), (2..=n as u64).collect::<Vec<_>>());
    assert_eq!(positions(2), (4..=n as u64).collect::<Vec<_>>());
    for index in 0..3 {
        let sum: f64 = changed(index)
            .iter()
            .filter_map(|step| Some(step["nats_after"].as_f64()? - step["nats_before"].as_f64()?))
            .sum();
        let total = traced["what_if"][index]["nats_change"].as_f64().unwrap();
        assert!(
            (sum - total).abs() < 1e-9 && total != 0.0,
            "{index}: {sum} {total}"
        );
        for step in changed(index) {
            let place = step["position"].as_u64().unwrap() as usize - 1;
            assert_eq!(step["nats_before"], traced["steps"][place]["next"]["nats"]);
        }
    }
    // Without the token, the rest is a text of its own.
    let ids = Tokenizer::load(workplace.path("data/stories/tokenizer.json")).unwrap();
    let mut tokens = ids.encode(TEXT);
    tokens.remove(2);
    let shorter = ids.decode(&tokens);
    if ids.encode(&shorter) == tokens {
        let shorter = trace(&workplace, &run, "--json", &["--text", &shorter])
            .expect(0)
            .json();
        assert_eq!(
            shorter["steps"][2]["next"]["nats"],
            changed(2)[0]["nats_after"]
        );
    }
}

#[test]
fn a_card_knows_what_training_and_counting_know() {
    for (mode, kind) in [("exact", "last_step"), ("touched", "n_updates")] {
        let (workplace, run) = trained(&format!("--set optimizer.mode={mode}"));
        let plain = trace(&workplace, &run, "--json", &["--text", TEXT])
            .expect(0)
            .json();
        let bigrams = Bigrams::load(&workplace.path("data/stories/bigrams.safetensors")).unwrap();
        let pair = first_pair(&plain);
        let (source, target) = (&plain["tokens"][1]["id"], &plain["tokens"][2]["id"]);
        let [source, target] = [source, target].map(|id| id.as_u64().unwrap() as u32);
        // A pair that was never seen uses a shared row.
        let unseen = (0..512)
            .find(|&unseen| bigrams.counts.count(source, unseen) == 0)
            .unwrap();
        let line = format!("--json --tokens 512 --edge {pair} --edge #{source},#{unseen}");
        let cards = trace(&workplace, &run, &line, &[]).expect(0).json();
        let card = &cards["edges"][0];
        assert_eq!(card["count"], bigrams.counts.count(source, target));
        assert_eq!(card["shared"], false);
        assert_eq!(card["competes"], "always");
        let most = bigrams.counts.most_frequent(source, 512);
        let place = most.iter().position(|&other| other == target).unwrap();
        assert_eq!(card["count_rank"], place + 1);
        let [frobenius, spectral] =
            ["frobenius_norm", "spectral_norm"].map(|name| card[name].as_f64().unwrap());
        assert!(0.0 < spectral && spectral <= frobenius && frobenius <= 4.01 * spectral);
        assert_eq!(card["steps"], 8);
        assert!((1..=8).contains(&card[kind].as_u64().unwrap()), "{card}");
        let shared = &cards["edges"][1];
        assert_eq!(
            (&shared["shared"], &shared["count"]),
            (&Value::from(true), &Value::from(0))
        );
        assert!(shared["shared_by"].as_u64().unwrap() > 0);
        let shown = trace(&workplace, &run, &format!("--edge {pair}"), &[])
            .expect(0)
            .stdout;
        assert!(
            shown.contains("its own") && shown.contains("spectral norm"),
            "{shown}"
        );
    }
}

#[test]
fn edges_that_were_only_raised_are_those_outside_the_list() {
    let (workplace, run) = trained("--set model.candidates={kind='frequent',n=3}");
    let raised = trace(&workplace, &run, "--json --positive-only --top 7", &[]);
    let raised = &raised.expect(0).json()["positive_only"];
    let counts = Bigrams::load(&workplace.path("data/stories/bigrams.safetensors"))
        .unwrap()
        .counts;
    let graph = counts.graph(1, BackOff::SharedRow);
    let mut expected = 0;
    for source in 0..graph.nodes() as u32 {
        let listed = counts.most_frequent(source, 4);
        let outside = |target: &&u32| !listed.contains(target);
        expected += graph.targets(source).iter().filter(outside).count();
    }
    assert!(expected > 7);
    assert_eq!(raised["n_raised_only"], expected);
    assert_eq!(raised["n_edges"], graph.edges());
    assert_eq!(raised["n_decode_candidates"], graph.nodes() * graph.nodes());
    let edges = raised["edges"].as_array().unwrap();
    assert_eq!(edges.len(), 7);
    let (source, target) = (&edges[0]["source"]["id"], &edges[0]["target"]["id"]);
    let card = trace(
        &workplace,
        &run,
        &format!("--json --edge #{source},#{target}"),
        &[],
    );
    assert_eq!(card.expect(0).json()["edges"][0]["competes"], "never");
    let shown = trace(&workplace, &run, "--positive-only", &[])
        .expect(0)
        .stdout;
    assert!(shown.contains("among the 4 most frequent"), "{shown}");

    let (workplace, run) = trained("--set model.candidates={kind='sampled',n=20}");
    let drawn = trace(&workplace, &run, "--json --positive-only", &[])
        .expect(0)
        .json();
    assert_eq!(drawn["positive_only"]["by_chance"], true);
    assert!(
        drawn["positive_only"]["edges"][0]["draws_per_step"]
            .as_f64()
            .unwrap()
            < 0.125
    );
    let (workplace, run) = trained("");
    let all = trace(&workplace, &run, "--json --positive-only", &[])
        .expect(0)
        .json();
    assert_eq!(all["positive_only"]["n_raised_only"], 0);
}

#[test]
fn odd_texts_are_traced_and_mistakes_are_one_line() {
    let (workplace, run) = trained("");
    for text in [
        "",
        "x",
        "罗马描述了 \u{1b}[2J \u{202e}",
        "<b>&\"</b>",
        "\n\n",
    ] {
        let traced = trace(
            &workplace,
            &run,
            "--html odd.html --what-if drop=1 --what-if remove=1",
            &["--text", text],
        );
        let shown = traced.expect(0).stdout;
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'));
        let page = fs::read_to_string(workplace.path("odd.html")).unwrap();
        assert!(!page.contains("<b>") && !page.contains('\u{1b}'));
    }
    let one = trace(&workplace, &run, "--json", &["--text", ""])
        .expect(0)
        .json();
    assert_eq!(
        (one["loss"].clone(), one["steps"].as_array().unwrap().len()),
        (Value::Null, 1)
    );
    for (line, text, part) in [
        ("--edge nothing", "x", "without a comma"),
        (
            "--edge #1,#99999",
            "x",
            "the id 99999 of 512 tokens, expected two tokens",
        ),
        (
            "--what-if drop=9",
            "x",
            "expected drop=N or remove=N, with N from 1 to 2",
        ),
        ("--what-if fade=1", "x", "expected drop=N"),
        ("--set-edge #1,#2", "x", "without an equals sign"),
        (
            "--set-edge #1,#1=zero",
            "x",
            "a pair without an edge of its own",
        ),
        ("--ablate #1,#1", "x", "a pair without an edge of its own"),
    ] {
        let error = trace(&workplace, &run, line, &["--text", text])
            .expect(2)
            .stderr;
        assert!(error.contains(part), "{line}: {error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    }
    trace(&workplace, &run, "", &[]).expect(2);
    trace(&workplace, &run, "--edge #1,#2 --what-if drop=1", &[]).expect(2);
    let fit = "fit ladder.toml --render none --set stage.baseline.steps=2 --set stage.fixed.steps=2 \
               --set stage.baseline.learning_rate.warmup_steps=1 --set stage.fixed.learning_rate.warmup_steps=1 \
               --set batch.sequences=2 --set watch.valid_every_steps=0";
    let brian = workplace.nerve(fit).expect(0).answer().to_string();
    let error = trace(&workplace, &brian, "--text x", &[]).expect(2).stderr;
    assert!(
        error.contains("expected a run of a brillm; `nerve route`"),
        "{error}"
    );
}
