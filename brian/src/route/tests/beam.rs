//! Tests of the token beam against a slow one with a list of branches per token (logits, gradients, record), and of the
//! sequence beam: with one branch it is the walk whose router sees the mean, and `top_k` sets its number of children.

use super::walk::{Found, Places, Said, Scoring, Word, compare, leave, one, tells, told};
use super::*;
use crate::ops::cat::cat;
use crate::route::parallel::ParentExit;
use crate::route::trace::Origin;
use burn::tensor::activation::{log_softmax, softmax};

/// A path of a token.
#[derive(Clone)]
struct Branch<B: Backend> {
    state: Tensor<B, 2>,
    position: Tensor<B, 2>,
    /// `[1, 1]`.
    score: Tensor<B, 2>,
    left: bool,
    last: Option<usize>,
    run: usize,
    words: Vec<Word>,
}

/// One that goes on, before it moved.
struct Candidate<B: Backend> {
    parent: Branch<B>,
    score: Tensor<B, 2>,
    action: usize,
    origin: Origin,
    capped: bool,
    best: usize,
    likeliest: Vec<usize>,
    logits: Tensor<B, 2>,
}

/// The whole model with a slow beam.
fn beam<B: Backend>(model: &Brian<B>, config: &BrianConfig, rules: &Rules, seed: u64) -> Found<B> {
    let Parallel::Beam {
        width,
        children,
        branch_cost,
        score_decay,
    } = config.route.parallel
    else {
        unreachable!("a beam")
    };
    let (n_pool, d_model, batch) = (config.n_pool, config.d_model, n_sequences(seed));
    let causal = model.rotary.causal(SEQ);
    let embedded = model.embedding.forward(tokens(seed));
    let entered = model
        .pre
        .iter()
        .fold(embedded, |hidden, block| block.forward(hidden, &causal));
    let entered = entered.reshape([batch * SEQ, d_model]);
    let places = Places::new(model, config);
    let (tells_router, tells_blocks) = tells(config.position.into);
    let rows = rows(seed);
    let n_steps = n_steps(rules, config.route.max_steps);
    let scoring = Scoring {
        model,
        places: &places,
        rules,
        tells_router,
        n_steps,
    };
    let mut tokens: Vec<Vec<Branch<B>>> = (0..batch * SEQ)
        .map(|token| {
            vec![Branch {
                state: entered.clone().narrow(0, token, 1),
                position: places.start.clone(),
                score: one(0.0),
                left: false,
                last: None,
                run: 0,
                words: Vec::new(),
            }]
        })
        .collect();
    for step in 0..n_steps {
        let must_leave = step + 1 == n_steps && rules.constraint.force_final_exit;
        let mut kept: Vec<Vec<Candidate<B>>> = Vec::new();
        for (token, branches) in tokens.iter().enumerate() {
            let rests = branches.iter().all(|branch| branch.left);
            let decay = if rests { 1.0 } else { score_decay };
            let mut candidates = Vec::new();
            for branch in branches {
                let cap = rules.constraint.self_recurrence_cap;
                let capped = branch.last.filter(|_| cap > 0 && branch.run >= cap);
                let place = (rows[token / SEQ].sequence, token % SEQ);
                let logits =
                    scoring.logits(branch.state.clone(), &branch.position, place, step, capped);
                let values = host(&logits);
                let mut order: Vec<usize> = (0..=n_pool).collect();
                order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
                let best = order[0];
                let likeliest = order[..children].to_vec();
                order.retain(|&action| Some(action) != capped);
                order.truncate(children);
                if must_leave || branch.left {
                    order = vec![n_pool];
                }
                let origin = match branch.left {
                    true => Origin::Left,
                    false if must_leave => Origin::Last,
                    false => Origin::Router,
                };
                for action in order {
                    let mut score = branch.score.clone() * decay;
                    if !branch.left {
                        score = score + log_softmax(logits.clone(), 1).narrow(1, action, 1);
                    }
                    if action < n_pool {
                        score = score - branch_cost;
                    }
                    candidates.push(Candidate {
                        parent: branch.clone(),
                        score,
                        action,
                        origin,
                        capped: capped.is_some(),
                        best,
                        likeliest: likeliest.clone(),
                        logits: logits.clone(),
                    });
                }
            }
            candidates.sort_by(|a, b| host(&b.score)[0].total_cmp(&host(&a.score)[0]));
            candidates.truncate(width);
            kept.push(candidates);
        }
        // A block runs on the tokens up to one's own: of each earlier one the best branch, and the branch itself.
        let output = |token: usize, candidate: &Candidate<B>| -> Tensor<B, 2> {
            let first = token / SEQ * SEQ;
            let earlier = (first..token).map(|earlier| &kept[earlier][0]);
            let seen: Vec<&Candidate<B>> = earlier.chain([candidate]).collect();
            let states = seen.iter().map(|seen| seen.parent.state.clone()).collect();
            let positions = seen
                .iter()
                .map(|seen| told(tells_blocks, &seen.parent.position));
            let n = seen.len();
            let hidden = cat(states, 0).reshape([1, n, d_model]);
            let positions = cat(positions.collect(), 0).reshape([1, n, config.position.d_position]);
            let runs: Vec<bool> = seen
                .iter()
                .map(|seen| seen.action == candidate.action)
                .collect();
            let only = (config.route.attends == Attends::Selected).then_some(&runs[..]);
            let block = &model.pool[candidate.action];
            let rows = super::walk::attended(
                block,
                &hidden,
                &positions,
                &model.rotary.causal(n),
                only,
                None,
            );
            rows.narrow(0, n - 1, 1)
        };
        let moved: Vec<Vec<Branch<B>>> = kept
            .iter()
            .enumerate()
            .map(|(token, candidates)| {
                let follow = |candidate: &Candidate<B>| {
                    let Candidate { parent, action, .. } = candidate;
                    let action = *action;
                    let position = places.after(&[(action, one(1.0))]);
                    let shares = softmax(candidate.logits.clone(), 1);
                    let location = (shares.clone() * places.distances(&position)).sum();
                    let said = Said {
                        best: candidate.best,
                        likeliest: candidate.likeliest.clone(),
                        logits: host(&candidate.logits),
                        probabilities: host(&shares),
                        location: host(&location)[0],
                    };
                    let mut words = parent.words.clone();
                    words.push(Word {
                        action,
                        origin: candidate.origin,
                        fused: false,
                        capped: candidate.capped,
                        target: None,
                        said: Some(said),
                    });
                    Branch {
                        state: match action < n_pool {
                            true => output(token, candidate),
                            false => parent.state.clone(),
                        },
                        position,
                        score: candidate.score.clone(),
                        left: parent.left || action == n_pool,
                        run: match action < n_pool {
                            true if parent.last == Some(action) => parent.run + 1,
                            true => 1,
                            false => 0,
                        },
                        last: (action < n_pool).then_some(action),
                        words,
                    }
                };
                candidates.iter().map(follow).collect()
            })
            .collect();
        tokens = moved;
        if tokens.iter().flatten().all(|branch| branch.left) {
            break;
        }
    }
    let weighed = |of: &dyn Fn(&Branch<B>) -> Tensor<B, 2>| -> Vec<Tensor<B, 2>> {
        let of_token = |branches: &Vec<Branch<B>>| {
            let scores = branches.iter().map(|branch| branch.score.clone()).collect();
            let weights = softmax(cat(scores, 0), 0);
            let parts = branches
                .iter()
                .enumerate()
                .map(|(index, branch)| of(branch) * weights.clone().narrow(0, index, 1));
            parts.reduce(|a, b| a + b).expect("a branch")
        };
        tokens.iter().map(of_token).collect()
    };
    let states = cat(weighed(&|branch| branch.state.clone()), 0);
    let positions = weighed(&|branch| branch.position.clone()).into_iter();
    let positions = positions.map(|position| {
        let length = (position.clone() * position.clone())
            .sum_dim(1)
            .sqrt()
            .clamp_min(1e-12);
        told(tells_blocks, &(position / length))
    });
    let logits = leave(model, config, states, cat(positions.collect(), 0));
    let n_walked = tokens[0][0].words.len();
    let steps = (0..n_walked).map(|step| {
        let best = tokens
            .iter()
            .map(|branches| branches[0].words[step].clone());
        best.collect()
    });
    Found {
        logits,
        steps: steps.collect(),
    }
}

