//! Tests of `nerve route --memory`: for every kind of memory what tokens read, as JSON, page and picture, and refusals of models of which
//! nothing can be shown.

use crate::support::Workplace;
use serde_json::Value;

const HIDDEN_CODE: &str = "{kind='hidden_code',d_code=4,sink=1,window=2,adapters='per_block',head_rank=0,lifecycle='frozen'}";
const PREFIX: &str =
    "{kind='key_value_prefix',sink=1,window=2,bias=-1.0,compression='none',lifecycle='frozen'}";
const LAST: &str = "{kind='shared_code',d_code=4,codes={kind='current_and_last',bias=-1.0}}";
const CURRENT: &str = "{kind='shared_code',d_code=4,codes='current'}";

/// A run of a few steps of every stage, whose model has this memory.
fn trained(workplace: &Workplace, name: &str, sets: &str) -> String {
    let line = format!("fit routes.toml --render none --set run.name={name} {sets}");
    workplace.nerve(&line).expect(0).answer().to_string()
}

/// The reads of the first sequence, after what must hold for any.
fn checked(report: &Value, top: usize) -> &Vec<Value> {
    let sequence = &report["sequences"][0];
    let n_tokens = sequence["tokens"].as_array().unwrap().len();
    let reads = sequence["reads"].as_array().unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    for read in reads {
        let shares = read["shares"].as_array().unwrap();
        let listed: Vec<f64> = shares.iter().map(|share| number(&share["share"])).collect();
        assert!(
            listed.is_sorted_by(|a, b| a >= b) && listed.len() <= top,
            "{read}"
        );
        let mass = listed.iter().sum::<f64>() + number(&read["left_out"]["sum"]);
        assert!((mass - number(&read["of_memory"])).abs() < 1e-4, "{read}");
        assert!((mass + number(&read["own"]) - 1.0).abs() < 1e-4, "{read}");
        let reader = read["token"].as_u64().unwrap();
        assert!((reader as usize) < n_tokens, "{read}");
        let earlier = |share: &Value| share["token"].as_u64().unwrap() <= reader;
        assert!(shares.iter().all(earlier), "{read}");
    }
    let left_out = |read: &Value| read["left_out"]["shares"].as_u64().unwrap() > 0;
    assert!(reads.iter().any(left_out), "not everything is listed");
    reads
}

#[test]
fn what_tokens_read_is_shown_for_every_memory_of_earlier_steps() {
    let workplace = Workplace::with_routes();
    for (name, memory) in [
        ("hidden_code", HIDDEN_CODE),
        ("key_value_prefix", PREFIX),
        ("shared_code", LAST),
    ] {
        // A router of a few steps leaves at once, and reads nothing.
        let taught = "--set stage.exit.policy={kind='teacher',teacher='sequential'}";
        let sets = format!("--set model.memory={memory} {taught}");
        let run = trained(&workplace, name, &sets);
        let line = format!(
            "route {run} --memory --prompt copy --top 2 --json --html {name}.html --svg {name}.svg"
        );
        let report = workplace.nerve(&line).expect(0).json();
        assert_eq!(report["memory"], name);
        // Behind the start symbol.
        assert_eq!(report["sequences"][0]["tokens"][1]["text"], "c");
        let reads = checked(&report, 2);
        // Codes are read before a decision and behind the exit, of the other two blocks read.
        let at = |at: &str| reads.iter().filter(|read| read["at"] == at).count();
        let (of_codes, of_blocks) = (at("decision") + at("exit"), at("block"));
        assert_eq!(of_codes + of_blocks, reads.len());
        assert_eq!(of_codes > 0, name == "hidden_code", "{name}");
        assert_eq!(at("exit") > 0, name == "hidden_code", "{name}");
        // What stands before the walk no block has written; what a block wrote has a name.
        let shares = reads
            .iter()
            .flat_map(|read| read["shares"].as_array().unwrap());
        for share in shares {
            let blocks = share["blocks"].as_array().unwrap().len();
            match name {
                "hidden_code" => assert!(share["step"] != 0 || blocks == 0, "{share}"),
                _ => assert!(share["step"] != 0 && blocks == 1, "{share}"),
            }
        }
        for file in [format!("{name}.html"), format!("{name}.svg")] {
            let document = std::fs::read_to_string(workplace.path(&file)).unwrap();
            assert!(document.contains("class=\"share\""), "{file}");
        }
        let shown = workplace
            .nerve(&format!("route {run} --memory --tokens 100 --sequences 1"))
            .expect(0)
            .stdout;
        assert!(shown.contains("the largest shares"), "{shown}");
    }
}

#[test]
fn a_model_of_which_no_read_can_be_shown_is_refused_by_the_name_of_what_is_missing() {
    let workplace = Workplace::with_routes();
    let several = format!(
        "--set model.memory={HIDDEN_CODE} --set model.route.parallel={{kind='beam',width=2,children=2,branch_cost=0.0,score_decay=1.0}}"
    );
    for (name, sets, expected) in [
        (
            "none",
            String::new(),
            "model.memory: found none, expected a memory",
        ),
        (
            "current",
            format!("--set model.memory={CURRENT}"),
            "model.memory.codes: found current, codes of the states at each step alone, expected current_and_last",
        ),
        (
            "left_out",
            format!("--set model.memory={PREFIX} --set stage.exit.walk.memory=false"),
            "stage exit: walk.memory: found false",
        ),
        ("several", several, "stage exit: walk.parallel: found true"),
    ] {
        let run = trained(&workplace, name, &sets);
        let refused = workplace.nerve(&format!("route {run} --memory --prompt copy"));
        let refused = refused.expect(2).stderr;
        assert!(refused.contains(expected), "{refused}");
    }
}
