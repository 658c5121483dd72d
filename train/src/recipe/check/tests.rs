//! Tests of the bounds of optimizer, batch, watch, window, rates, freezes, gates and walks in a recipe, from both sides:
//! what is allowed at a bound, and what is refused beyond.

use crate::recipe::bundled::BUNDLED;
use crate::recipe::load::from_text;

/// The messages about a bundled recipe with some values of its own.
fn messages((kind, size): (&str, &str), sets: &[String]) -> Vec<String> {
    let found = BUNDLED
        .iter()
        .find(|one| (one.kind, one.size) == (kind, size))
        .unwrap();
    match from_text("r.toml", found.text.to_string(), sets) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// Values that a key may have, and values at which it alone is refused.
fn holds(recipe: (&str, &str), key: &str, allowed: &[&str], refused: &[&str]) {
    let set = |value: &str| vec![format!("{key}={value}")];
    for value in allowed {
        let found = messages(recipe, &set(value));
        assert_eq!(found, [""; 0], "{key} = {value}");
    }
    for value in refused {
        let found = messages(recipe, &set(value));
        assert_eq!(found.len(), 1, "{key} = {value}: {found:?}");
    }
}

const LADDER: (&str, &str) = ("brian", "ladder");
const GRAPH: (&str, &str) = ("brillm", "tiny");

/// What may be left out of a decoder's recipe, and was.
#[test]
fn a_cap_scales_and_a_z_loss_have_their_bounds() {
    for decoder in [("baseline", "tiny"), LADDER] {
        let key = "model.logit_cap";
        holds(
            decoder,
            key,
            &["1", "30.0", "1e4"],
            &["0.9", "-30.0", "1e5"],
        );
        let key = "model.residual_scale";
        let constant = |factor: &str| format!("{{kind='constant',factor={factor}}}");
        let [least, half, zero] = ["1e-6", "0.5", "0.0"].map(constant);
        holds(decoder, key, &["depth", &least, &half], &["deep", &zero]);
        let z = |weight: &str| format!("{{z={{weight={weight}}}}}");
        let [none, some, wrong] = ["0.0", "1e-4", "-1e-9"].map(z);
        holds(
            decoder,
            "loss",
            &[&none, &some],
            &[&wrong, "{z={}}", "{y={weight=0.1}}"],
        );
    }
    let visits = [
        "{scale='inverse'}",
        "{scale='inverse_sqrt',gains=true}",
        "{gains=true}",
    ];
    holds(
        LADDER,
        "model.visits",
        &visits,
        &["{scale='cube'}", "{gain=true}"],
    );
    // The loss of a graph is part of its optimizer.
    holds(GRAPH, "loss", &[], &["{z={weight=1e-4}}"]);
}

/// A table may be left out; what it needs of the rest of the recipe is said by name.
#[test]
fn a_width_is_transferred_where_all_that_depends_on_it_is_known() {
    let base =
        |d_model: &str, d_head: &str| format!("{{base_d_model={d_model},base_d_head={d_head}}}");
    let key = "model.width_transfer";
    for decoder in [("baseline", "tiny"), LADDER] {
        let [own, odd, none] = [("64", "16"), ("3", "1"), ("0", "16")].map(|(a, b)| base(a, b));
        let without = "{base_d_model=64}";
        holds(decoder, key, &[&own, &odd], &[&none, without, "64"]);
    }
    holds(GRAPH, key, &[], &[&base("64", "16")]);
    let transferred = format!("{key}={}", base("64", "16"));
    let with = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        messages(("baseline", "tiny"), &sets)
    };
    let text = |length: &str| {
        let found = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == ("baseline", "tiny"));
        let muon = format!(
            "kind = \"muon\"\nmomentum = 0.95\nnesterov = true\nstep_length = \"{length}\"\nadamw_rate = 0.3"
        );
        found.unwrap().text.replace("kind = \"adamw\"", &muon)
    };
    let of = |length: &str| match from_text(
        "r.toml",
        text(length),
        std::slice::from_ref(&transferred),
    ) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(of("original"), [""; 0]);
    let [refused] = &of("like_adamw")[..] else {
        panic!("one problem");
    };
    assert!(
        refused.contains("optimizer.step_length")
            && refused.contains("original: steps as long as AdamW's grow with the width"),
        "{refused}"
    );
    let [refused] = &with(&[&transferred, "model.initial=torch_default"])[..] else {
        panic!("one problem");
    };
    assert!(refused.contains("model.initial"), "{refused}");
}

