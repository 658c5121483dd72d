//! Tests of the error messages for every kind of mistake in a recipe.

use crate::recipe::bundled::BUNDLED;
use crate::recipe::load::from_text;
use crate::recipe::nearest::one_of;
use brian::route::policy::Teacher;

/// The bundled `brian/tiny`, in which the mistakes are made.
fn good() -> String {
    let tiny = BUNDLED
        .iter()
        .find(|bundled| (bundled.kind, bundled.size) == ("brian", "tiny"));
    tiny.expect("brian/tiny is bundled").text.to_string()
}

/// The messages about a text.
fn messages(text: String, sets: &[&str]) -> Vec<String> {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    match from_text("r.toml", text, &sets) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// The messages after one change, which must find what it changes. Line numbers are not part of these claims.
fn after(from: &str, to: &str) -> Vec<String> {
    let text = good();
    assert!(text.contains(from), "{from}");
    messages(text.replacen(from, to, 1), &[])
        .iter()
        .map(|text| without_line(text))
        .collect()
}

/// The messages after a `--set`, which go through the same checks.
fn after_set(set: &str) -> Vec<String> {
    messages(good(), &[set])
        .iter()
        .map(|text| without_line(text))
        .collect()
}

/// `r.toml: line 41, model.d_model: …` → `model.d_model: …`.
fn without_line(message: &str) -> String {
    let rest = message
        .strip_prefix("r.toml: ")
        .expect("a message begins with the file");
    assert!(!rest.contains('\n'), "{rest}");
    match rest.strip_prefix("line ") {
        Some(rest) => rest
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .trim_start_matches(", ")
            .to_string(),
        None => rest.to_string(),
    }
}

/// The line of the good recipe that begins with this text.
fn line_with(beginning: &str) -> usize {
    1 + good()
        .lines()
        .position(|line| line.starts_with(beginning))
        .expect("the line exists")
}

#[test]
fn an_unknown_key_is_named_with_the_key_meant_and_no_further_message() {
    let line = line_with("d_model");
    assert_eq!(
        messages(good().replace("d_model = 64", "d_modl = 64"), &[]),
        [format!(
            "r.toml: line {line}, model.d_modl: found an unknown key, expected a known one; did you mean d_model?"
        )]
    );
    assert_eq!(
        after("index = 0", "index = 0\ncolour = 1"),
        ["device.colour: found an unknown key, expected one of the keys backend, index, dtype"]
    );
    assert_eq!(
        after("format = 2", "format = 2\n\"\\u001b[2J\" = 1"),
        [
            "\"\\u{1b}[2J\": found an unknown key, expected one of the keys format, run, device, tokenizer, data, \
          model, optimizer, batch, stage, watch, checkpoint, average, hook, loss"
        ]
    );
}

#[test]
fn a_misspelt_key_has_its_value_checked_too() {
    assert_eq!(
        after("d_model = 64", "d_modl = \"64\""),
        [
            "model.d_modl: found an unknown key, expected a known one; did you mean d_model?",
            "model.d_modl: found string \"64\", expected a whole number",
        ]
    );
}

#[test]
fn a_missing_key_is_named_with_what_it_should_be() {
    let line = line_with("[model]");
    assert_eq!(
        messages(good().replace("d_model = 64\n", ""), &[]),
        [format!(
            "r.toml: line {line}, model.d_model: found no such key, expected a whole number"
        )]
    );
    assert_eq!(
        after("order_seed = 1 ", "# "),
        ["data.order_seed: found no such key, expected a whole number"]
    );
    assert_eq!(
        after("exit = \"residual\"", "# "),
        ["model.exit: found no such key, expected one of \"residual\", \"projection\""]
    );
    assert_eq!(
        after("steps = 150", "# "),
        ["stage.baseline.steps: found no such key, expected a whole number"]
    );
    assert_eq!(
        messages("format = 2".to_string(), &[])[..2],
        [
            "r.toml: run: found no such key, expected a table with the keys name, root, seed",
            "r.toml: device: found no such key, expected a table with the keys backend, index, dtype",
        ]
    );
}

#[test]
fn a_wrong_type_is_named_with_the_value_found() {
    let cases = [
        (
            "d_model = 64",
            "d_model = \"64\"",
            "model.d_model: found string \"64\", expected a whole number",
        ),
        (
            "d_model = 64",
            "d_model = 64.0",
            "model.d_model: found float 64.0, expected a whole number",
        ),
        (
            "d_model = 64",
            "d_model = true",
            "model.d_model: found boolean true, expected a whole number",
        ),
        (
            "d_model = 64",
            "d_model = [64]",
            "model.d_model: found a list of 1, expected a whole number",
        ),
        (
            "d_model = 64",
            "d_model = {}",
            "model.d_model: found a table, expected a whole number",
        ),
        (
            "d_model = 64",
            "d_model = 1979-05-27",
            "model.d_model: found date 1979-05-27, expected a whole number",
        ),
        (
            "rope_base = 10000.0",
            "rope_base = \"big\"",
            "model.rope_base: found string \"big\", expected a number",
        ),
        (
            "keep_best = true",
            "keep_best = 1",
            "checkpoint.keep_best: found integer 1, expected true or false",
        ),
        (
            "name = \"brian-tiny\"",
            "name = 1",
            "run.name: found integer 1, expected a string",
        ),
        (
            "freeze = []",
            "freeze = 0",
            "stage.baseline.freeze: found integer 0, expected a list",
        ),
        (
            "betas = [0.9, 0.95]",
            "betas = [0.9]",
            "optimizer.betas: found a list of 1, expected a list of 2",
        ),
        (
            "betas = [0.9, 0.95]",
            "betas = [0.9, 0, 0]",
            "optimizer.betas: found a list of 3, expected a list of 2",
        ),
        (
            "betas = [0.9, 0.95]",
            "betas = [0.9, \"x\"]",
            "optimizer.betas.1: found string \"x\", expected a number",
        ),
        (
            "initial = { kind = \"scaled\", std = 0.02 }",
            "initial = 1",
            "model.initial: found integer 1, expected one of \"scaled\", \"torch_default\"",
        ),
        (
            "gate = { metric = \"valid/loss/lm\", at_most = 5.0 }",
            "gate = 5.0",
            "stage.baseline.gate: found float 5.0, expected a table with the keys metric, at_most, at_least",
        ),
    ];
    for (from, to, message) in cases {
        assert_eq!(after(from, to), [message]);
    }
}

#[test]
fn a_whole_number_is_also_a_number() {
    assert_eq!(after("rope_base = 10000.0", "rope_base = 10_000"), [""; 0]);
}

#[test]
fn a_number_out_of_range_is_named() {
    let cases = [
        (
            "seed = 1 ",
            "seed = -1 ",
            "run.seed: found integer -1, expected a whole number of at least 0",
        ),
        (
            "format = 2 ",
            "format = 4294967296 ",
            "format: found integer 4294967296, expected a whole number of at most 4294967295",
        ),
        (
            "format = 2 ",
            "format = 3 ",
            "format: found integer 3, expected 2, the format of this program",
        ),
        (
            "seed = 1 ",
            "seed = 99999999999999999999999999999999999999999 ",
            "run.seed: found integer 99999999999999999999999999999999999999999, \
             expected a whole number of at most 18446744073709551615",
        ),
        (
            "rope_base = 10000.0",
            "rope_base = nan",
            "model.rope_base: found float nan, expected a finite number",
        ),
        (
            "rope_base = 10000.0",
            "rope_base = -inf",
            "model.rope_base: found float -inf, expected a finite number",
        ),
        (
            "rope_base = 10000.0",
            "rope_base = 1e309",
            "model.rope_base: found float 1e309, expected a finite number",
        ),
        (
            "d_model = 64",
            "d_model = 0",
            "model.d_model: found integer 0, expected at least 1",
        ),
        (
            "n_heads = 4",
            "n_heads = 9223372036854775808",
            "model.n_heads: found integer 9223372036854775808, expected at most 1048576",
        ),
        (
            "d_position = 16",
            "d_position = 0",
            "model.position.d_position: found integer 0, expected at least 1",
        ),
        (
            "parallel = \"none\"",
            "parallel = { kind = \"beam\", width = 0, children = 2, branch_cost = 0.01, score_decay = 0.99 }",
            "model.route.parallel.width: found integer 0, expected at least 1",
        ),
        (
            "parallel = \"none\"",
            "parallel = { kind = \"beam\", width = 257, children = 2, branch_cost = 0.01, score_decay = 0.99 }",
            "model.route.parallel.width: found integer 257, expected at most 256",
        ),
        (
            "parallel = \"none\"",
            "parallel = { kind = \"beam\", width = 2, children = 1, branch_cost = 0.01, score_decay = 0.99 }",
            "model.route.parallel.width: found integer 2, expected 1, or more children: no branch has two",
        ),
        (
            "parallel = \"none\"",
            "parallel = { kind = \"beam\", width = 1, children = 2, branch_cost = -1, score_decay = 0.99 }",
            "model.route.parallel.branch_cost: found integer -1, expected at least 0",
        ),
        (
            "parallel = \"none\"",
            "parallel = { kind = \"beam\", width = 1, children = 2, branch_cost = 0, score_decay = 1.5 }",
            "model.route.parallel.score_decay: found float 1.5, expected more than 0 and at most 1",
        ),
        (
            "parallel = \"none\"",
            "parallel = \"beam\"",
            "model.route.parallel: found string \"beam\", expected a table { kind = \"beam\", width, children, \
             branch_cost, score_decay }",
        ),
        (
            "weight = 1.0",
            "weight = 0.0",
            "data.train.0.weight: found float 0.0, expected more than 0",
        ),
        (
            "keep_last = 2",
            "keep_last = 1",
            "checkpoint.keep_last: found integer 1, expected a whole number from 2 to 1048576",
        ),
        (
            "betas = [0.9, 0.95]",
            "betas = [0.9, 1.0]",
            "optimizer.betas: found a list of 2, expected two numbers of at least 0 and less than 1",
        ),
        (
            "peak = 3e-3",
            "peak = 1.5",
            "stage.baseline.learning_rate.peak: found float 1.5, expected more than 0 and at most 1",
        ),
    ];
    for (from, to, message) in cases {
        assert_eq!(after(from, to), [message]);
    }
}

#[test]
fn an_unknown_kind_is_named_with_the_known_ones_and_its_table_is_left_alone() {
    assert_eq!(
        after("kind = \"brian\"", "kind = \"brain\""),
        [
            "model.kind: found string \"brain\", expected one of \"baseline\", \"brian\", \"brillm\"; did you mean \"brian\"?"
        ]
    );
    assert_eq!(
        after("kind = \"brian\"", "kind = \"mamba\""),
        ["model.kind: found string \"mamba\", expected one of \"baseline\", \"brian\", \"brillm\""]
    );
    assert_eq!(
        after("kind = \"brian\"", "# "),
        ["model.kind: found no such key, expected one of \"baseline\", \"brian\", \"brillm\""]
    );
    assert_eq!(
        after("dtype = \"f32\"", "dtype = \"fp32\""),
        [
            "device.dtype: found string \"fp32\", expected one of \"f32\", \"bf16\"; did you mean \"f32\"?"
        ]
    );
    assert_eq!(
        after(
            "policy = \"none\"",
            "policy = { kind = \"none\", top_k = 1 }"
        ),
        ["stage.baseline.policy.top_k: found an unknown key, expected no key besides kind"]
    );
    assert_eq!(
        after("{ kind = \"scaled\", std = 0.02 }", "\"scaled\""),
        ["model.initial: found string \"scaled\", expected a table { kind = \"scaled\", std }"]
    );
}

#[test]
fn rules_between_values_name_both() {
    let cases = [
        (
            "n_heads = 4",
            "n_heads = 3",
            "model.d_model: found integer 64, expected a multiple of 2 * n_heads = 6, so that every head has an even width for its rotary pairs",
        ),
        (
            "n_heads = 4",
            "n_heads = 64",
            "model.d_model: found integer 64, expected a multiple of 2 * n_heads = 128, so that every head has an even width for its rotary pairs",
        ),
        (
            "window = 64",
            "window = 65",
            "data.window: found integer 65, expected at most model.context, 64",
        ),
        (
            "warmup_steps = 20",
            "warmup_steps = 150",
            "stage.baseline.learning_rate.warmup_steps: found integer 150, expected fewer than the 150 steps of the stage; write warmup_share in the place of warmup_steps for a warm-up that follows the length of the stage",
        ),
        (
            "floor = 3e-4",
            "floor = 3e-2",
            "stage.baseline.learning_rate.floor: found float 3e-2, expected at least 0 and at most the peak",
        ),
        (
            "start = \"fresh\"",
            "start = \"previous\"",
            "stage.baseline.start: found string \"previous\", expected \"fresh\" or a run: no stage is before the first one",
        ),
        (
            "name = \"fixed\"",
            "name = \"baseline\"",
            "stage.1.name: found string \"baseline\", expected a name that no other stage has",
        ),
        (
            "at_most = 5.0",
            "at_most = 5.0, at_least = 1.0",
            "stage.baseline.gate: found both at_most and at_least, expected exactly one of the two",
        ),
        (
            "valid_every_steps = 50",
            "valid_every_steps = 0",
            "stage.baseline.gate: found a table, expected none where watch.valid_every_steps is 0: \
             it would have nothing to look at",
        ),
        (
            ", at_most = 5.0",
            "",
            "stage.baseline.gate: found neither at_most nor at_least, expected exactly one of the two",
        ),
        (
            "freeze = []",
            "freeze = [{ group = \"block\", until_step = 9 }]",
            "stage.baseline.freeze.0.group: found string \"block\", expected one of \"embedding\", \"blocks\", \"norm\"; did you mean \"blocks\"?",
        ),
        (
            "freeze = []",
            "freeze = [{ group = \"blocks\", until_step = 151 }]",
            "stage.baseline.freeze.0.until_step: found integer 151, expected from 1 to the 150 steps of the stage",
        ),
        (
            "backend = \"ndarray\"",
            "backend = \"cud\"",
            "device.backend: found string \"cud\", expected one of \"ndarray\", \"flex\", \"wgpu\", \"vulkan\", \"cuda\"; did you mean \"cuda\"?",
        ),
        (
            "valid = [{ name = \"stories\", path = \"data/stories/valid.bin\" }]",
            "valid = []",
            "data.valid: found a list of 0, expected at least one source",
        ),
        (
            "name = \"brian-tiny\"",
            "name = \"../x\"",
            "run.name: found string \"../x\", expected 1 to 100 letters, digits, `.`, `_` or `-`, \
             beginning with a letter or digit",
        ),
        (
            "sample_prompts = [\"Once \", \"The \"]",
            "sample_prompts = []",
            "watch.sample_prompts: found a list of 0, expected at least one prompt, or sample_every_steps = 0",
        ),
    ];
    for (from, to, message) in cases {
        assert_eq!(after(from, to), [message]);
    }
    let ladder = good()
        .replace("policy = \"none\"", "policy = \"swap\"")
        .replace("policy = \"sequential\"", "policy = \"none\"")
        .replace("policy = \"swap\"", "policy = \"sequential\"");
    assert_eq!(
        without_line(&messages(ladder, &[])[0]),
        "stage.fixed.policy: found string \"none\", expected a policy with a pool, as in the stage before, whose weights \
         this one starts with"
    );
    let baseline = BUNDLED[0]
        .text
        .replace("policy = \"none\"", "policy = \"sequential\"");
    assert_eq!(
        without_line(&messages(baseline, &[])[0]),
        "stage.baseline.policy: found string \"sequential\", expected \"none\": a baseline has no pool"
    );
}

#[test]
fn names_begin_with_a_letter_or_digit() {
    let expected =
        "expected 1 to 100 letters, digits, `.`, `_` or `-`, beginning with a letter or digit";
    for (path, from) in [
        ("run.name", "name = \"brian-tiny\""),
        ("stage.0.name", "name = \"baseline\""),
        ("data.valid.0.name", "name = \"stories\""),
    ] {
        for name in [
            "", ".", "..", ".hidden", "-x", "_x", "a/b", "a b", "é", "last~", "last~1",
        ] {
            let found = after(from, &format!("name = \"{name}\""));
            assert_eq!(found.len(), 1, "{path} {name:?}: {found:?}");
            let message = format!("name: found string \"{name}\", {expected}");
            assert!(found[0].ends_with(&message), "{path}: {found:?}");
        }
        for name in ["x", "7", "a.b_c-", &"x".repeat(100)] {
            assert_eq!(
                after(from, &format!("name = \"{name}\"")),
                [""; 0],
                "{path}"
            );
        }
        assert_eq!(
            after(from, &format!("name = \"{}\"", "x".repeat(101))).len(),
            1
        );
    }
}

#[test]
fn last_names_a_run_already_but_no_stage_and_no_source() {
    assert_eq!(
        after("name = \"brian-tiny\"", "name = \"last\""),
        [
            "run.name: found string \"last\", expected a name other than `last`, which means the newest run"
        ]
    );
    for from in [
        "name = \"brian-tiny\"",
        "name = \"baseline\"",
        "name = \"stories\"",
    ] {
        assert_eq!(after(from, "name = \"last-2\""), [""; 0]);
    }
    assert_eq!(after("name = \"baseline\"", "name = \"last\""), [""; 0]);
    assert_eq!(after("name = \"stories\"", "name = \"last\""), [""; 0]);
}

#[test]
fn the_cpu_is_one_device_and_others_may_be_many() {
    let with = |backend: &str| {
        let device = format!("device.backend={backend}");
        let found = messages(good(), &[&device, "device.index=1"]);
        found
            .iter()
            .map(|text| without_line(text))
            .collect::<Vec<_>>()
    };
    for backend in ["ndarray", "flex"] {
        assert_eq!(
            with(backend),
            [format!(
                "device.index, from --set: found integer 1, expected 0: {backend} knows one device, the CPU"
            )]
        );
    }
    for backend in ["wgpu", "vulkan", "cuda"] {
        assert_eq!(with(backend), [""; 0]);
    }
    // Whether there is such a device depends on the backend, which is not known here.
    let unknown = with("cud");
    assert_eq!(unknown.len(), 1, "{unknown:?}");
}

#[test]
fn a_group_may_rest_for_a_whole_stage() {
    let freeze = "freeze = [{ group = \"blocks\", until_step = 150 }]";
    assert_eq!(after("freeze = []", freeze), [""; 0]);
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file_and_wrong_values_break_no_rule() {
    let text = good()
        .replace("n_heads = 4", "n_heads = \"four\"")
        .replace("window = 64", "window = 100")
        .replace("kind = \"adamw\"", "kind = \"sgd\"")
        .replace("name = \"fixed\"", "nam = \"fixed\"")
        .replace(
            "[checkpoint]\nevery_steps = 50",
            "[checkpoint]\nevery_steps = 0",
        );
    let found: Vec<String> = messages(text, &[])
        .iter()
        .map(|text| without_line(text))
        .collect();
    assert_eq!(
        found,
        [
            "data.window: found integer 100, expected at most model.context, 64",
            "model.n_heads: found string \"four\", expected a whole number",
            "optimizer.kind: found string \"sgd\", expected one of \"adamw\", \"muon\", \"row_adamw\"",
            "stage.1.nam: found an unknown key, expected a known one; did you mean name?",
            "checkpoint.every_steps: found integer 0, expected a whole number from 1 to 1125899906842624",
        ]
    );
}

#[test]
fn text_that_is_not_toml_gives_one_message_with_line_and_column() {
    let one = |text: &str| {
        let found = messages(text.to_string(), &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    };
    assert_eq!(
        one(""),
        "r.toml: found an empty file, expected a recipe; `nerve config new` writes one"
    );
    let cases = [
        (
            "format 1",
            "column 8: found a syntax error (key with no value), expected `=`",
        ),
        (
            "a = [1",
            "column 7: found a syntax error (unclosed array), expected `]`",
        ),
        (
            "a = \"1",
            "column 7: found a syntax error (invalid basic string), expected `\"`",
        ),
        (
            "a = truth",
            "column 5: found a syntax error (invalid boolean) at \"truth\", expected `true`",
        ),
        (
            "a = 1e",
            "column 7: found a syntax error (invalid exponent), expected digits",
        ),
        (
            "a = 1\u{7}",
            "column 5: found a syntax error (string values must be quoted) at \"1\\u{7}\", expected literal string",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(one(text), format!("r.toml: line 1, {message}"));
    }
    assert_eq!(
        one("format = 2\nformat = 2"),
        "r.toml: line 2, column 1: found key \"format\" a second time, expected every key once"
    );
    assert_eq!(
        one("[run]\n[run]"),
        "r.toml: line 2, column 2: found key \"run\" a second time, expected every key once"
    );
    assert_eq!(
        one(&format!("a = {}{}", "[".repeat(40), "]".repeat(40))),
        "r.toml: line 1: found deeper nesting, expected at most 32 tables and lists in each other"
    );
    assert_eq!(
        one(&format!("format = 2\na = {}", "[".repeat(1_000_000))),
        "r.toml: line 2: found deeper nesting, expected at most 32 tables and lists in each other"
    );
    assert_eq!(
        one(&format!("{}a = 1", "a.".repeat(70))),
        "r.toml: line 1: found deeper nesting, expected at most 32 tables and lists in each other"
    );
}

#[test]
fn what_set_writes_is_checked_like_the_file_and_says_where_it_comes_from() {
    assert_eq!(
        after_set("model.d_model=wide"),
        ["model.d_model, from --set: found string \"wide\", expected a whole number"]
    );
    assert_eq!(
        after_set("stage.fixed.learning_rate.peak=nan"),
        ["stage.fixed.learning_rate.peak, from --set: found float nan, expected a finite number"]
    );
    assert_eq!(
        after_set("model.n_heads=3"),
        [
            "model.d_model: found integer 64, expected a multiple of 2 * n_heads = 6, so that every head has an even width for its rotary pairs"
        ]
    );
    let line = line_with("d_model");
    assert_eq!(
        after_set("model.d_modl=64"),
        [format!(
            "--set model.d_modl: found no such key in the recipe, expected a path that exists; \
             did you mean model.d_model (line {line})?"
        )]
    );
}

#[test]
fn a_hostile_file_gives_a_list_that_ends() {
    let text: String = (0..50_000).map(|i| format!("k{i} = 1\n")).collect();
    let found = messages(text, &[]);
    assert_eq!(found.len(), 201);
    assert!(found[200].starts_with("r.toml: found "), "{}", found[200]);
}

#[test]
fn no_beginning_of_a_recipe_and_no_lost_line_makes_it_panic() {
    let text = good();
    let lines: Vec<&str> = text.lines().collect();
    for lost in 0..lines.len() {
        messages(lines[..lost].join("\n"), &[]);
        messages(
            [&lines[..lost], &lines[lost + 1..]].concat().join("\n"),
            &[],
        );
    }
}

#[test]
fn packed_documents_need_a_model_that_keeps_them_apart() {
    let after = |sets: &[&str]| -> Vec<String> {
        let sets = [&["data.documents=packed"], sets].concat();
        let found = messages(good(), &sets);
        found.iter().map(|text| without_line(text)).collect()
    };
    assert_eq!(after(&[]), [""; 0]);
    assert_eq!(
        after(&["model.route.sees=sequence_mean"]),
        [
            "model.route.sees, from --set: found string \"sequence_mean\", expected token where windows hold several documents: the mean \
             of a window mixes them"
        ]
    );
    let beam = "model.route.parallel={kind='sequence_beam',width=2,branch_cost=0.0,score_decay=1.0,parent_exit='branch'}";
    let found = after(&[beam, "model.route.top_k=2"]);
    assert!(
        found[0].ends_with(
            "expected none or beam where windows hold several documents: all of a window would walk one path"
        ),
        "{found:?}"
    );
    assert_eq!(
        after(&["data.difficulty=token_rank"]),
        [
            "data.difficulty, from --set: found string \"token_rank\", expected none, label or a file where data.documents is \"packed\": it \
             ranks the rows of a batch, which hold several documents"
        ]
    );
    let graph = BUNDLED
        .iter()
        .find(|bundled| (bundled.kind, bundled.size) == ("brillm", "tiny"));
    let found = messages(graph.unwrap().text.to_string(), &["data.documents=packed"]);
    let found: Vec<String> = found.iter().map(|text| without_line(text)).collect();
    assert_eq!(
        found,
        [
            "data.documents, from --set: found string \"packed\", expected \"run_on\" or \"separate\": a brillm reads a window as one text"
        ]
    );
}

#[test]
fn a_router_needs_to_know_how_to_walk_and_a_mixed_teacher_how_hard_a_sequence_is() {
    let router = "stage.fixed.policy={kind='router',select='argmax'}";
    assert_eq!(
        after_set(router),
        ["stage.fixed.walk: found no such key, expected a table: its policy knows a router"]
    );
    let taught = after_set("stage.fixed.policy={kind='teacher',teacher='mixed_skip_recur'}");
    let difficulty =
        "expected a teacher that needs no difficulty, or data.difficulty other than \"none\"";
    assert!(
        taught.iter().any(|text| text.ends_with(difficulty)),
        "{taught:?}"
    );
    let path = "stage.fixed.policy={kind='teacher',teacher={kind='path',blocks=[0,2]}}";
    let path = after_set(path);
    assert!(
        path.iter()
            .any(|text| text.contains("expected blocks of the pool, 0 to 1")),
        "{path:?}"
    );
    for (policy, expected) in [
        (
            "{kind='teacher'}",
            "teacher, from --set: found no such key, expected one of \"sequential\"",
        ),
        (
            "{kind='teacher',teachers='path'}",
            "teachers, from --set: found an unknown key",
        ),
        (
            "{kind='teacher',teacher='sequental'}",
            "did you mean \"sequential\"?",
        ),
        (
            "teacher",
            "expected a table { kind = \"teacher\", teacher }",
        ),
    ] {
        let found = after_set(&format!("stage.fixed.policy={policy}"));
        let about = found.iter().filter(|text| text.contains("policy"));
        let about: Vec<&String> = about.filter(|text| !text.contains("walk")).collect();
        assert!(
            about.len() == 1 && about[0].contains(expected),
            "{policy}: {found:?}"
        );
    }
    // serde knows the kinds as it is told by the type; those who ask by hand know the same.
    let nobody = after_set("stage.fixed.policy={kind='teacher',teacher='nobody'}");
    let expected = format!("expected {}", one_of(&Teacher::BUILT_IN));
    assert!(
        nobody.iter().any(|text| text.ends_with(&expected)),
        "{nobody:?}"
    );
    for (steps, probability, expected) in [
        ([9, 9], 0.1, "expected rows whose until_step rises"),
        ([9, 10], 2.0, "expected from 0 to 1"),
    ] {
        let row =
            |step| format!("{{until_step={step},router_probability={probability},imitation=0.0}}");
        let rows = steps.map(row).join(",");
        let schedule = after_set(&format!(
            "stage.fixed.policy={{kind='scheduled',teacher='sequential',select='argmax',schedule=[{rows}]}}"
        ));
        assert!(
            schedule.iter().any(|text| text.contains(expected)),
            "{schedule:?}"
        );
    }
}

#[test]
fn a_memory_is_a_choice_with_rules_of_its_own() {
    let none = "memory = \"none\"";
    let codes = |sizes: &str| {
        format!(
            "memory = {{ kind = \"hidden_code\", {sizes}, adapters = \"per_block\", head_rank = 0, lifecycle = \"frozen\" }}"
        )
    };
    let prefix = |sizes: &str| {
        format!("memory = {{ kind = \"key_value_prefix\", {sizes}, lifecycle = \"frozen\" }}")
    };
    let nothing: [&str; 0] = [];
    assert_eq!(
        after(none, &codes("d_code = 16, sink = 0, window = 3")),
        nothing
    );
    assert_eq!(
        after(
            none,
            &prefix("sink = 1, window = 0, bias = -4, compression = \"none\"")
        ),
        nothing
    );
    assert_eq!(
        after(none, &codes("d_code = 0, sink = 0, window = 0")),
        [
            "model.memory.d_code: found integer 0, expected at least 1",
            "model.memory.window: found integer 0, expected at least 1 where memory.sink is 0: a memory that keeps nothing is none",
        ]
    );
    let compressed = "compression = { kind = \"code\", d_code = 0 }";
    assert_eq!(
        after(
            none,
            &prefix(&format!(
                "sink = 1, window = 9999, bias = -400, {compressed}"
            ))
        ),
        [
            "model.memory.window: found integer 9999, expected at most 4096",
            "model.memory.bias: found integer -400, expected -100 to 100"
        ]
    );
    assert_eq!(
        after(
            none,
            &prefix(&format!("sink = 1, window = 3, bias = -4, {compressed}"))
        ),
        ["model.memory.compression.d_code: found integer 0, expected at least 1"]
    );
    assert_eq!(
        after(none, "memory = \"hidden_cod\""),
        [
            "model.memory: found string \"hidden_cod\", expected one of \"none\", \"hidden_code\", \"key_value_prefix\", \"shared_code\", \"both\"; did you mean \"hidden_code\"?",
            "model.memory: found string \"hidden_cod\", expected a table { kind = \"hidden_code\", … }",
        ]
    );
}

#[test]
fn a_schedule_fits_its_stage_or_says_how_it_would() {
    let ladder = of_ladder;
    let row = |until: &str| format!("{{{until},router_probability=0.5,imitation=0.5}}");
    let rows = |first: &str, last: &str| {
        format!(
            "stage.scheduled.policy.schedule=[{},{}]",
            row(first),
            row(last)
        )
    };
    // Shares follow the stage; steps are right where they end with it.
    let shorter = "stage.scheduled.steps=30";
    assert_eq!(ladder(&[shorter, "stage.exit.steps=2000"]), [""; 0]);
    assert_eq!(ladder(&[&rows("until_step=9", "until_step=120")]), [""; 0]);
    let advice = "write until_share in the place of until_step in every row, and 1.0 in the last, so that rows follow the \
                  length of the stage; or move the rows with `steps`";
    let last = "stage.scheduled.policy.schedule.1";
    assert_eq!(
        ladder(&[&rows("until_step=9", "until_step=120"), shorter]),
        [format!(
            "{last}.until_step, from --set: found integer 120, expected 30: the last row ends with the stage; {advice}"
        )]
    );
    assert_eq!(
        ladder(&[&rows("until_share=0.2", "until_share=0.9")]),
        [format!(
            "{last}.until_share, from --set: found float 0.9, expected 1.0: the last row ends with the stage; {advice}"
        )]
    );
    assert_eq!(
        ladder(&[&rows("until_step=9,until_share=0.2", "until_step=120")]),
        [
            "stage.scheduled.policy.schedule.0, from --set: found both until_step and until_share, expected exactly one of \
             the two"
        ]
    );
    // In two steps, three rows have no room.
    assert_eq!(
        ladder(&[
            "stage.scheduled.steps=2",
            "stage.scheduled.learning_rate.warmup_steps=1"
        ]),
        [
            "stage.scheduled.policy.schedule: found a list of 3, expected rows whose ends rise; in steps of the stage they \
             are [1, 1, 2]"
        ]
    );
    assert_eq!(
        ladder(&["stage.exit.walk.exploration.noise_std={from=0.1,to=0.0,steps=300}"]),
        [
            "stage.exit.walk.exploration.noise_std.steps, from --set: found integer 300, expected at most the 200 steps of \
             the stage, so that the ramp reaches its end; write `share = 1.0` in the place of `steps` for a ramp that \
             follows the length of the stage"
        ]
    );
    assert_eq!(
        ladder(&["stage.exit.freeze=[{group='pool'}]"]),
        [
            "stage.exit.freeze.0, from --set: found neither until_step nor until_share, expected exactly one of the two"
        ]
    );
    assert_eq!(
        ladder(&["stage.exit.freeze=[{group='pool',until_share=1.5}]"]),
        [
            "stage.exit.freeze.0.until_share, from --set: found float 1.5, expected at least a step of the stage and at most \
             1.0, all of it"
        ]
    );
    let share = "{kind='constant',peak=1e-3,warmup_share=1.0}";
    assert_eq!(
        ladder(&[&format!("stage.exit.learning_rate={share}")]),
        [
            "stage.exit.learning_rate.warmup_share, from --set: found float 1.0, expected at least 0 and less than 1"
        ]
    );
    let stable = |rest: &str| {
        let start = "{kind='warmup_stable_decay',peak=1e-3,warmup_steps=10,decay='linear'";
        ladder(&[&format!("stage.exit.learning_rate={start},{rest}}}")])
    };
    let nothing: [&str; 0] = [];
    assert_eq!(stable("floor=0,decay_share=0.2"), nothing);
    assert_eq!(
        stable("floor=0.1,decay_share=1.0"),
        [
            "stage.exit.learning_rate.decay_share, from --set: found float 1.0, expected with the 10 steps of the warm-up no \
             more than the 200 steps of the stage",
            "stage.exit.learning_rate.floor, from --set: found float 0.1, expected at least 0 and at most the peak"
        ]
    );
    assert_eq!(
        stable("floor=0"),
        [
            "stage.exit.learning_rate, from --set: found neither decay_steps nor decay_share, expected exactly one of the two"
        ]
    );
}

/// The messages about the bundled ladder with some values of its own.
fn of_ladder(sets: &[&str]) -> Vec<String> {
    let mut bundled = BUNDLED.iter();
    let found = bundled.find(|recipe| (recipe.kind, recipe.size) == ("brian", "ladder"));
    let found = messages(found.unwrap().text.to_string(), sets);
    found.iter().map(|text| without_line(text)).collect()
}

#[test]
fn a_ramp_has_rows_in_the_stage_that_begin_one_behind_the_other() {
    let ramp = |rows: &str| {
        let sets = [format!("stage.exit.batch_ramp=[{rows}]")];
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        of_ladder(&sets)
    };
    let nothing: [&str; 0] = [];
    let two = "{from_step=10,accumulate=2},{from_share=0.5,accumulate=4}";
    assert_eq!(ramp(two), nothing);
    assert_eq!(ramp("{from_step=0,accumulate=1}"), nothing);
    assert_eq!(
        ramp("{from_step=10,accumulate=2},{from_step=10,accumulate=0}"),
        [
            "stage.exit.batch_ramp.1.accumulate, from --set: found integer 0, expected a whole number from 1 to 1048576",
            "stage.exit.batch_ramp.1.from_step, from --set: found integer 10, expected behind the row before",
        ]
    );
    assert_eq!(
        ramp("{from_step=200,accumulate=2}"),
        [
            "stage.exit.batch_ramp.0.from_step, from --set: found integer 200, expected before the end of the 200 steps of \
             the stage"
        ]
    );
    assert_eq!(
        ramp("{from_share=1.0,accumulate=2}").len() + ramp("{accumulate=2}").len(),
        2
    );
}

#[test]
fn only_the_first_stage_keeps_the_optimizer_of_another_run() {
    let start = "{kind='run',path='r',step=7,optimizer='kept'}";
    let nothing: [&str; 0] = [];
    assert_eq!(
        of_ladder(&[&format!("stage.baseline.start={start}")]),
        nothing
    );
    let fresh = start.replace("kept", "fresh");
    assert_eq!(of_ladder(&[&format!("stage.exit.start={fresh}")]), nothing);
    assert_eq!(
        of_ladder(&[&format!("stage.exit.start={start}")]),
        [
            "stage.exit.start.optimizer, from --set: found string \"kept\", expected \"fresh\": later stages go on in the data \
             behind this run's own first stage, not behind the other run"
        ]
    );
}

#[test]
fn muon_has_a_momentum_and_a_rate_for_what_adamw_updates() {
    let optimizer = |rest: &str| {
        format!(
            "[optimizer]\nkind = \"muon\"\nnesterov = true\nstep_length = \"like_adamw\"\nbetas = [0.9, 0.95]\nepsilon = 1e-8\n\
             weight_decay = 0.1\ndecay = \"matrices\"\nclip_norm = 1.0\n{rest}\n"
        )
    };
    let text = good();
    let (before, rest) = text.split_once("[optimizer]").unwrap();
    let (_, behind) = rest.split_once("\n\n").unwrap();
    let with = |rest: &str| {
        let found = messages(format!("{before}{}\n{behind}", optimizer(rest)), &[]);
        found
            .iter()
            .map(|text| without_line(text))
            .collect::<Vec<_>>()
    };
    let nothing: [&str; 0] = [];
    assert_eq!(with("momentum = 0.95\nadamw_rate = 0.3"), nothing);
    assert_eq!(
        with("momentum = 1.0\nadamw_rate = 0"),
        [
            "optimizer.momentum: found float 1.0, expected at least 0 and less than 1",
            "optimizer.adamw_rate: found integer 0, expected more than 0",
        ]
    );
}

#[test]
fn a_stage_that_is_nearly_all_warm_up_or_rest_is_worth_a_line() {
    let sets = [
        "stage.fixed.steps=12",
        "stage.baseline.freeze=[{group='norm',until_share=1.0}]",
    ];
    let recipe = from_text("r.toml", good(), &sets.map(str::to_string)).unwrap();
    assert_eq!(
        crate::recipe::remarks(&recipe),
        [
            "stage baseline: the group norm rests for all 150 steps of it",
            "stage fixed: the warm-up takes 10 of its 12 steps; learning_rate.warmup_share in the place of warmup_steps \
             follows the length of the stage",
        ]
    );
}
