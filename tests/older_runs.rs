//! Runs that were made before documents began behind a symbol go on being what they are.
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
        ("ladder", [(41, 4.889668550), (130, 4.248413900)], 525),
        ("brillm", [(21, 2.214425202), (40, 2.213680747)], 1755),
    ];
    for (run, [before, after], targets) in runs {
        let measure = |(step, loss): (u64, f64), within: f64| {
            let finished = workplace.nerve(&format!("eval {run} --json")).expect(0);
            assert!(
                finished.stderr.contains("data.start = \"first_token\""),
                "{}",
                finished.stderr
            );
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