#[test]
fn optimizer_batches_and_watches_have_their_bounds() {
    let ladder =
        |key: &str, allowed: &[&str], refused: &[&str]| holds(LADDER, key, allowed, refused);
    ladder(
        "optimizer.betas",
        &["[0.0,0.0]", "[0.999,0.5]"],
        &["[1.0,0.9]", "[0.9,1.0]", "[-0.1,0.9]"],
    );
    ladder(
        "optimizer.epsilon",
        &["1.2e-38", "0.99"],
        &["1.1e-38", "1.0"],
    );
    ladder("optimizer.weight_decay", &["0.0", "2.0"], &["-1e-9"]);
    ladder(
        "optimizer.decay_by",
        &["learning_rate", "schedule"],
        &["rate"],
    );
    let by_schedule = |decay: &str| {
        let sets = ["optimizer.decay_by=schedule", decay];
        messages(LADDER, &sets.map(str::to_string)).len()
    };
    assert_eq!(by_schedule("optimizer.weight_decay=1.0"), 0);
    assert_eq!(by_schedule("optimizer.weight_decay=1.01"), 1);
    ladder("optimizer.clip_norm", &["1e-9", "1e9"], &["0.0", "-1.0"]);
    holds(GRAPH, "optimizer.clip_row", &["1e-9"], &["0.0"]);
    ladder("batch.sequences", &["1", "1048576"], &["0", "1048577"]);
    ladder("batch.accumulate", &["1", "1048576"], &["0", "1048577"]);
    ladder("data.window", &["2"], &["1"]);
    ladder("watch.log_every_steps", &["1"], &["0"]);
    ladder("watch.valid_tokens", &["1"], &["0"]);
    ladder("checkpoint.every_steps", &["1"], &["0"]);
    ladder("checkpoint.keep_last", &["2"], &["1"]);
    // What never happens needs neither tokens nor prompts.
    ladder("watch.sample_tokens", &["0"], &[]);
    ladder("watch.sample_prompts", &["[]"], &[]);
    let sampling = |set: &str| {
        messages(
            LADDER,
            &["watch.sample_every_steps=5".to_string(), set.to_string()],
        )
        .len()
    };
    assert_eq!(
        [
            sampling("watch.sample_tokens=1"),
            sampling("watch.sample_tokens=0")
        ],
        [0, 1]
    );
    assert_eq!(sampling("watch.sample_prompts=[]"), 1);
}

#[test]
fn an_average_has_a_share_and_begins_in_every_stage_of_a_model_with_parameters() {
    let with = |recipe: (&str, &str), table: &str| {
        let sets = [format!("average={{{table}}}")];
        messages(recipe, &sets)
    };
    let nothing: [&str; 0] = [];
    for allowed in [
        "decay=0.999,every_steps=1",
        "decay=0,every_steps=10,from_step=150",
    ] {
        assert_eq!(with(("brian", "tiny"), allowed), nothing, "{allowed}");
    }
    for refused in [
        "decay=1.0,every_steps=1",
        "decay=-0.1,every_steps=1",
        "decay=0.9,every_steps=0",
        "decay=0.9,every_steps=1,from_step=151",
        "decay=0.9,every_steps=1,from_step=0",
        "decay=0.9",
    ] {
        assert_eq!(with(("brian", "tiny"), refused).len(), 1, "{refused}");
    }
    let graph = with(GRAPH, "decay=0.9,every_steps=1");
    assert!(
        graph.len() == 1 && graph[0].contains("none: a brillm keeps its numbers itself"),
        "{graph:?}"
    );
}

#[test]
fn a_window_ends_where_the_context_does() {
    let of = |window: &str| {
        messages(
            LADDER,
            &[
                "model.context=48".to_string(),
                format!("data.window={window}"),
            ],
        )
        .len()
    };
    assert_eq!(["47", "48", "49"].map(of), [0, 0, 1]);
}

