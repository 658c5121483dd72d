//! Tests that runs and recipes of older programs are still measured, sampled, resumed and upgraded: two runs from before the
//! start symbol, and two with recipes of format 1 (`routed` with a memory and a beam, `graph`).
//!
//! The numbers are those of the program that made them.

use crate::support::Workplace;

/// Losses in single precision, on machines with other vector instructions.
const MEASURED: f64 = 1e-5;
/// The same after tens of steps more.
const TRAINED: f64 = 1e-3;

#[test]
fn a_run_of_before_is_measured_sampled_and_resumed_as_before() {
    let workplace = Workplace::with_older_runs();
    let runs = [
        (
            "ladder",
            [(41, 4.889668550), (130, 4.248413900)],
            525,
            false,
        ),
        (
            "brillm",
            [(21, 2.214425202), (40, 2.213680747)],
            1755,
            false,
        ),
        ("routed", [(19, 5.304226146), (21, 5.291054415)], 537, true),
        ("graph", [(9, 2.210950765), (12, 2.210941150)], 1758, true),
    ];
    for (run, [before, after], targets, behind_a_symbol) in runs {
        let measure = |(step, loss): (u64, f64), within: f64| {
            let finished = workplace.nerve(&format!("eval {run} --json")).expect(0);
            let said = finished.stderr.contains("data.start = \"first_token\"");
            assert_eq!(said, !behind_a_symbol, "{}", finished.stderr);
            let measured = finished.json();
            assert_eq!(measured["step"], step);
            let split = &measured["splits"][0];
            assert_eq!(split["targets"], targets);
            let found = split["loss/lm"].as_f64().unwrap();
            assert!((found - loss).abs() < within, "{run}: {found} and {loss}");
        };
        measure(before, MEASURED);
        workplace
            .nerve(&format!("sample {run} --prompt ab --tokens 3"))
            .expect(0);
        workplace
            .nerve(&format!("fit --resume {run} --render none"))
            .expect(0);
        measure(after, TRAINED);
    }
}

#[test]
fn the_recipe_of_an_older_run_is_upgraded_only_where_somebody_asks_for_it() {
    let workplace = Workplace::with_older_runs();
    let recipe = "brillm/recipe.toml";
    let written = std::fs::read_to_string(workplace.path(recipe)).unwrap();
    let refused = workplace.nerve(&format!("fit {recipe}")).expect(2).stderr;
    assert!(
        refused.contains("nerve config upgrade brillm/recipe.toml"),
        "{refused}"
    );
    let upgraded = workplace
        .nerve(&format!("config upgrade {recipe}"))
        .expect(0);
    assert!(
        upgraded
            .stderr
            .contains("brillm/recipe.toml: data.start = \"first_token\""),
        "{}",
        upgraded.stderr
    );
    workplace.write("new.toml", &upgraded.stdout);
    workplace
        .nerve("fit new.toml --dry-run --set run.name=new")
        .expect(0);
    workplace.nerve("config show new.toml").expect(0);
    let again = workplace.nerve("config upgrade new.toml").expect(0);
    assert_eq!(again.stdout, upgraded.stdout);
    assert!(again.stderr.contains("needs no upgrade"));
    assert_eq!(
        std::fs::read_to_string(workplace.path(recipe)).unwrap(),
        written
    );
}
