//! `run`: the loop of the model's own thread. Texts wait for a slot, are read in chunks, and go on token by token with all
//! others: those whose tokens are to run the same block run together, and who leaves makes room at once (after the idea of
//! arXiv 2608.09444).
//!
//! A text's chunks end at multiples of [`CHUNK`](crate::model::CHUNK) of its own tokens, and its draws are its own, so nothing that is said of it
//! depends on others; on the host, to the bit.

use super::metrics::{Metrics, Place};
use crate::model::probabilities::Probabilities;
use crate::model::{Said, Slots};
use brian::generate::Sampling;
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// How long a thread of the pool sleeps before it looks whether others of the pool need it.
const IDLE: Duration = Duration::from_millis(10);

/// A text to be scored, continued, or both.
#[derive(Debug)]
pub struct Job {
    /// Its tokens, at least one and no more than the context.
    pub prompt: Vec<u32>,
    /// The most tokens to draw.
    pub n_tokens: usize,
    /// How they are drawn.
    pub sampling: Sampling,
    /// Whether the end of a document ends the text.
    pub stops_at_end: bool,
    /// What is said of each token.
    pub scores: Scores,
    /// Who hears it; a text that nobody hears is given up.
    pub events: UnboundedSender<Event>,
    /// Its place in the queue, left when it gets a slot.
    pub place: Option<Place>,
}

/// What is said of each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scores {
    /// Whether anything is said of the prompt's tokens.
    pub prompt: bool,
    /// How many of the likeliest tokens are named in the place of each; none for no logarithm at all.
    pub n_likeliest: Option<usize>,
    /// Whether walks or energies are.
    pub routes: bool,
}

/// What happens to a text.
#[derive(Debug)]
pub enum Event {
    /// A token of the prompt, in order.
    Read(Token),
    /// A token was drawn.
    Drawn(Token),
    /// The text is over.
    End(Reason),
    /// A logit is not finite, that of this id.
    NotFinite(usize),
}

/// Why a text is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The document has ended, or nothing can follow.
    Stop,
    /// As many tokens as were asked for, or the context is full.
    Length,
}

/// A token and what is known of it from those before.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The natural logarithm of its probability, if asked for; none for the first token of a text.
    pub ln: Option<f64>,
    /// The likeliest tokens in its place, as many as were asked for.
    pub likeliest: Vec<(u32, f64)>,
    /// The blocks that the token before has run, if asked for.
    pub path: Option<Vec<usize>>,
    /// Its energy, if asked for and the model has energies.
    pub energy: Option<f32>,
}

impl Token {
    /// A token of which nothing is known.
    fn unscored(id: u32) -> Self {
        Self {
            id,
            ln: None,
            likeliest: Vec::new(),
            path: None,
            energy: None,
        }
    }
}

/// What the model allows, for all texts.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Texts that are read or continued at the same time.
    pub n_slots: usize,
    /// The longest text.
    pub context: usize,
    /// Ids from here on are never drawn: no token has them.
    pub vocabulary: usize,
    /// Ids that are never drawn: the start symbol and padding.
    pub never: Vec<u32>,
    /// Ids that end a document.
    pub ends: Vec<u32>,
}

/// A text in a slot.
struct Text {
    job: Job,
    slot: usize,
    /// Tokens of the prompt that were read.
    n_read: usize,
    n_drawn: usize,
}

/// Serves jobs until nobody can send any more.
pub fn run(slots: &mut dyn Slots, jobs: &Receiver<Job>, bounds: &Bounds, metrics: &Metrics) {
    let mut engine = Engine {
        slots,
        bounds,
        metrics,
        waiting: VecDeque::new(),
        reading: VecDeque::new(),
        writing: BTreeMap::new(),
    };
    while engine.take(jobs) {
        engine.admit();
        engine.read_chunk();
        engine.round();
        engine.count();
    }
}

struct Engine<'a> {
    slots: &'a mut dyn Slots,
    bounds: &'a Bounds,
    metrics: &'a Metrics,
    waiting: VecDeque<Job>,
    reading: VecDeque<Text>,
    /// By slot.
    writing: BTreeMap<usize, Text>,
}