#[test]
fn blocks_run_again_where_there_are_blocks_and_on_the_host() {
    for decoder in [("baseline", "tiny"), LADDER] {
        holds(decoder, "batch.recompute", &["blocks"], &["all", "true"]);
    }
    let again = |recipe, backend: &str| {
        let sets = ["batch.recompute=blocks", backend].map(str::to_string);
        messages(recipe, &sets)
    };
    let cases = [
        (
            LADDER,
            "device.backend=cuda",
            "none: blocks run again on ndarray alone, and this is cuda",
        ),
        (
            GRAPH,
            "device.backend=flex",
            "none: a brillm runs nothing again",
        ),
    ];
    for (recipe, backend, expected) in cases {
        let found = again(recipe, backend);
        assert!(
            found.len() == 1 && found[0].contains("batch.recompute") && found[0].contains(expected),
            "{found:?}"
        );
    }
}

#[test]
fn a_graph_of_halves_is_trained_row_by_row_only() {
    let sets = |mode: &str, storage: &str| {
        let sets = [
            format!("optimizer.mode={mode}"),
            format!("model.storage={storage}"),
        ];
        messages(GRAPH, &sets).len()
    };
    assert_eq!(
        [
            sets("exact", "f32"),
            sets("dense", "f32"),
            sets("touched", "f32")
        ],
        [0; 3]
    );
    assert_eq!(
        [
            sets("exact", "bf16"),
            sets("dense", "bf16"),
            sets("touched", "bf16")
        ],
        [1, 1, 0]
    );
    let found = messages(GRAPH, &["device.dtype=bf16".to_string()]);
    assert!(
        found.len() == 1 && found[0].contains("device.dtype"),
        "{found:?}"
    );
}

#[test]
fn rates_rests_and_gates_have_their_bounds() {
    let ladder =
        |key: &str, allowed: &[&str], refused: &[&str]| holds(LADDER, key, allowed, refused);
    // The first stage has 300 steps and a peak of 3e-3.
    let rate = |rest: &str| format!("{{kind='warmup_cosine',{rest}}}");
    let rates = |rests: &[&str]| rests.iter().map(|rest| rate(rest)).collect::<Vec<String>>();
    let [allowed, refused] = [
        &[
            "peak=1.0,warmup_steps=0,floor=1.0",
            "peak=1e-9,warmup_steps=299,floor=0.0",
            "peak=1e-3,warmup_share=0.0,floor=0.0",
            "peak=1e-3,warmup_share=0.99,floor=0.0",
        ][..],
        &[
            "peak=1.001,warmup_steps=0,floor=0.1",
            "peak=1e-3,warmup_steps=300,floor=0.0",
            "peak=1e-3,warmup_steps=9,floor=1.1e-3",
            "peak=1e-3,warmup_steps=9,floor=-1e-9",
            "peak=1e-3,warmup_share=1.0,floor=0.0",
            "peak=1e-3,warmup_share=-0.1,floor=0.0",
            "peak=1e-3,floor=0.0",
            "peak=1e-3,warmup_steps=9,warmup_share=0.1,floor=0.0",
        ],
    ]
    .map(rates);
    for (rates, right) in [(&allowed, true), (&refused, false)] {
        for rate in rates {
            let found = messages(LADDER, &[format!("stage.baseline.learning_rate={rate}")]);
            assert_eq!(found.len(), usize::from(!right), "{rate}: {found:?}");
        }
    }
    ladder(
        "stage.baseline.learning_rate.peak",
        &["3e-3", "1e-3"],
        &["0.9e-3"],
    );
    let freeze = |until: &str| format!("[{{group='norm',{until}}}]");
    let [one, all] = ["until_step=1", "until_step=300"].map(freeze);
    let [none, more] = ["until_step=0", "until_step=301"].map(freeze);
    ladder("stage.baseline.freeze", &[&one, &all], &[&none, &more]);
    // A share of 0.002 of 300 steps is one step, to the nearest; 0.001 is none.
    let [one, all] = ["until_share=0.002", "until_share=1.0"].map(freeze);
    let [none, more] = ["until_share=0.001", "until_share=1.01"].map(freeze);
    ladder("stage.baseline.freeze", &[&one, &all], &[&none, &more]);
    let gate = |bounds: &str| format!("{{metric='valid/loss/lm'{bounds}}}");
    let [most, least] = [",at_most=1", ",at_least=1"].map(gate);
    let [neither, both] = ["", ",at_most=1,at_least=0"].map(gate);
    ladder("stage.exit.gate", &[&most, &least], &[&neither, &both]);
    ladder("stage.baseline.start", &["fresh"], &["previous"]);
    let never = messages(LADDER, &["watch.valid_every_steps=0".to_string()]);
    assert_eq!(
        never.len(),
        2,
        "each of two gates has nothing to look at: {never:?}"
    );
}

