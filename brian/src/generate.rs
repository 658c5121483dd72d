//! Autoregressive sampling on the host: continues a prompt, given a function from tokens to the next logits, by one keyed draw
//! per token after temperature, top-k, top-p and min-p; logits that are not finite are an error.

use crate::random;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// How the next token is drawn.
///
/// The order is that of Hugging Face's `generate`: temperature, `top_k`, `top_p`, `min_p`, each applied to the tokens that the
/// one before kept; then one of the remaining tokens is drawn. Among equals the lowest id comes first, so that exactly `top_k`
/// tokens stay where several have the score of the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token, the lowest id among equals.
    pub temperature: f64,
    /// Number of likeliest tokens to keep; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of likeliest tokens with at least this share of the probability; 1 keeps all.
    pub top_p: f64,
    /// Keeps tokens with at least this share of the likeliest token's probability; 0 keeps all.
    pub min_p: f64,
    /// Key of the draws.
    pub seed: u64,
}

impl Sampling {
    /// Samples from the model's own distribution.
    pub fn plain(seed: u64) -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed,
        }
    }
}

/// Logits that are not finite, so that no token can be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotFinite {
    /// How many tokens had been drawn before.
    pub drawn: usize,
    /// The first id with such a logit.
    pub id: usize,
    /// That logit.
    pub value: f32,
    /// How many ids have such a logit.
    pub count: usize,
    /// How many ids there are.
    pub of: usize,
}

impl NotFinite {
    /// Checks that all logits are finite.
    ///
    /// # Errors
    /// If one is not.
    pub fn check(scores: &[f32], drawn: usize) -> Result<(), Self> {
        match scores.iter().position(|score| !score.is_finite()) {
            None => Ok(()),
            Some(id) => Err(Self {
                drawn,
                id,
                value: scores[id],
                count: scores.iter().filter(|score| !score.is_finite()).count(),
                of: scores.len(),
            }),
        }
    }
}

/// Continues a prompt by at most `n_tokens` tokens; each is passed to `each`, which decides whether to go on.
///
/// `logits` gets the tokens so far, at most the last `context`, and returns the logits of the next one:
/// [`crate::Decoding::follow`], or the last row of a whole pass. The ids of `never` are not drawn.
///
/// # Shapes
/// `logits` returns `[vocabulary]`
///
/// # Errors
/// If a logit is not finite.
///
/// # Panics
/// If the prompt is empty, or no id is left to be drawn.
pub fn generate<B: Backend>(
    mut logits: impl FnMut(&[u32]) -> Tensor<B, 1>,
    prompt: &[u32],
    n_tokens: usize,
    context: usize,
    sampling: Sampling,
    never: &[u32],
    mut each: impl FnMut(u32) -> Next,
) -> Result<(), NotFinite> {
    assert!(!prompt.is_empty(), "a prompt needs a token to start from");
    let mut tokens = prompt.to_vec();
    for step in 0..n_tokens {
        let seen = &tokens[tokens.len().saturating_sub(context)..];
        let scores: Vec<f32> = logits(seen).into_data().iter::<f32>().collect();
        NotFinite::check(&scores, step)?;
        let token = draw(&scores, sampling, never, step).expect("an id that may be drawn");
        tokens.push(token);
        match each(token) {
            Next::GoOn => {}
            Next::BehindToo(context) => tokens.push(context),
            Next::Stop => return Ok(()),
        }
    }
    Ok(())
}

/// What to do after a token was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Draw another token.
    GoOn,
    /// Append this token as context without drawing it, then draw another one.
    BehindToo(u32),
    /// Stop.
    Stop,
}

/// Draws token number `step` of a continuation by its scores, of which `-inf` and the ids of `never` are not drawn; `None` if
/// no id is left.
pub fn draw(scores: &[f32], sampling: Sampling, never: &[u32], step: usize) -> Option<u32> {
    let at = random::uniform(random::key(sampling.seed, "sample", step as u64), 0);
    choose(scores, sampling, never, at)
}

