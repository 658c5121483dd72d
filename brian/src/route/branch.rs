//! The branches of a beam on the host, without tensors: the children of every branch, and which of them are kept.
//!
//! `score(child) = decay · score(parent) + ln p(action) − cost · [the action is a block]`; a branch that has left chooses no
//! action, so its child has neither of the last two terms. The highest scores are kept, the first candidate among equals;
//! candidates are ordered by parent, then by likelihood.

use super::action::Action;
use super::choose::by_logit;
use super::parallel::{Finished, ParentExit, Search};

/// A branch that may have children.
#[derive(Clone, Debug)]
pub(crate) struct Parent<'a> {
    /// Minus infinity for an empty branch.
    pub score: f64,
    pub left: bool,
    /// Adjusted action logits; OUT is the last.
    pub logits: &'a [f32],
    /// The block that may not be executed once more.
    pub capped: Option<usize>,
    /// Whether OUT is the only action, as at a last step.
    pub must_leave: bool,
}

/// A branch after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Child {
    pub parent: usize,
    pub action: Action,
    pub score: f64,
    /// What the parent's score is multiplied by.
    pub decay: f64,
    /// How often the logarithm of the action's probability is added: once, or never.
    pub choices: f64,
    /// What is subtracted from the score.
    pub cost: f64,
}

impl Child {
    /// A placeholder for a missing branch, without weight in the mixture and without children.
    const EMPTY: Self = Self {
        parent: 0,
        action: Action::Out,
        score: f64::NEG_INFINITY,
        decay: 1.0,
        choices: 0.0,
        cost: 0.0,
    };

    pub fn is_empty(&self) -> bool {
        self.score == f64::NEG_INFINITY
    }
}

impl Search {
    /// The most branches there can be after a step that began with `before` of them.
    pub fn n_branches(&self, before: usize, top_k: usize) -> usize {
        (before * top_k).min(self.width)
    }

    /// The branches of all units after a step, `[n_branches * n_units]`: of tokens, or of sequences. `parent` gives the branch
    /// of each of the `n_rows` rows before.
    pub fn follow_all<'p>(
        &self,
        [n_rows, n_units]: [usize; 2],
        top_k: usize,
        parent: impl Fn(usize) -> Parent<'p>,
    ) -> Vec<Child> {
        let of_unit = |unit: usize| -> Vec<Child> {
            let branches = (unit..n_rows).step_by(n_units).map(&parent);
            self.follow(&branches.collect::<Vec<_>>(), top_k)
        };
        let of_units: Vec<Vec<Child>> = (0..n_units).map(of_unit).collect();
        (0..self.n_branches(n_rows / n_units, top_k))
            .flat_map(|branch| of_units.iter().map(move |children| children[branch]))
            .collect()
    }

    /// The branches after a step, best first: as many as [`Self::n_branches`] says, the last ones empty if there are fewer.
    pub fn follow(&self, parents: &[Parent<'_>], top_k: usize) -> Vec<Child> {
        let real = || parents.iter().enumerate().filter(|(_, p)| p.exists());
        let rests = self.finished == Finished::Rests && real().all(|(_, parent)| parent.left);
        let candidates = real().flat_map(|(index, parent)| self.of(index, parent, top_k, rests));
        let mut kept = prune(candidates.collect(), self.width);
        kept.resize(self.n_branches(parents.len(), top_k), Child::EMPTY);
        kept
    }

    /// The children of one branch, likeliest first.
    fn of(&self, index: usize, parent: &Parent<'_>, top_k: usize, rests: bool) -> Vec<Child> {
        let out = parent.logits.len() - 1;
        let child = |action: usize, choices: f64, log_probability: f64| {
            let decay = if rests { 1.0 } else { self.score_decay };
            let cost = if action == out { 0.0 } else { self.branch_cost };
            Child {
                parent: index,
                action: Action::from_index(action, out),
                score: decay * parent.score + choices * log_probability - cost,
                decay,
                choices,
                cost,
            }
        };
        if parent.left {
            let n_children = match self.finished {
                Finished::Rests => 1,
                Finished::Repeats(_) => top_k,
            };
            return vec![child(out, 0.0, 0.0); n_children];
        }
        let mut actions = by_logit(parent.logits);
        actions.retain(|&action| Some(action) != parent.capped);
        actions.truncate(top_k);
        match self.finished {
            _ if parent.must_leave => actions = vec![out],
            Finished::Repeats(ParentExit::Top1 | ParentExit::AnyTopk) if actions[0] == out => {
                actions = vec![out; top_k];
            }
            _ => {}
        }
        let log_total = log_sum_exp(parent.logits);
        let scored =
            |action: usize| child(action, 1.0, f64::from(parent.logits[action]) - log_total);
        actions.into_iter().map(scored).collect()
    }
}

