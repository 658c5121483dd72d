//! Describes in words what training a recipe would do: its stages, its needs and its run directory.

use super::answer::readable_bytes;
use crate::ladder::Needs;
use crate::recipe::tree::{Node, Value};
use crate::recipe::{Checked, Stage};

/// One line for each stage, then the needs and the run directory.
pub fn plan(recipe: &Checked, needs: &Needs) -> String {
    let stages = recipe.source().root.entry("stage");
    let nodes = stages.map_or(&[][..], |entry| entry.node.elements());
    let line = |(stage, node): (&Stage, &Node)| {
        let keys = ["start", "policy", "learning_rate", "batch_ramp", "gate"];
        let written = keys.iter().filter_map(|key| node.entry(key));
        let words = written.map(|entry| format!(", {} {}", entry.key, words(&entry.node)));
        let words: String = words.collect();
        format!("stage {}: {} steps{words}\n", stage.name, stage.steps)
    };
    let stages: String = recipe.stage.iter().zip(nodes).map(line).collect();
    let memory = readable_bytes(needs.bytes());
    let checkpoint = readable_bytes(needs.checkpoint_bytes());
    let run = recipe.run.root.join(&recipe.run.name);
    format!(
        "{stages}{} parameters, at least {memory} of memory, {checkpoint} for each checkpoint\n\
         a run under {}, with a number if it exists\n",
        needs.parameters,
        run.display()
    )
}

/// A choice by its name, then its keys: `scheduled (teacher mixed_skip_recur, select argmax, schedule of 3)`.
fn words(node: &Node) -> String {
    match &node.value {
        Value::String(text) => text.clone(),
        Value::Integer(value) => value.map_or("?".to_string(), |value| value.to_string()),
        Value::Float(value) => value.to_string(),
        Value::Boolean(yes) => yes.to_string(),
        Value::Datetime => "a date".to_string(),
        Value::Array(elements) => format!("of {}", elements.len()),
        Value::Table(entries) => {
            let kind = node.entry("kind").map(|entry| words(&entry.node));
            let others = entries.iter().filter(|entry| entry.key != "kind");
            let others = others.map(|entry| format!("{} {}", entry.key, words(&entry.node)));
            let others = others.collect::<Vec<_>>().join(", ");
            match kind {
                Some(kind) if others.is_empty() => kind,
                Some(kind) => format!("{kind} ({others})"),
                None => others,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;

    #[test]
    fn a_plan_speaks_the_words_of_the_recipe() {
        let mut bundled = BUNDLED.iter();
        let ladder = bundled.find(|recipe| (recipe.kind, recipe.size) == ("brian", "ladder"));
        let sets = ["stage.baseline.start={kind='run',path='runs/a'}".to_string()];
        let recipe = from_text("r.toml", ladder.unwrap().text.to_string(), &sets).unwrap();
        let plan = plan(&recipe, &Needs::of_sizes(&recipe, 260, 1000));
        let lines: Vec<&str> = plan.lines().collect();
        let begins = |line: usize, text: &str| assert!(lines[line].starts_with(text), "{plan}");
        begins(
            0,
            "stage baseline: 300 steps, start run (path runs/a), policy none, learning_rate warmup_cosine (peak 0.003, \
             warmup_steps 20, floor 0.001)",
        );
        begins(
            1,
            "stage fixed: 50 steps, start previous, policy sequential, ",
        );
        begins(
            2,
            "stage imitation: 80 steps, start previous, policy teacher (teacher sequential), ",
        );
        assert!(
            lines[3].contains(
                "policy scheduled (teacher mixed_skip_recur, select argmax, schedule of 3)"
            ),
            "{plan}"
        );
        assert!(lines[4].contains("policy router (select "), "{plan}");
        assert_eq!(
            lines[6],
            "a run under runs/brian-ladder, with a number if it exists"
        );
    }
}