impl Engine<'_> {
    /// Takes the jobs that have come, waits for one if there is nothing to do, and gives up those that nobody hears. Whether
    /// there is more to do.
    fn take(&mut self, jobs: &Receiver<Job>) -> bool {
        loop {
            match jobs.try_recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(_) if !self.is_idle() => break,
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => match jobs.recv_timeout(IDLE) {
                    Ok(job) => self.waiting.push_back(job),
                    // This may be the pool's only thread, and tokenizers ask for one.
                    Err(RecvTimeoutError::Timeout) => drop(rayon::yield_now()),
                    Err(RecvTimeoutError::Disconnected) => return false,
                },
            }
        }
        self.waiting.retain(|job| !job.events.is_closed());
        let Self {
            slots,
            reading,
            writing,
            ..
        } = self;
        let mut is_heard = |text: &Text| {
            let is_heard = !text.job.events.is_closed();
            if !is_heard {
                slots.close(text.slot);
            }
            is_heard
        };
        reading.retain(|text| is_heard(text));
        writing.retain(|_, text| is_heard(text));
        true
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.reading.is_empty() && self.writing.is_empty()
    }

    /// Gives free slots to those who wait.
    fn admit(&mut self) {
        while self.reading.len() + self.writing.len() < self.bounds.n_slots
            && let Some(mut job) = self.waiting.pop_front()
        {
            job.place = None;
            let slot = self.slots.open();
            self.reading.push_back(Text {
                job,
                slot,
                n_read: 0,
                n_drawn: 0,
            });
        }
    }

    /// Reads a chunk of one prompt; who has more to read stands in line again.
    fn read_chunk(&mut self) {
        let Some(mut text) = self.reading.pop_front() else {
            return;
        };
        let Text {
            job, slot, n_read, ..
        } = &text;
        let (first, n_prompt) = (*n_read, job.prompt.len());
        let end = n_prompt.min(first.saturating_add(self.slots.chunk()));
        let scores_prompt = job.scores.prompt;
        let is_last = end == n_prompt;
        if is_last && !scores_prompt && job.n_tokens == 0 {
            return self.end(text, Reason::Length);
        }
        let n_wanted = if scores_prompt { end - first } else { 1 };
        let said = self.slots.read(*slot, &job.prompt[first..end], n_wanted);
        self.metrics.read(end - first);
        text.n_read = end;
        if first == 0 && scores_prompt {
            text.tell(Event::Read(Token::unscored(text.job.prompt[0])));
        }
        let mut last = None;
        for (place, said) in (end - n_wanted..end).zip(said) {
            match text.job.prompt.get(place + 1) {
                Some(&next) if scores_prompt => match token(&text.job, next, &said) {
                    Ok(token) => text.tell(Event::Read(token)),
                    Err(id) => return self.fail(text, id),
                },
                Some(_) => {}
                None => last = Some(said),
            }
        }
        match last {
            Some(said) => self.go_on(text, &said),
            None => self.reading.push_back(text),
        }
    }

    /// Takes every token that is underway further.
    fn round(&mut self) {
        for (slot, said) in self.slots.round() {
            // Nobody may hear it any more.
            if let Some(text) = self.writing.remove(&slot) {
                self.go_on(text, &said);
            }
        }
        self.metrics.round();
    }

    /// Draws the next token of a text, and begins it if another one may follow.
    fn go_on(&mut self, mut text: Text, said: &Said) {
        let Bounds {
            context,
            vocabulary,
            never,
            ends,
            ..
        } = self.bounds;
        if text.n_drawn == text.job.n_tokens {
            return self.end(text, Reason::Length);
        }
        let next = match said.draw(*vocabulary, text.job.sampling, never, text.n_drawn) {
            Ok(Some(next)) => next,
            Ok(None) => return self.end(text, Reason::Stop),
            Err(id) => return self.fail(text, id),
        };
        self.metrics.drawn();
        match token(&text.job, next, said) {
            Ok(token) => text.tell(Event::Drawn(token)),
            Err(id) => return self.fail(text, id),
        }
        text.n_drawn += 1;
        if text.job.stops_at_end && ends.contains(&next) {
            return self.end(text, Reason::Stop);
        }
        let is_full = text.job.prompt.len() + text.n_drawn > *context;
        if is_full || text.n_drawn == text.job.n_tokens {
            return self.end(text, Reason::Length);
        }
        self.slots.begin(text.slot, next);
        self.writing.insert(text.slot, text);
    }

    fn end(&mut self, text: Text, reason: Reason) {
        text.tell(Event::End(reason));
        self.slots.close(text.slot);
    }

    fn fail(&mut self, text: Text, id: usize) {
        text.tell(Event::NotFinite(id));
        self.slots.close(text.slot);
    }

    fn count(&self) {
        self.metrics
            .running(self.reading.len() + self.writing.len());
    }
}