impl Parent<'_> {
    fn exists(&self) -> bool {
        self.score != f64::NEG_INFINITY
    }
}

/// The highest scores in falling order, the first among equals.
fn prune(mut candidates: Vec<Child>, width: usize) -> Vec<Child> {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    candidates.truncate(width);
    candidates
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let logits = || logits.iter().map(|&logit| f64::from(logit));
    let largest = logits().fold(f64::NEG_INFINITY, f64::max);
    largest
        + logits()
            .map(|logit| (logit - largest).exp())
            .sum::<f64>()
            .ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: usize = 3;
    const LOGITS: [f32; 4] = [0.0, 2.0, 1.0, -1.0];

    fn search(width: usize, finished: Finished) -> Search {
        Search {
            width,
            children: None,
            branch_cost: 0.25,
            score_decay: 0.5,
            finished,
        }
    }

    fn parent(score: f64, left: bool, logits: &[f32]) -> Parent<'_> {
        Parent {
            score,
            left,
            logits,
            capped: None,
            must_leave: false,
        }
    }

    fn actions(children: &[Child]) -> Vec<(usize, usize)> {
        children
            .iter()
            .map(|c| (c.parent, c.action.index(OUT)))
            .collect()
    }

    fn log_probability(action: usize) -> f64 {
        let total: f64 = LOGITS.iter().map(|&logit| f64::from(logit).exp()).sum();
        f64::from(LOGITS[action]) - total.ln()
    }

    #[test]
    fn a_score_is_the_parents_decayed_plus_the_choice_minus_the_cost_of_a_block() {
        let children = search(4, Finished::Rests).follow(&[parent(-2.0, false, &LOGITS)], 4);
        assert_eq!(actions(&children), [(0, 1), (0, 2), (0, 0), (0, OUT)]);
        for child in &children {
            let cost = if child.action == Action::Out {
                0.0
            } else {
                0.25
            };
            let expected = 0.5 * -2.0 + log_probability(child.action.index(OUT)) - cost;
            assert!((child.score - expected).abs() < 1e-12, "{child:?}");
        }
    }

    #[test]
    fn the_best_of_all_candidates_stay_by_falling_score_and_never_more_than_the_width() {
        let parents = [
            parent(-8.0, false, &LOGITS),
            parent(0.0, false, &LOGITS),
            parent(-1.0, false, &LOGITS),
        ];
        for width in 1..=6 {
            let children = search(width, Finished::Rests).follow(&parents, 2);
            assert_eq!(children.len(), width);
            assert!(children.is_sorted_by(|a, b| a.score >= b.score));
            let expected = [(1, 1), (2, 1), (1, 2), (2, 2), (0, 1), (0, 2)];
            assert_eq!(actions(&children), expected[..width]);
        }
    }

    #[test]
    fn among_equals_the_first_stays() {
        let equal = [1.0; 4];
        let parents = [parent(-1.0, false, &equal), parent(-1.0, false, &equal)];
        let mut search = search(3, Finished::Rests);
        search.branch_cost = 0.0;
        let children = search.follow(&parents, 2);
        assert_eq!(actions(&children), [(0, 0), (0, 1), (1, 0)]);
    }

    #[test]
    fn a_branch_that_has_left_stays_once_where_the_reference_repeats_it() {
        let parents = [parent(-0.1, true, &LOGITS), parent(-9.0, false, &LOGITS)];
        let children = search(3, Finished::Rests).follow(&parents, 2);
        assert_eq!(actions(&children), [(0, OUT), (1, 1), (1, 2)]);
        assert!((children[0].score - -0.05).abs() < 1e-12);
        assert_eq!((children[0].choices, children[0].cost), (0.0, 0.0));
        let repeats = Finished::Repeats(ParentExit::Branch);
        let children = search(3, repeats).follow(&parents, 2);
        assert_eq!(actions(&children), [(0, OUT), (0, OUT), (1, 1)]);
    }

    #[test]
    fn scores_rest_as_soon_as_all_branches_have_left() {
        let parents = [parent(-1.0, true, &LOGITS), parent(-3.0, true, &LOGITS)];
        let children = search(2, Finished::Rests).follow(&parents, 2);
        let scores: Vec<f64> = children.iter().map(|child| child.score).collect();
        assert_eq!(scores, [-1.0, -3.0]);
        let repeats = Finished::Repeats(ParentExit::Branch);
        let children = search(2, repeats).follow(&parents, 2);
        assert_eq!(actions(&children), [(0, OUT), (0, OUT)]);
        assert_eq!(children[0].score, -0.5);
    }

    #[test]
    fn a_place_without_a_branch_is_empty_and_stays_without_children() {
        let parents = [parent(-1.0, true, &LOGITS)];
        let search = search(2, Finished::Rests);
        let children = search.follow(&parents, 2);
        assert_eq!(children[1], Child::EMPTY);
        let parents = [
            parent(children[0].score, true, &LOGITS),
            parent(children[1].score, true, &LOGITS),
        ];
        let children = search.follow(&parents, 2);
        assert_eq!(children.iter().filter(|child| !child.is_empty()).count(), 1);
    }

    #[test]
    fn where_out_is_best_a_policy_of_the_reference_lets_all_children_leave() {
        let logits = [0.0, 1.0, 0.0, 3.0];
        let parents = [parent(0.0, false, &logits)];
        for (policy, expected) in [
            (ParentExit::Branch, [(0, OUT), (0, 1)]),
            (ParentExit::Top1, [(0, OUT), (0, OUT)]),
            (ParentExit::AnyTopk, [(0, OUT), (0, OUT)]),
        ] {
            let children = search(2, Finished::Repeats(policy)).follow(&parents, 2);
            assert_eq!(actions(&children), expected, "{policy:?}");
            let pays = children.iter().all(|child| child.choices == 1.0);
            assert!(pays, "{policy:?}: OUT has its own probability");
        }
        // OUT in the second place is one child among others for all of them.
        let parents = [parent(0.0, false, &[0.0, 3.0, 0.0, 1.0])];
        for policy in [ParentExit::Branch, ParentExit::Top1, ParentExit::AnyTopk] {
            let children = search(2, Finished::Repeats(policy)).follow(&parents, 2);
            assert_eq!(actions(&children), [(0, 1), (0, OUT)], "{policy:?}");
        }
    }

    #[test]
    fn a_capped_block_is_no_child_and_whoever_must_leave_has_one() {
        let capped = Parent {
            capped: Some(1),
            ..parent(0.0, false, &LOGITS)
        };
        let search = search(2, Finished::Rests);
        assert_eq!(actions(&search.follow(&[capped], 2)), [(0, 2), (0, 0)]);
        let last = Parent {
            must_leave: true,
            ..parent(0.0, false, &LOGITS)
        };
        let children = search.follow(&[last], 2);
        assert_eq!(
            (children[0].action, children[0].choices),
            (Action::Out, 1.0)
        );
        assert!(children[1].is_empty());
    }

    #[test]
    fn large_logits_have_the_scores_of_small_ones() {
        let search = search(4, Finished::Rests);
        let shifted = LOGITS.map(|logit| logit + 2000.0);
        let [small, large] =
            [LOGITS, shifted].map(|logits| search.follow(&[parent(-1.0, false, &logits)], 4));
        assert_eq!(actions(&small), actions(&large));
        for (small, large) in small.iter().zip(&large) {
            assert!(
                (small.score - large.score).abs() < 1e-9,
                "{small:?} {large:?}"
            );
        }
        let total: f64 = small
            .iter()
            .map(|child| (child.score + 0.5 + child.cost).exp())
            .sum();
        assert!(
            (total - 1.0).abs() < 1e-12,
            "choices are a distribution: {total}"
        );
    }

    #[test]
    fn while_one_branch_walks_the_scores_of_all_others_decay() {
        let parents = [
            parent(-1.0, true, &LOGITS),
            parent(-1.0, false, &LOGITS),
            parent(f64::NEG_INFINITY, true, &LOGITS),
        ];
        let children = search(3, Finished::Rests).follow(&parents, 1);
        assert_eq!(
            children[0].score, -0.5,
            "it left, and pays for nothing but time"
        );
        let expected = -0.5 + log_probability(1) - 0.25;
        assert!((children[1].score - expected).abs() < 1e-12);
        assert!(children[2].is_empty(), "an empty place has no children");
        assert_eq!(children.len(), 3);
        let narrow = search(2, Finished::Rests);
        assert_eq!(
            (
                narrow.n_branches(1, 3),
                narrow.n_branches(1, 1),
                narrow.n_branches(2, 1)
            ),
            (2, 1, 2)
        );
    }
}
