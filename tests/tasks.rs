//! Tests of `nerve eval --tasks`: its figures are what the server's logarithms add up to, as lm-eval adds them, and what is wrong
//! with tasks or questions is said by file and line.

use crate::serve::Server;
use crate::support::Workplace;
use serde_json::{Value, json};

/// One task of each kind on questions of a line or two.
fn with_tasks() -> Workplace {
    let workplace = Workplace::with_older_runs();
    let lines =
        |values: &[Value]| -> String { values.iter().map(|it| format!("{it}\n")).collect() };
    workplace.write(
        "choices-1.jsonl",
        lines(&[
            json!({ "q": "The cat ", "a": ["ran", "sat down", "é"], "gold": 1 }),
            json!({ "q": "A dog", "a": ["barked", "x"], "gold": "x" }),
        ]),
    );
    workplace.write(
        "choices-2.jsonl",
        lines(&[json!({ "q": "So", "a": ["it", "was"], "gold": 0 })]),
    );
    workplace.write(
        "texts.jsonl",
        lines(&[
            json!({ "good": "Once upon a time.", "bad": "Time a upon once.", "rest": " there", "none": "zzz" }),
            json!({ "good": "She said</s>", "bad": "She", "rest": " no", "none": "" }),
        ]),
    );
    workplace.write("tasks.toml", TASKS);
    workplace
}

const TASKS: &str = r#"
format = 1
name = "mine"

[[task]]
name = "chosen"
kind = "choices"
files = "choices-*.jsonl"
query = "q"
choices = "a"
gold = "gold"

[[task]]
name = "paired"
kind = "pairs"
files = ["texts.jsonl"]
good = "good"
bad = "bad"

[[task]]
name = "continued"
kind = "continuation"
files = "texts.jsonl"
context = "bad"
target = "rest"

[[task]]
name = "read"
kind = "perplexity"
files = "texts.jsonl"
text = "good"

[[task]]
name = "written"
kind = "generation"
files = "texts.jsonl"
prompt = "bad"
target = "none"
stop = ["e", "\n"]
max_tokens = 5
"#;

