//! Example: changes one weight in each block of a routed model's pool and prints how far the logits move on a fixed route.
//!
//! `cargo run --release -p brian --features ndarray --example one_weight`

use brian::route::policy::{Policy, SequenceInfo, Teacher};
use brian::{BrianConfig, Rules, parameter};
use burn::tensor::{Int, Tensor};
use burn_ndarray::NdArray;

fn main() {
    let model = BrianConfig::small().init::<NdArray>(20, 1, &Default::default());
    let tokens = Tensor::<_, 2, Int>::from_data([[3, 1, 4, 1, 5]], &Default::default());
    let mut rules = Rules::sequential();
    rules.policy = Policy::Teacher(Teacher::Path { blocks: vec![2, 0] });
    let rows = [SequenceInfo::default()];
    let (before, _) = model.forward(tokens.clone(), &rules, &rows);
    for block in 0..3 {
        let path = format!("pool.{block}.block.feed_forward.up.weight");
        let values = parameter::collect(&model);
        let changed = parameter::assign(model.clone(), |name, _| {
            let mut values: Vec<f32> = values[name].iter().collect();
            values[0] += f32::from(name == path);
            values
        });
        let (after, _) = changed.forward(tokens.clone(), &rules, &rows);
        let moved = (after - before.clone()).abs().max().into_scalar();
        println!("{path}: logits move by {moved:.4}");
    }
}