impl Text {
    fn tell(&self, event: Event) {
        // Who does not hear it is found before the next round.
        let _ = self.job.events.send(event);
    }
}

/// What is told of a token by what was said before it.
fn token(job: &Job, id: u32, said: &Said) -> Result<Token, usize> {
    let mut token = Token::unscored(id);
    if let Some(n_likeliest) = job.scores.n_likeliest {
        let probabilities = Probabilities::of(&said.logits)?;
        token.ln = Some(probabilities.ln(id));
        token.likeliest = probabilities.likeliest(n_likeliest);
    }
    if job.scores.routes {
        token.path = Some(said.path.clone());
        token.energy = said.energies.get(id as usize).copied();
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    const VOCABULARY: usize = 6;

    /// A model that likes the sum of all tokens so far, and keeps a list of what it was told. A token takes as many rounds as
    /// its number says.
    #[derive(Default)]
    struct Sums {
        slots: Vec<Option<Vec<u32>>>,
        underway: Vec<(usize, u32)>,
        reads: Vec<(usize, usize)>,
        most_open: usize,
        keeps: bool,
        n_begun: usize,
        /// Who leaves after some rounds.
        leaves: Vec<UnboundedReceiver<Event>>,
    }

    fn said(tokens: &[u32]) -> Said {
        let favourite = tokens.iter().sum::<u32>() % VOCABULARY as u32;
        let logit = |id: u32| match id == favourite {
            true => 3.0,
            false => -(id as f32),
        };
        Said {
            logits: (0..VOCABULARY as u32).map(logit).collect(),
            path: vec![favourite as usize],
            energies: Vec::new(),
        }
    }

    impl Slots for Sums {
        fn keeps(&self) -> bool {
            self.keeps
        }

        fn open(&mut self) -> usize {
            let free = self.slots.iter().position(Option::is_none);
            let slot = free.unwrap_or(self.slots.len());
            self.slots.resize(self.slots.len().max(slot + 1), None);
            self.slots[slot] = Some(Vec::new());
            let n_open = self.slots.iter().flatten().count();
            self.most_open = self.most_open.max(n_open);
            slot
        }

        fn tokens(&self, slot: usize) -> &[u32] {
            self.slots[slot].as_ref().unwrap()
        }

        fn read(&mut self, slot: usize, tokens: &[u32], n_wanted: usize) -> Vec<Said> {
            self.reads.push((slot, tokens.len()));
            let all = self.slots[slot].as_mut().unwrap();
            all.extend(tokens);
            let ends = all.len() - n_wanted + 1..=all.len();
            ends.map(|end| said(&all[..end])).collect()
        }

        fn begin(&mut self, slot: usize, token: u32) {
            self.slots[slot].as_mut().unwrap().push(token);
            self.underway.push((slot, token));
            self.n_begun += 1;
        }

        fn round(&mut self) -> Vec<(usize, Said)> {
            if self.n_begun > 3 {
                self.leaves.clear();
            }
            let underway = std::mem::take(&mut self.underway);
            let (over, on): (Vec<_>, Vec<_>) =
                underway.into_iter().partition(|(_, left)| *left == 0);
            self.underway = on
                .into_iter()
                .map(|(slot, left)| (slot, left - 1))
                .collect();
            let over = over.into_iter();
            over.map(|(slot, _)| (slot, said(self.tokens(slot))))
                .collect()
        }

        fn truncate(&mut self, _: usize, _: usize) {
            unreachable!("a server does not cut back")
        }

        fn close(&mut self, slot: usize) {
            self.underway.retain(|(of, _)| *of != slot);
            self.slots[slot] = None;
        }
    }

    fn bounds() -> Bounds {
        Bounds {
            n_slots: 2,
            context: 600,
            vocabulary: VOCABULARY,
            never: vec![],
            ends: vec![5],
        }
    }

    fn job(prompt: Vec<u32>, n_tokens: usize) -> (Job, UnboundedReceiver<Event>) {
        let (events, heard) = unbounded_channel();
        let sampling = Sampling {
            temperature: 0.0,
            ..Sampling::plain(1)
        };
        let scores = Scores {
            prompt: false,
            n_likeliest: None,
            routes: false,
        };
        let job = Job {
            prompt,
            n_tokens,
            sampling,
            stops_at_end: true,
            scores,
            events,
            place: None,
        };
        (job, heard)
    }

    fn serve(jobs: Vec<Job>, bounds: &Bounds, keeps: bool) -> Sums {
        let mut model = Sums {
            keeps,
            ..Sums::default()
        };
        let (sender, receiver) = channel();
        jobs.into_iter().for_each(|job| sender.send(job).unwrap());
        drop(sender);
        run(&mut model, &receiver, bounds, &Metrics::default());
        assert!(model.slots.iter().all(Option::is_none), "a slot stays open");
        model
    }

    fn heard(mut events: UnboundedReceiver<Event>) -> (Vec<u32>, Vec<u32>, Option<Reason>) {
        let (mut read, mut drawn, mut reason) = (Vec::new(), Vec::new(), None);
        while let Ok(event) = events.try_recv() {
            assert_eq!(reason, None, "nothing follows the end");
            match event {
                Event::Read(token) => read.push(token.id),
                Event::Drawn(token) => drawn.push(token.id),
                Event::End(why) => reason = Some(why),
                Event::NotFinite(id) => panic!("{id}"),
            }
        }
        (read, drawn, reason)
    }

    #[test]
    fn a_text_goes_on_to_its_end_its_length_or_the_end_of_the_context() {
        // 1 → 1, 1+1 → 2, 4 → 4, 8 → 2, 10 → 4, 14 → 2, …
        let (a, of_a) = job(vec![1], 5);
        // 5 ends the document.
        let (b, of_b) = job(vec![2, 3], 5);
        let (mut c, of_c) = job(vec![2, 3], 3);
        c.stops_at_end = false;
        let (d, of_d) = job(vec![4; 599], 9);
        let model = serve(vec![a, b, c, d], &bounds(), true);
        assert_eq!(
            heard(of_a),
            (vec![], vec![1, 2, 4, 2, 4], Some(Reason::Length))
        );
        assert_eq!(heard(of_b), (vec![], vec![5], Some(Reason::Stop)));
        assert_eq!(heard(of_c), (vec![], vec![5, 4, 2], Some(Reason::Length)));
        let (_, drawn, reason) = heard(of_d);
        // One token fits, and what is behind it.
        assert_eq!((drawn.len(), reason), (2, Some(Reason::Length)));
        assert_eq!(model.most_open, 2);
    }

    #[test]
    fn chunks_end_where_the_prompt_alone_says() {
        let (a, _a) = job(vec![1; 599], 0);
        let (mut b, of_b) = job(vec![1; 600], 0);
        let (c, _c) = job(vec![1; 255], 1);
        b.scores.prompt = true;
        let model = serve(vec![a, b, c], &bounds(), true);
        let of = |slot| -> Vec<usize> {
            let reads = model.reads.iter().filter(|(of, _)| *of == slot);
            reads.map(|(_, n)| *n).collect()
        };
        // The first has nothing left to say behind its second chunk, and the third comes into its slot.
        assert_eq!(of(0), [256, 256, 255]);
        assert_eq!(of(1), [256, 256, 88]);
        assert_eq!(heard(of_b), (vec![1; 600], vec![], Some(Reason::Length)));
        let (a, _a) = job(vec![1; 599], 1);
        assert_eq!(serve(vec![a], &bounds(), false).reads, [(0, 599)]);
    }

    #[test]
    fn every_token_is_told_with_what_was_said_before_it() {
        let (mut a, mut events) = job(vec![1, 3, 2], 1);
        a.scores = Scores {
            prompt: true,
            n_likeliest: Some(2),
            routes: true,
        };
        serve(vec![a], &bounds(), true);
        let mut all = Vec::new();
        while let Ok(event) = events.try_recv() {
            match event {
                Event::Read(token) | Event::Drawn(token) => all.push(token),
                Event::End(reason) => assert_eq!(reason, Reason::Length),
                Event::NotFinite(id) => panic!("{id}"),
            }
        }
        // Behind 1, 1+3 and 1+3+2: the favourites are 1, 4 and 0.
        assert_eq!(all.iter().map(|of| of.id).collect::<Vec<_>>(), [1, 3, 2, 0]);
        assert_eq!(all[0], Token::unscored(1));
        let paths = all[1..].iter().map(|of| of.path.clone().unwrap());
        assert_eq!(paths.collect::<Vec<_>>(), [[1], [4], [0]]);
        let first: Vec<u32> = all[1..].iter().map(|of| of.likeliest[0].0).collect();
        assert_eq!(first, [1, 4, 0]);
        let total: f64 = 3f64.exp()
            + [0.0, 2.0, 3.0, 4.0, 5.0f64]
                .map(|x| (-x).exp())
                .iter()
                .sum::<f64>();
        let expected = -3.0 - total.ln();
        assert!((all[1].ln.unwrap() - expected).abs() < 1e-12);
        assert_eq!(all[3].ln, Some(all[3].likeliest[0].1));
    }

    #[test]
    fn who_is_not_heard_makes_room() {
        let (a, of_a) = job(vec![1], 500);
        let (b, of_b) = job(vec![1], 2);
        drop(of_a);
        assert_eq!(serve(vec![a, b], &bounds(), true).reads.len(), 1);
        assert_eq!(heard(of_b).1, [1, 2]);
        // Who leaves in the middle is given up before the next round.
        let (mut c, of_c) = job(vec![1], 500);
        c.stops_at_end = false;
        let mut model = Sums {
            keeps: true,
            leaves: vec![of_c],
            ..Sums::default()
        };
        let (sender, receiver) = channel();
        sender.send(c).unwrap();
        drop(sender);
        run(&mut model, &receiver, &bounds(), &Metrics::default());
        assert_eq!(model.n_begun, 4);
    }

    #[test]
    fn what_a_text_draws_does_not_depend_on_others() {
        let of = |seed: u64| {
            let (mut job, events) = job(vec![seed as u32 % 5, 1], 30);
            job.sampling = Sampling::plain(seed);
            (job, events)
        };
        let alone = |seed| {
            let (job, events) = of(seed);
            serve(vec![job], &bounds(), true);
            heard(events)
        };
        let (jobs, events): (Vec<_>, Vec<_>) = (0..12).map(of).unzip();
        let wide = Bounds {
            n_slots: 5,
            ..bounds()
        };
        assert_eq!(serve(jobs, &wide, true).most_open, 5);
        for (seed, events) in (0..).zip(events) {
            assert_eq!(heard(events), alone(seed), "{seed}");
        }
    }

    #[test]
    fn ids_that_are_never_drawn_are_not() {
        let narrow = Bounds {
            vocabulary: 3,
            never: vec![0],
            ..bounds()
        };
        // The favourite is 4, and of 1 and 2 the first is likelier.
        let (job, events) = job(vec![4], 1);
        serve(vec![job], &narrow, true);
        assert_eq!(heard(events).1, [1]);
    }
}