fn all_kinds(seeds: std::ops::Range<u64>) {
    let mut seen = std::collections::BTreeSet::new();
    for seed in seeds {
        let mut config = config(seed);
        // Several paths know no number of visits.
        config.visits = None;
        let children = 1 + drawn(seed, "children", config.n_pool + 1);
        config.route.sees = Sees::Token;
        // Without a position there is no direction to make a length of.
        if config.position.layout == Layout::None {
            config.position.layout = Layout::OpenArc;
        }
        config.route.parallel = Parallel::Beam {
            width: if children == 1 {
                1
            } else {
                1 + drawn(seed, "width", 4)
            },
            children,
            branch_cost: pick(seed, "branch_cost", &[0.0, 0.3]),
            score_decay: pick(seed, "score_decay", &[1.0, 0.6]),
        };
        let rules = Rules {
            policy: Policy::Router {
                teacher: None,
                select: Select::Argmax,
            },
            exit_objective: ExitObjective::Legacy { hard: true },
            ..rules(seed, config.n_pool)
        };
        let name = format!("{seed}: {:?} {:?} {rules:?}", config.route, config.position);
        seen.extend(compare(&name, &config, &rules, seed, beam));
    }
    assert_eq!(seen, ["Last", "Left", "Router"].map(String::from).into());
}