/// The logarithm of what follows some ids of a byte tokenizer, as lm-eval reads it out of an answer.
fn behind(server: &Server, before: &[u32], text: &[u32]) -> f64 {
    let all = [before, text].concat();
    let request = json!({
        "prompt": all, "max_tokens": 1, "echo": true, "logprobs": 1, "temperature": 0,
    });
    let choice = server.complete(&request)[0].take();
    let lns = choice["logprobs"]["token_logprobs"].as_array().unwrap();
    let lns = &lns[before.len()..lns.len() - 1];
    assert_eq!(lns.len(), text.len());
    lns.iter().map(|ln| ln.as_f64().unwrap()).sum()
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn figures_are_what_a_client_of_the_server_adds_up() {
    let workplace = with_tasks();
    for run in ["routed", "graph"] {
        let line = format!("eval {run} --tasks tasks.toml --json --samples kept");
        let found = workplace.nerve(&line).expect(0).json();
        assert_eq!(found["n_samples"]["chosen"], 3);
        let server = Server::start(&workplace, run);
        let figures = &found["results"];

        // Spaces at the end of a context belong to what follows.
        let questions = [
            ("The cat", ["  ran", "  sat down", "  é"].as_slice(), 1),
            ("A dog", [" barked", " x"].as_slice(), 1),
            ("So", [" it", " was"].as_slice(), 0),
        ];
        let mut right = [0.0; 3];
        for (context, answers, gold) in questions {
            let each = answers.iter();
            let lns = each.map(|it| behind(&server, &bytes(context), &bytes(it)));
            let lns: Vec<f64> = lns.collect();
            let lengths: [&dyn Fn(&str) -> f64; 3] = [
                &|_| 1.0,
                &|text| text.trim_start().chars().count() as f64,
                &|text| text.trim_start().len() as f64,
            ];
            for (right, length) in right.iter_mut().zip(lengths) {
                let scores = lns.iter().zip(answers).map(|(ln, text)| ln / length(text));
                let scores: Vec<f64> = scores.collect();
                let best = scores.iter().copied().fold(f64::MIN, f64::max);
                *right += f64::from(u8::from(scores[gold] == best)) / 3.0;
            }
        }
        let chosen = &figures["chosen"];
        for (name, right) in ["acc,none", "acc_norm,none", "acc_bytes,none"]
            .iter()
            .zip(right)
        {
            let found = chosen[*name].as_f64().unwrap();
            assert!(
                (found - right).abs() < 1e-12,
                "{run} {name}: {found} {right}"
            );
        }
        assert!(chosen["acc_stderr,none"].is_f64());

        // A special token that is spelled out is that token.
        let texts = [
            bytes("Once upon a time."),
            [bytes("She said"), vec![257]].concat(),
        ];
        let total: f64 = texts.iter().map(|text| behind(&server, &[256], text)).sum();
        let read = &figures["read"];
        for (name, n) in [
            ("word_perplexity,none", 6.0),
            ("byte_perplexity,none", 29.0),
        ] {
            let (found, expected) = (read[name].as_f64().unwrap(), (-total / n).exp());
            assert!(
                (found / expected - 1.0).abs() < 1e-6,
                "{run} {name}: {found} {expected}"
            );
        }

        let pairs = [("Time a upon once.", " there"), ("She", " no")];
        let each = pairs.map(|(before, rest)| behind(&server, &bytes(before), &bytes(rest)));
        let expected = (-(each[0] + each[1]) / 2.0).exp();
        let found = figures["continued"]["perplexity,none"].as_f64().unwrap();
        assert!(
            (found / expected - 1.0).abs() < 1e-6,
            "{run}: {found} {expected}"
        );

        let kept = std::fs::read_to_string(workplace.path("kept/samples_written.jsonl")).unwrap();
        for (line, prompt) in kept.lines().zip(["Time a upon once.", "She"]) {
            let sample: Value = serde_json::from_str(line).unwrap();
            let request = json!({
                "prompt": bytes(prompt), "max_tokens": 5, "temperature": 0, "stop": ["e", "\n"],
            });
            assert_eq!(sample["resps"][0], server.complete(&request)[0]["text"]);
        }
        let limited = format!("eval {run} --tasks tasks.toml --limit 1 --json");
        let limited = workplace.nerve(&limited).expect(0).json();
        assert_eq!(limited["n_samples"]["chosen"], 1);
        assert!(limited["results"]["chosen"]["acc_stderr,none"].is_null());
    }
}

#[test]
fn what_is_wrong_with_tasks_or_questions_is_said_with_its_line() {
    let workplace = with_tasks();
    let eval = |flags: &str| workplace.nerve(&format!("eval routed {flags}"));
    let said = |tasks: &str, code: i32, expected: &str| {
        workplace.write("wrong.toml", tasks);
        let finished = eval("--tasks wrong.toml").expect(code);
        assert!(finished.stderr.contains(expected), "{}", finished.stderr);
        assert_eq!(finished.stdout, "");
    };
    said(
        "format = 2\nname = \"a\"\ntask = []",
        2,
        "format: found 2, expected 1",
    );
    said("format = 1\nname = \"a\"\ntask = []", 2, "task: found none");
    said(&TASKS.replace("gold = ", "glod = "), 2, "wrong.toml: line");
    said(
        &TASKS.replace("name = \"read\"", "name = \"paired\""),
        2,
        "\"paired\" twice",
    );
    said(
        &TASKS.replace("name = \"read\"", "name = \"../x\""),
        2,
        "files are called so",
    );
    said(
        &TASKS.replace("choices-*", "nothing-*"),
        3,
        "nothing-*.jsonl: found no such file",
    );
    said(
        &TASKS.replace("query = \"q\"", "query = \"p\""),
        3,
        "choices-1.jsonl: line 1, field p: found no such field",
    );
    said(
        &TASKS.replace("choices = \"a\"", "choices = \"q\""),
        3,
        "line 1, field q",
    );
    said(
        &TASKS.replace("gold = \"gold\"", "gold = \"q\""),
        3,
        "line 1, field q",
    );
    workplace.write("choices-1.jsonl", "{\"q\": \n");
    said(TASKS, 3, "choices-1.jsonl: line 1: found no JSON");
    let long = json!({ "q": "a", "a": ["b".repeat(500)], "gold": 0 });
    workplace.write("choices-1.jsonl", format!("\n{long}\n"));
    said(
        TASKS,
        3,
        "choices-1.jsonl: line 2: found 501 tokens to be scored at once",
    );
    // A context that is too long is cut, and that is said.
    let long = json!({ "q": "a ".repeat(400), "a": ["b"], "gold": 0 });
    workplace.write("choices-1.jsonl", format!("{long}\n"));
    let cut = eval("--tasks tasks.toml").expect(0);
    assert!(
        cut.stderr
            .contains("chosen: 1 texts are longer than the context"),
        "{}",
        cut.stderr
    );
    eval("--tasks tasks.toml --stride 3").expect(2);
    eval("--limit 3").expect(2);
}

#[test]
fn the_tasks_that_come_with_the_program_are_those_that_it_makes() {
    let workplace = Workplace::with_older_runs();
    for kind in ["hops", "arithmetic", "copying", "cloze"] {
        let made = format!("data synth {kind} --samples 60 --seed 1 --output {kind}.jsonl");
        workplace.nerve(&made).expect(0);
        let read = |path: String| std::fs::read_to_string(workplace.path(&path)).unwrap();
        assert_eq!(
            read(format!("{kind}.jsonl")),
            read(format!("assets/tasks/{kind}.jsonl"))
        );
    }
    let found = workplace.nerve("eval graph --tasks assets/tasks/packs.toml --limit 3");
    let found = found.expect(0).stdout;
    for figure in ["exact_match", "acc_norm", "bits_per_byte", "perplexity"] {
        assert!(found.contains(figure), "{found}");
    }
}
