//! The weights of all route losses, and the terms they give a pass: those above 0, as a list that is not summed here.

use super::balance::balance;
use super::cost::cost;
use super::exit_boundary::exit_boundary;
use super::halting_prior::halting_prior;
use super::imitation::imitation;
use super::input_anchor::input_anchor;
use super::load::{coverage_floor, selected_balance};
use super::location::location;
use super::transition::transition_diversity;
use super::view::{Scope, View};
use crate::route::position::Positions;
use crate::route::rules::Rules;
use crate::route::trace::Trace;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::Deserialize;

/// How much each term adds to the language-model loss; 0 leaves it out.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct RouteLosses {
    /// Which decisions count.
    pub scope: Scope,
    /// Imitation of the teacher.
    pub imitation: f64,
    /// Even probabilities.
    pub balance: f64,
    /// Even use.
    pub selected_balance: f64,
    /// A least use of every block.
    pub coverage_floor: f64,
    /// That least use, as a share of all decisions.
    pub coverage_least: f64,
    /// Different moves.
    pub transition_diversity: f64,
    /// Blocks executed.
    pub cost: f64,
    /// Short ways.
    pub location: f64,
    /// When to leave.
    pub exit_boundary: f64,
    /// Where to start.
    pub input_anchor: f64,
    /// How long to walk.
    pub halting_prior: f64,
    /// Mean steps of that prior.
    pub halting_steps: f64,
}

/// One term of a pass.
#[derive(Clone, Debug)]
pub struct Term<B: Backend> {
    /// Its name in metrics, behind `loss/`.
    pub name: &'static str,
    /// How much it adds.
    pub weight: f64,
    /// Its value, `[1]`.
    pub value: Tensor<B, 1>,
}

impl RouteLosses {
    /// No term at all.
    pub const NONE: Self = Self {
        scope: Scope::Walking,
        imitation: 0.0,
        balance: 0.0,
        selected_balance: 0.0,
        coverage_floor: 0.0,
        coverage_least: 0.0,
        transition_diversity: 0.0,
        cost: 0.0,
        location: 0.0,
        exit_boundary: 0.0,
        input_anchor: 0.0,
        halting_prior: 0.0,
        halting_steps: 2.0,
    };

    /// The terms with a weight above 0, in the order of the fields.
    ///
    /// `valid`: which tokens count, `[batch * seq]`.
    pub fn terms<B: Backend>(
        &self,
        trace: &Trace<B>,
        positions: &Positions<B>,
        rules: &Rules,
        valid: &[bool],
    ) -> Vec<Term<B>> {
        let Some(view) = View::new(trace, rules, self.scope, valid) else {
            return Vec::new();
        };
        let mut terms = Vec::new();
        let mut add = |name, weight: f64, value: &dyn Fn() -> Option<Tensor<B, 1>>| {
            if weight > 0.0 {
                let term = |value| Term {
                    name,
                    weight,
                    value,
                };
                terms.extend(value().map(term));
            }
        };
        add("imitation", self.imitation, &|| imitation(&view));
        add("balance", self.balance, &|| Some(balance(&view)));
        add("selected_balance", self.selected_balance, &|| {
            Some(selected_balance(&view))
        });
        add("coverage_floor", self.coverage_floor, &|| {
            Some(coverage_floor(&view, self.coverage_least))
        });
        add("transition_diversity", self.transition_diversity, &|| {
            Some(transition_diversity(&view))
        });
        add("cost", self.cost, &|| Some(cost(&view)));
        add("location", self.location, &|| Some(location(&view)));
        add("exit_boundary", self.exit_boundary, &|| {
            Some(exit_boundary(&view, &rules.constraint))
        });
        add("input_anchor", self.input_anchor, &|| {
            Some(input_anchor(positions))
        });
        add("halting_prior", self.halting_prior, &|| {
            Some(halting_prior(&view, self.halting_steps))
        });
        terms
    }
}