#[test]
fn walks_have_their_bounds() {
    let of = |key: &str, allowed: &[&str], refused: &[&str]| {
        holds(LADDER, &format!("stage.exit.walk.{key}"), allowed, refused);
    };
    of("location_bias", &["0.0"], &["-1e-9"]);
    // The longest walk has five steps.
    of("shortest", &["1", "5"], &["0", "6"]);
    for key in ["early_exit_penalty", "exit_ramp_bias", "final_exit_bias"] {
        of(&format!("constraint.{key}"), &["0.0", "5.0"], &["-1e-9"]);
    }
    of("constraint.min_exit_step", &["1"], &["0"]);
    let ramp = |rest: &str| format!("{{from=0.5,to=0.1,{rest}}}");
    for key in ["noise_std", "override_probability"] {
        let [all, short, steps] = ["share=1.0", "share=0.01", "steps=200"].map(ramp);
        let [none, more, longer] = ["share=0.0", "share=1.01", "steps=201"].map(ramp);
        let key = format!("exploration.{key}");
        of(&key, &[&all, &short, &steps], &[&none, &more, &longer]);
        of(
            &key,
            &["{from=0.0,to=1.0,steps=1}"],
            &["{from=-0.1,to=1.0,steps=1}", "{from=1.0,to=-0.1,steps=1}"],
        );
        // What stays as it is may be said for any number of steps.
        of(&key, &["{from=0.1,to=0.1,steps=9000}"], &[]);
    }
    of("exploration.noise_std", &["{from=1.5,to=1.0,steps=1}"], &[]);
    of(
        "exploration.override_probability",
        &[],
        &["{from=1.5,to=1.0,steps=1}"],
    );
    let losses = [
        "imitation",
        "balance",
        "selected_balance",
        "coverage_floor",
        "transition_diversity",
        "cost",
    ];
    for key in
        losses
            .into_iter()
            .chain(["location", "exit_boundary", "input_anchor", "halting_prior"])
    {
        of(&format!("loss.{key}"), &["0.0", "2.0"], &["-1e-9"]);
    }
    of("loss.coverage_least", &["0.0", "1.0"], &["-1e-9", "1.01"]);
    of("loss.halting_steps", &["1.01"], &["1.0"]);
    // Where OUT does not end a walk, nothing is asked of when it ends.
    holds(
        LADDER,
        "stage.imitation.walk.loss.halting_prior",
        &["0.0"],
        &["0.1"],
    );
    let select = |temperature: &str| {
        format!(
            "{{kind='router',select={{kind='sample',temperature={temperature},in_evaluation=false}}}}"
        )
    };
    holds(
        LADDER,
        "stage.exit.policy",
        &[&select("0.1")],
        &[&select("0.0")],
    );
    let rows = |first: &str, last: &str| {
        let row = |rest: &str| format!("{{router_probability=0.5,imitation=0.5,{rest}}}");
        format!("[{},{}]", row(first), row(last))
    };
    let key = "stage.scheduled.policy.schedule";
    holds(
        LADDER,
        key,
        &[
            &rows("until_step=1", "until_step=120"),
            &rows("until_share=0.01", "until_share=1.0"),
        ],
        &[
            &rows("until_step=60", "until_step=119"),
            &rows("until_share=0.5", "until_share=0.99"),
        ],
    );
    let row = |rest: &str| format!("[{{until_share=1.0,{rest}}}]");
    let [none, all] = [
        "router_probability=0,imitation=0",
        "router_probability=1,imitation=9",
    ]
    .map(row);
    let [less, more] = [
        "router_probability=-0.1,imitation=0",
        "router_probability=1.1,imitation=0",
    ]
    .map(row);
    holds(
        LADDER,
        key,
        &[&none, &all],
        &[&less, &more, &row("router_probability=1,imitation=-1")],
    );
}