/// The token at the uniform draw `draw`, tokens ordered by falling score and rising id.
fn choose(scores: &[f32], sampling: Sampling, never: &[u32], draw: f64) -> Option<u32> {
    let competes = |id: &usize| scores[*id] > f32::NEG_INFINITY && !never.contains(&(*id as u32));
    let competing = (0..scores.len()).filter(competes);
    let falling = |&a: &usize, &b: &usize| scores[b].total_cmp(&scores[a]).then(a.cmp(&b));
    if sampling.temperature == 0.0 {
        return competing.min_by(falling).map(|id| id as u32);
    }
    let mut order: Vec<usize> = competing.collect();
    order.sort_by(falling);
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k);
    }
    let best = f64::from(scores[*order.first()?]);
    let weight = |token: usize| ((f64::from(scores[token]) - best) / sampling.temperature).exp();
    let total: f64 = order.iter().map(|&token| weight(token)).sum();
    let mut kept = 0;
    let mut mass = 0.0;
    while kept < order.len() && (kept == 0 || mass < sampling.top_p * total) {
        // The likeliest has weight 1.
        if weight(order[kept]) < sampling.min_p {
            break;
        }
        mass += weight(order[kept]);
        kept += 1;
    }
    let mut rest = draw * mass;
    for &token in &order[..kept] {
        rest -= weight(token);
        if rest < 0.0 {
            return Some(token as u32);
        }
    }
    Some(order[kept - 1] as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f32; 4] = [0.0, 3.0, 3.0, 1.0];

    fn sampling(temperature: f64, top_p: f64) -> Sampling {
        Sampling {
            temperature,
            top_p,
            ..Sampling::plain(1)
        }
    }

    /// The ids that some draw reaches, rising.
    fn reached(scores: &[f32], sampling: Sampling, never: &[u32]) -> Vec<u32> {
        let draws = (0..1000).map(|place| f64::from(place) / 1000.0);
        let chosen = draws.map(|draw| choose(scores, sampling, never, draw).unwrap());
        let mut ids: Vec<u32> = chosen.collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    #[test]
    fn temperature_zero_takes_the_lowest_id_among_the_likeliest() {
        assert_eq!(choose(&SCORES, sampling(0.0, 1.0), &[], 0.999), Some(1));
        assert_eq!(choose(&SCORES, sampling(0.0, 1.0), &[1], 0.999), Some(2));
    }

    #[test]
    fn draws_follow_the_softmax_of_the_scaled_scores() {
        let n = 20_000;
        let mut counts = [0.0f64; 4];
        for step in 0..n {
            let draw = random::uniform(random::key(7, "test", step), 0);
            let id = choose(&SCORES, sampling(2.0, 1.0), &[], draw).unwrap();
            counts[id as usize] += 1.0 / n as f64;
        }
        let weights = SCORES.map(|score| (f64::from(score) / 2.0).exp());
        let total: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            assert!((count - weight / total).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn top_p_leaves_only_the_likeliest() {
        for step in 0..1000 {
            let draw = random::uniform(random::key(7, "test", step), 0);
            let id = choose(&SCORES, sampling(1.0, 0.8), &[], draw).unwrap();
            assert!([1, 2].contains(&id));
        }
    }

    #[test]
    fn what_competes_is_what_others_would_let_compete() {
        // Probabilities 0.5, 0.25, 0.125, 0.125 of the ids 3, 1, 0, 2.
        let scores = [0.125f32, 0.25, 0.125, 0.5].map(f32::ln);
        let plain = Sampling::plain(1);
        let of = |change: &dyn Fn(&mut Sampling)| {
            let mut sampling = plain;
            change(&mut sampling);
            reached(&scores, sampling, &[])
        };
        assert_eq!(of(&|_| ()), [0, 1, 2, 3]);
        assert_eq!(of(&|s| s.top_k = 1), [3]);
        // Two have the third score: the lower id stays.
        assert_eq!(of(&|s| s.top_k = 3), [0, 1, 3]);
        assert_eq!(of(&|s| s.top_k = 9), [0, 1, 2, 3]);
        // The token that crosses the mass stays; 0.5 alone reaches 0.49.
        assert_eq!(of(&|s| s.top_p = 0.49), [3]);
        assert_eq!(of(&|s| s.top_p = 0.51), [1, 3]);
        assert_eq!(of(&|s| s.top_p = 0.8), [0, 1, 3]);
        // Shares of the likeliest: 1, 0.5, 0.25, 0.25.
        assert_eq!(of(&|s| s.min_p = 0.4), [1, 3]);
        assert_eq!(of(&|s| s.min_p = 0.2), [0, 1, 2, 3]);
        assert_eq!(of(&|s| s.min_p = 1.0), [3]);
        // Of the two that top-k leaves, 3 has two thirds of the probability: top-p takes the second from 0.67 on.
        let both = |top_p| of(&|s| (s.top_k, s.top_p) = (2, top_p));
        assert_eq!((both(0.66), both(0.67)), (vec![3], vec![1, 3]));
        // The temperature comes first: at 2 the shares of the likeliest are √0.5 and √0.25.
        let warm = |min_p| of(&|s| (s.temperature, s.min_p) = (2.0, min_p));
        assert_eq!((warm(0.6), warm(0.8)), (vec![1, 3], vec![3]));
        assert_eq!(reached(&scores, plain, &[3, 0]), [1, 2]);
    }

    #[test]
    fn logits_that_are_not_finite_are_named() {
        let error = NotFinite::check(&[0.0, f32::NAN, 1.0, f32::INFINITY], 7).unwrap_err();
        assert_eq!((error.drawn, error.id, error.count, error.of), (7, 1, 2, 4));
        assert!(error.value.is_nan());
        assert_eq!(NotFinite::check(&SCORES, 0), Ok(()));
    }

    /// The probability of every id, step by step as the text above says: temperature, top-k, top-p, min-p, and what is left is
    /// made to sum to one.
    fn shares(scores: &[f32], sampling: Sampling, never: &[u32]) -> Vec<f64> {
        let mut ids: Vec<usize> = (0..scores.len())
            .filter(|id| !never.contains(&(*id as u32)))
            .collect();
        ids.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut left: Vec<(usize, f64)> = ids
            .into_iter()
            .map(|id| (id, (f64::from(scores[id]) / sampling.temperature).exp()))
            .collect();
        fn whole(left: &mut [(usize, f64)]) {
            let total: f64 = left.iter().map(|(_, share)| share).sum();
            left.iter_mut().for_each(|(_, share)| *share /= total);
        }
        match sampling.top_k {
            0 => {}
            top_k => left.truncate(top_k),
        }
        whole(&mut left);
        let mut mass = 0.0;
        let before = left.iter().map(|&(_, share)| {
            mass += share;
            mass - share
        });
        let n_kept = before
            .filter(|&before| before < sampling.top_p)
            .count()
            .max(1);
        left.truncate(n_kept);
        whole(&mut left);
        let best = left[0].1;
        left.retain(|&(_, share)| share >= sampling.min_p * best);
        whole(&mut left);
        let mut shares = vec![0.0; scores.len()];
        left.into_iter().for_each(|(id, share)| shares[id] = share);
        shares
    }

    #[test]
    fn every_id_is_reached_by_its_share_of_the_draws() {
        for seed in 0..40 {
            let drawn = |place| random::uniform(random::key(seed, "case", 0), place);
            // Few different scores, so that there are ties.
            let scores: Vec<f32> = (0..9)
                .map(|id| (drawn(id) * 4.0).floor() as f32 / 2.0)
                .collect();
            let sampling = Sampling {
                temperature: 0.3 + drawn(20),
                top_k: [0, 3, 7][seed as usize % 3],
                top_p: [1.0, 0.83, 0.42][seed as usize / 3 % 3],
                min_p: [0.0, 0.21][seed as usize / 9 % 2],
                seed: 0,
            };
            let never: &[u32] = if seed % 4 == 0 { &[2, 5] } else { &[] };
            let expected = shares(&scores, sampling, never);
            let n = 2000;
            let mut found = vec![0.0; scores.len()];
            for draw in 0..n {
                let id = choose(
                    &scores,
                    sampling,
                    never,
                    (f64::from(draw) + 0.5) / f64::from(n),
                );
                found[id.unwrap() as usize] += 1.0 / f64::from(n);
            }
            for (id, (found, expected)) in found.iter().zip(&expected).enumerate() {
                // Each end of an id's stretch of draws may be one draw off.
                assert!(
                    (found - expected).abs() < 1.5 / f64::from(n),
                    "{sampling:?} {id}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_draw_at_either_end_is_the_likeliest_or_the_last_that_competes() {
        let plain = sampling(1.0, 1.0);
        let at = |scores: &[f32], sampling, draw| choose(scores, sampling, &[], draw).unwrap();
        assert_eq!(at(&SCORES, plain, 0.0), 1);
        assert_eq!(at(&SCORES, plain, 1.0 - 1e-16), 0);
        assert_eq!(at(&SCORES, Sampling { top_k: 3, ..plain }, 1.0 - 1e-16), 3);
        // Even scores that differ by far more than an exponential can hold.
        assert_eq!(at(&[-1e30, 1e30], plain, 0.5), 1);
        assert_eq!(Sampling::plain(4), Sampling { seed: 4, ..plain });
    }

    #[test]
    fn what_no_signal_reaches_is_not_drawn_and_nothing_can_be_left() {
        let mut scores = SCORES;
        scores[1] = f32::NEG_INFINITY;
        for temperature in [0.0, 0.5, 2.0] {
            let sampling = sampling(temperature, 1.0);
            assert!(!reached(&scores, sampling, &[2]).contains(&1));
            assert_eq!(choose(&scores, sampling, &[3, 0, 2], 0.5), None);
        }
    }

    #[cfg(feature = "ndarray")]
    mod of_a_model {
        use super::*;
        use crate::ops::tests::Learning;
        use burn::tensor::TensorData;

        const PROMPT: [u32; 3] = [5, 6, 7];

        /// What was seen at every step and what was drawn, from a model of five ids that are equally likely.
        fn drawn(
            n_tokens: usize,
            context: usize,
            seed: u64,
            next: impl Fn(u32) -> Next,
        ) -> (Vec<Vec<u32>>, Vec<u32>) {
            let (mut seen, mut tokens) = (Vec::new(), Vec::new());
            let logits = |so_far: &[u32]| {
                seen.push(so_far.to_vec());
                Tensor::<Learning, 1>::from_data(
                    TensorData::new(vec![0.0f32; 5], [5]),
                    &Default::default(),
                )
            };
            let each = |token| {
                tokens.push(token);
                next(token)
            };
            generate(
                logits,
                &PROMPT,
                n_tokens,
                context,
                Sampling::plain(seed),
                &[4],
                each,
            )
            .expect("finite");
            (seen, tokens)
        }

        #[test]
        fn each_token_has_a_draw_of_its_own_and_sees_the_last_of_those_before() {
            let (seen, tokens) = drawn(30, 4, 11, |_| Next::GoOn);
            let keyed = |step: usize| {
                let draw = random::uniform(random::key(11, "sample", step as u64), 0);
                // Four ids are left, a quarter of the draws each.
                (4.0 * draw) as u32
            };
            assert_eq!(tokens, (0..30).map(keyed).collect::<Vec<_>>());
            let all = [&PROMPT[..], &tokens].concat();
            for (step, seen) in seen.iter().enumerate() {
                let end = PROMPT.len() + step;
                assert_eq!(seen, &all[end.saturating_sub(4)..end]);
            }
            assert_eq!(drawn(30, 4, 11, |_| Next::GoOn).1, tokens);
            assert_ne!(drawn(30, 4, 12, |_| Next::GoOn).1, tokens);
            assert_eq!(drawn(0, 4, 11, |_| Next::GoOn), (vec![], vec![]));
        }

        #[test]
        fn a_token_may_be_followed_by_context_or_by_nothing() {
            let (seen, tokens) = drawn(3, 9, 11, |_| Next::BehindToo(8));
            assert_eq!(seen[2], [5, 6, 7, tokens[0], 8, tokens[1], 8]);
            assert_eq!(tokens.len(), 3);
            let stop = tokens[1];
            let until = |token| {
                if token == stop {
                    Next::Stop
                } else {
                    Next::GoOn
                }
            };
            let end = tokens
                .iter()
                .position(|&token| token == stop)
                .expect("it was drawn");
            assert_eq!(drawn(3, 9, 11, until).1, tokens[..=end]);
        }

        #[test]
        fn a_logit_that_is_not_finite_ends_it_where_it_comes() {
            let mut tokens = Vec::new();
            let logits = |so_far: &[u32]| {
                let last = if so_far.len() > 4 { f32::NAN } else { 0.0 };
                Tensor::<Learning, 1>::from_data(
                    TensorData::new(vec![0.0, last], [2]),
                    &Default::default(),
                )
            };
            let each = |token| {
                tokens.push(token);
                Next::GoOn
            };
            let error = generate(logits, &PROMPT, 9, 9, Sampling::plain(1), &[], each).unwrap_err();
            assert_eq!((error.drawn, error.id, error.count, error.of), (2, 1, 1, 2));
            assert_eq!(tokens.len(), 2);
        }
    }
}