#[test]
fn a_beam_is_what_a_slow_one_is_that_keeps_lists_of_branches() {
    all_kinds(200..220);
}

#[test]
fn it_is_so_in_float64_without_passes_of_our_own_too() {
    let name = "route::tests::beam::it_is_so_in_float64_without_passes_of_our_own_too";
    if in_float64(name) {
        all_kinds(300..320);
    }
}

/// One branch of one child each, in a beam whose router sees the mean of a sequence.
#[test]
fn a_sequence_beam_of_one_branch_is_the_walk_whose_router_sees_the_mean() {
    for seed in 500..510 {
        let mut config = config(seed);
        // Several paths know no number of visits.
        config.visits = None;
        (config.route.sees, config.route.attends) = (Sees::SequenceMean, Attends::All);
        (config.route.top_k_first, config.route.top_k) = (1, 1);
        if config.position.layout == Layout::None {
            config.position.layout = Layout::Circle;
        }
        let rules = Rules {
            policy: Policy::Router {
                teacher: Some(Teacher::Sequential),
                select: Select::Argmax,
            },
            constraint: Constraint::NONE,
            exit_objective: ExitObjective::Legacy { hard: true },
            choice_gradient: ChoiceGradient::Legacy,
            noise_std: 0.0,
            override_probability: 0.0,
            ..rules(seed, config.n_pool)
        };
        let pass = |config: &BrianConfig| {
            let model: Brian<Learning> = loud(config, seed);
            model.forward(tokens(seed), &rules, &rows(seed))
        };
        let (expected, walk) = pass(&config);
        config.route.parallel = Parallel::SequenceBeam {
            width: 1,
            branch_cost: 0.2,
            score_decay: 0.9,
            parent_exit: pick(
                seed,
                "exit",
                &[ParentExit::Branch, ParentExit::Top1, ParentExit::AnyTopk],
            ),
        };
        let (found, beam) = pass(&config);
        assert!(
            relative(&host(&found), &host(&expected)) < tolerance(),
            "{seed}"
        );
        assert_eq!(beam.walks.steps.len(), walk.walks.steps.len(), "{seed}");
        for (found, expected) in beam.walks.steps.iter().zip(&walk.walks.steps) {
            assert_eq!(found.actions, expected.actions, "{seed}");
            assert_eq!(found.origins, expected.origins, "{seed}");
            assert_eq!(found.best, expected.best, "{seed}");
            assert_eq!(found.targets, expected.targets, "{seed}");
            let [found, expected] = [found, expected].map(|step| {
                step.probabilities
                    .iter()
                    .map(|&p| p.into())
                    .collect::<Vec<f64>>()
            });
            assert!(relative(&found, &expected) < tolerance(), "{seed}");
        }
        for (found, expected) in beam.steps.iter().zip(&walk.steps) {
            let [found, expected] = [found, expected].map(|step| host(&step.last_move.location()));
            assert!(relative(&found, &expected) < tolerance(), "{seed}");
        }
    }
}

/// A branch tries as many actions as a walk would mix, at the first step another number than later.
#[test]
fn a_sequence_beam_has_more_children_where_the_first_step_is_to_have_more() {
    let mut config = BrianConfig {
        n_pool: 3,
        n_kv_heads: None,
        d_head: None,
        attention_bias: None,
        query_key_norm: None,
        untied_head: None,
        logit_cap: None,
        residual_scale: None,
        width_transfer: None,
        visits: None,
        rope_scaling: None,
        ..config(0)
    };
    config.position.layout = Layout::OpenArc;
    config.route.max_steps = 3;
    config.route.sees = Sees::SequenceMean;
    config.route.attends = Attends::All;
    config.route.parallel = Parallel::SequenceBeam {
        width: 3,
        branch_cost: 0.0,
        score_decay: 1.0,
        parent_exit: ParentExit::Branch,
    };
    let rules = Rules {
        policy: Policy::Router {
            teacher: None,
            select: Select::Argmax,
        },
        ..Rules::sequential()
    };
    let mut logits = |top_k_first, top_k| {
        (config.route.top_k_first, config.route.top_k) = (top_k_first, top_k);
        let model: Brian<Learning> = loud(&config, 0);
        host(&model.forward(tokens(0), &rules, &rows(0)).0)
    };
    let [one, first, later] = [logits(1, 1), logits(3, 1), logits(1, 3)];
    for (name, found, expected) in [
        ("first", &first, &one),
        ("later", &later, &one),
        ("both", &first, &later),
    ] {
        assert!(relative(found, expected) > 1e-3, "{name}");
    }
}
