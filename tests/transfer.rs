//! Tests of width transfer from the command line: the coordinate check of a small recipe, what it refuses, and a run that is trained,
//! wrapped, measured and sampled like any other.

use crate::support::Workplace;
use serde_json::Value;

const BASELINE: &str = "assets/recipes/baseline/tiny.toml";
const ROUTED: &str = "assets/recipes/brian/tiny.toml";
const BASE: &str = "model.width_transfer={base_d_model=16,base_d_head=8}";

/// The slope of a place's change behind the last step.
fn slope(object: &Value, place: &str, of: &str) -> f64 {
    let places = object["places"].as_array().expect("a list");
    let found = places.iter().find(|one| one["place"] == place);
    let steps = found.expect("the place")[of].as_array().expect("a list");
    let slope = &steps[steps.len() - 1]["change"]["slope"];
    slope.as_f64().expect("a number")
}

#[test]
fn changes_keep_their_size_over_widths_with_the_transfer_and_grow_without_it() {
    let workplace = Workplace::with_stories();
    let svg = workplace.path("slopes.svg");
    let line = format!(
        "check-transfer {BASELINE} --widths 32,64,128 --seeds 2 --json --svg {} --set model.n_layers=2",
        svg.display()
    );
    let object: Value = serde_json::from_str(&workplace.nerve(&line).expect(0).stdout).unwrap();
    for place in [
        "blocks.0.attention",
        "blocks.0.feed_forward",
        "blocks.1",
        "hidden",
        "logits",
    ] {
        let [with, without] = ["transfer", "standard"].map(|of| slope(&object, place, of));
        assert!(with.abs() < 0.25, "{place}: {with}");
        assert!(without > with, "{place}: {without}");
    }
    assert!(slope(&object, "logits", "standard") > 0.4, "{object}");
    assert!(std::fs::read_to_string(svg).unwrap().ends_with("</svg>"));
}

#[test]
fn what_has_no_width_to_check_is_refused_by_name() {
    let workplace = Workplace::with_stories();
    let refused = |line: &str, expected: &str| {
        let finished = workplace.nerve(line).expect(2);
        assert!(finished.stderr.contains(expected), "{}", finished.stderr);
    };
    refused(
        "check-transfer assets/recipes/brillm/tiny.toml",
        "model.kind: found \"brillm\", expected \"baseline\" or \"brian\", whose width can be transferred",
    );
    refused(
        &format!("check-transfer {BASELINE} --widths 64"),
        "--widths: found [64], expected at least two widths, rising, as in 64,128,256",
    );
    refused(
        &format!("check-transfer {BASELINE} --learning-rate 0"),
        "--learning-rate: found 0, expected more than 0",
    );
}

#[test]
fn a_run_whose_width_is_transferred_is_a_run_like_any_other() {
    let workplace = Workplace::with_stories();
    let sets = format!(
        "--set {BASE} --set stage.baseline.steps=4 --set stage.fixed.steps=4 \
         --set stage.baseline.learning_rate.warmup_steps=1 --set stage.fixed.learning_rate.warmup_steps=1 \
         --set stage.baseline.gate.at_most=100 --set watch.valid_every_steps=4 --set checkpoint.every_steps=2"
    );
    let fit = format!("fit {ROUTED} {sets}");
    let run = workplace.nerve(&fit).expect(0).stdout.trim().to_string();
    workplace.nerve(&format!("eval {run}")).expect(0);
    workplace
        .nerve(&format!("sample {run} --prompt Once --tokens 5"))
        .expect(0);
    let recipe = std::fs::read_to_string(workplace.path(&run).join("recipe.toml")).unwrap();
    assert!(recipe.contains("base_d_model=16"), "{recipe}");
}
