//! Turns the steps of a traced text into tables (one row per step; the candidates of a step), JSON and the mean loss.

use super::names::Names;
use super::table::{Table, columns, number};
use crate::command::answer::maybe;
use brillm::explain::{Attribution, Placed, Split, TracedStep};
use serde_json::{Value, json};

/// The mean nats of all tokens but the first; `None` for a text of one token.
pub fn loss(steps: &[TracedStep]) -> Option<f64> {
    let nats: Vec<f64> = token_losses(steps).collect();
    (!nats.is_empty()).then(|| nats.iter().sum::<f64>() / nats.len() as f64)
}

fn token_losses(steps: &[TracedStep]) -> impl Iterator<Item = f64> {
    let truths = steps.iter().filter_map(|step| step.truth);
    truths.map(|truth| truth.nats)
}

/// One line per step.
pub fn overview(steps: &[TracedStep], names: &Names<'_>) -> Table {
    let heads = "at> | token~ | length> | next~ | nats> | rank> | best~ | p> | entropy>";
    let mut table = Table::new("step by step", &columns(heads));
    for step in steps {
        let best = step.best();
        let rank = step.truth.and_then(|truth| truth.rank);
        table.row([
            (step.position + 1).to_string(),
            names.of(step.token).to_string(),
            number(f64::from(step.norm)),
            maybe(step.truth, |truth| names.of(truth.target).to_string()),
            maybe(step.truth, |truth| number(truth.nats)),
            maybe(rank, |rank| rank.to_string()),
            maybe(best, |best| names.of(best.target).to_string()),
            maybe(best, |best| format!("{:.3}", best.probability())),
            number(step.odds.entropy),
        ]);
    }
    let n = token_losses(steps).count();
    table.notes = match loss(steps) {
        Some(loss) => vec![format!(
            "loss {loss:.6} nats, mean over {n} tokens that had one before them"
        )],
        None => vec!["one token: nothing was predicted yet".to_string()],
    };
    table
}

/// The candidates after a token.
pub fn candidates(step: &TracedStep, names: &Names<'_>) -> Table {
    let title = format!(
        "step {} at {}: {} edges of its own, signal of length {}",
        step.position + 1,
        names.of(step.token),
        step.degree,
        number(f64::from(step.norm))
    );
    let heads = "rank> | next~ | energy> | score> | p> | row> | | count> |";
    let mut table = Table::new(title, &columns(heads));
    let is_true = |placed: &Placed| {
        step.truth
            .is_some_and(|truth| truth.target == placed.target)
    };
    let is_shown = step.candidates.iter().any(is_true);
    let truth = step.truth.iter().filter(|_| !is_shown);
    for placed in step.candidates.iter().chain(truth) {
        table.row([
            maybe(placed.rank, |rank| rank.to_string()),
            names.of(placed.target).to_string(),
            number(f64::from(placed.energy)),
            number(f64::from(placed.score)),
            format!("{:.4}", placed.probability()),
            placed.row.to_string(),
            if placed.own { "own" } else { "shared" }.to_string(),
            maybe(placed.count, |count| count.to_string()),
            if is_true(placed) { "◄ true" } else { "" }.to_string(),
        ]);
    }
    table.notes = vec![
        format!("signal {}", sparkline(&step.signal)),
        format!(
            "entropy {} · margin {} · ln of the sum {}",
            number(step.odds.entropy),
            maybe(step.odds.margin, number),
            number(step.odds.ln_sum_exp)
        ),
    ];
    table
}

/// The components of a signal as bars, as many as a line holds.
fn sparkline(signal: &[f32]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let lowest = signal.iter().copied().fold(f32::INFINITY, f32::min);
    let highest = signal.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let level = |value: &f32| {
        let at = (value - lowest) / (highest - lowest) * 7.0;
        BARS[(at.round() as usize).min(7)]
    };
    let bars: String = signal.iter().take(48).map(level).collect();
    let [lowest, highest] = [lowest, highest].map(|value| number(f64::from(value)));
    format!("{bars} {lowest} to {highest}")
}

/// A step as JSON.
pub fn json(step: &TracedStep, names: &Names<'_>) -> Value {
    let placed = |placed: &Placed| placed_json(placed, names);
    let attribution = |attribution: &Attribution| attribution_json(attribution, names);
    json!({
        "position": step.position + 1,
        "last": { "id": step.token, "token": names.of(step.token), "degree": step.degree },
        "signal": step.signal,
        "signal_norm": step.norm,
        "shares": step.shares,
        "candidates": step.candidates.iter().map(placed).collect::<Value>(),
        "ln_sum_exp": step.odds.ln_sum_exp,
        "entropy": step.odds.entropy,
        "margin": step.odds.margin,
        "next": step.truth.as_ref().map(placed),
        "contributions": step.attributions.iter().map(attribution).collect::<Value>(),
    })
}

fn placed_json(placed: &Placed, names: &Names<'_>) -> Value {
    json!({
        "id": placed.target,
        "token": names.of(placed.target),
        "energy": placed.energy,
        "score": placed.score,
        "probability": placed.probability(),
        "nats": placed.nats,
        "rank": placed.rank,
        "row": placed.row,
        "shared": !placed.own,
        "count": placed.count,
    })
}

fn attribution_json(attribution: &Attribution, names: &Names<'_>) -> Value {
    let split = |split: &Split| json!({ "positions": split.positions, "bias": split.bias, "code": split.code, "gap": split.gap });
    json!({
        "id": attribution.target,
        "token": names.of(attribution.target),
        "energy": attribution.energy,
        "gradient": split(&attribution.gradient),
        "integrated": split(&attribution.integrated),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use brillm::explain::Odds;

    /// A step after which a token came at some nats, if one came, while another was the best.
    pub(in super::super) fn step(
        position: usize,
        truth: Option<(u32, f64)>,
        best: u32,
    ) -> TracedStep {
        let placed = |target: u32, nats: f64| Placed {
            target,
            row: 0,
            own: true,
            count: None,
            energy: 1.0,
            score: 1.0,
            nats,
            rank: Some(1),
        };
        TracedStep {
            position,
            token: position as u32,
            degree: 0,
            signal: vec![0.0, 1.0],
            norm: 1.0,
            shares: vec![1.0; position + 1],
            candidates: vec![placed(best, 0.5)],
            odds: Odds {
                ln_sum_exp: 0.0,
                entropy: 0.0,
                margin: None,
            },
            truth: truth.map(|(target, nats)| placed(target, nats)),
            attributions: Vec::new(),
        }
    }

    #[test]
    fn a_loss_is_a_mean_over_the_tokens_that_had_one_before_them() {
        let steps = [
            step(0, Some((1, 2.0)), 1),
            step(1, Some((2, 5.0)), 1),
            step(2, None, 1),
        ];
        assert_eq!(loss(&steps), Some(3.5));
        assert_eq!(loss(&steps[2..]), None);
        assert_eq!(loss(&[]), None);
    }

    #[test]
    fn a_signal_is_drawn_from_its_lowest_to_its_highest_value() {
        assert_eq!(sparkline(&[-1.0, 6.0, 0.0, 2.5]), "▁█▂▅ -1.000 to 6.000");
    }
}
