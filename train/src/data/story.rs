//! Generates small stories of graded length, in which people carry things from place to place.
//!
//! Every story is a simulated day: somebody makes a promise, things move, and in the evening questions are asked.
//! The answers follow from the events and the last sentences from the first ones, so a model that keeps track of
//! the day predicts the end better than one that only knows the words.

mod words;

use brian::random;
use serde::Serialize;

use words::{ASIDES, ELDERS, LOOKS, NAMES, PLACES, PROMISES, THINGS, TIMES, TREATS, WEATHERS};

/// The number of difficulties; that of a story is `index mod 4`.
pub const DIFFICULTIES: u64 = 4;

/// One story, with its difficulty and its number of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Story {
    /// The text, in one paragraph.
    pub text: String,
    /// 0 to 3: more people, more things, more events, more to remember.
    pub difficulty: u32,
    /// The position in the stream.
    pub index: u64,
    /// How many things moved or changed hands.
    pub events: u32,
}

/// The story at an index of a seed's stream, made without any other story.
pub fn story(seed: u64, index: u64) -> Story {
    let difficulty = (index % DIFFICULTIES) as usize;
    let mut day = Day::new(Draws::new(random::key(seed, "story", index)), difficulty);
    day.begin();
    let events = [1, 3, 6, 10][difficulty] + day.draws.below(2);
    for _ in 0..events {
        day.event();
    }
    day.end();
    Story {
        text: day.text,
        difficulty: difficulty as u32,
        index,
        events: events as u32,
    }
}

/// A story up to its last words, four ends of which one follows from its beginning, and the place of that one.
pub fn with_ends(seed: u64, index: u64) -> (String, Vec<&'static str>, usize) {
    let text = story(seed, index).text;
    let ends = PROMISES.map(|(_, kept)| kept);
    let is_own = |end: &&&str| text.ends_with(&format!(" {end}."));
    let own = *ends.iter().find(is_own).expect("a promise is kept");
    let mut draws = Draws::new(random::key(seed, "ends", index));
    let others: Vec<&str> = ends.into_iter().filter(|end| *end != own).collect();
    let mut ends = draws.some(&others, 3);
    let place = draws.below(4);
    ends.insert(place, own);
    let before = text.strip_suffix(&format!(" {own}.")).expect("its end");
    (before.to_string(), ends, place)
}

/// Draws that advance along one stream.
pub(super) struct Draws {
    key: u64,
    position: u64,
}

impl Draws {
    pub fn new(key: u64) -> Self {
        Self { key, position: 0 }
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.position += 1;
        (random::uniform(self.key, self.position - 1) * n as f64) as usize
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Some items, each at most once.
    pub fn some<T: Copy>(&mut self, items: &[T], n: usize) -> Vec<T> {
        let mut left = items.to_vec();
        let next = |_| left.swap_remove(self.below(left.len()));
        (0..n).map(next).collect()
    }
}

struct Person {
    name: &'static str,
    pronoun: &'static str,
    place: usize,
    treat: &'static str,
}

struct Thing {
    name: String,
    at: Spot,
    left_by: Option<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Spot {
    Place(usize),
    With(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Event {
    Go {
        who: usize,
        to: usize,
    },
    Take {
        who: usize,
        what: usize,
    },
    Leave {
        who: usize,
        what: usize,
    },
    Give {
        who: usize,
        what: usize,
        whom: usize,
    },
}

struct Day {
    draws: Draws,
    difficulty: usize,
    places: Vec<(&'static str, &'static str)>,
    people: Vec<Person>,
    things: Vec<Thing>,
    promise: (&'static str, &'static str),
    last: Option<Event>,
    text: String,
}

impl Day {
    fn new(mut draws: Draws, difficulty: usize) -> Self {
        let places = draws.some(&PLACES, [2, 3, 4, 5][difficulty]);
        let treats = draws.some(&TREATS, 4);
        let names = draws.some(&NAMES, [1, 2, 2, 3][difficulty]);
        let people = names.into_iter().zip(treats);
        let people = people.map(|((name, pronoun), treat)| Person {
            name,
            pronoun,
            place: draws.below(places.len()),
            treat,
        });
        let people: Vec<Person> = people.collect();
        let things = draws.some(&THINGS, [1, 2, 3, 4][difficulty]);
        let things = things.into_iter().map(|thing| Thing {
            name: format!("the {} {thing}", draws.pick(&LOOKS)),
            at: Spot::Place(draws.below(places.len())),
            left_by: None,
        });
        let things = things.collect();
        Self {
            promise: draws.pick(&PROMISES),
            draws,
            difficulty,
            places,
            people,
            things,
            last: None,
            text: String::new(),
        }
    }

    fn begin(&mut self) {
        let weather = self.draws.pick(&WEATHERS);
        let time = self.draws.pick(&TIMES);
        let (first, promise) = (self.people[0].name, self.promise.0);
        self.say(format!(
            "One {weather} {time}, {first} promised to {promise}."
        ));
        for i in 1..self.people.len() {
            let Person { name, treat, .. } = self.people[i];
            let sentence = match self.draws.below(2) {
                0 => format!("{name} liked nothing better than {treat}."),
                _ => format!("{name} dreamed of {treat}."),
            };
            self.say(sentence);
        }
        for i in 0..self.people.len() {
            let Person { name, place, .. } = self.people[i];
            self.say(format!("{name} was {}.", self.here(place)));
        }
        for i in 0..self.things.len() {
            let Spot::Place(place) = self.things[i].at else {
                continue;
            };
            let (here, name) = (self.here(place), self.things[i].name.clone());
            let sentence = match self.draws.below(3) {
                0 => format!("{} lay {here}.", capitalised(&name)),
                1 => format!("{} was {here}.", capitalised(&name)),
                _ => format!("{} lay {name}.", capitalised(&here)),
            };
            self.say(sentence);
        }
    }

    fn event(&mut self) {
        let possible = self.possible();
        let event = self.draws.pick(&possible);
        let sentence = self.told(event);
        self.say(sentence);
        match event {
            Event::Go { who, to } => self.people[who].place = to,
            Event::Take { who, what } => self.things[what].at = Spot::With(who),
            Event::Give { what, whom, .. } => self.things[what].at = Spot::With(whom),
            Event::Leave { who, what } => {
                self.things[what].at = Spot::Place(self.people[who].place);
                self.things[what].left_by = Some(who);
            }
        }
        self.last = Some(event);
        if self.draws.below(5) == 0 {
            let aside = self.draws.pick(&ASIDES);
            self.say(aside.to_string());
            self.last = None;
        }
    }

    /// What can happen now; what moves things is listed more often than what only moves people.
    fn possible(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (who, person) in self.people.iter().enumerate() {
            for to in (0..self.places.len()).filter(|to| *to != person.place) {
                events.push(Event::Go { who, to });
            }
            for (what, thing) in self.things.iter().enumerate() {
                if thing.at == Spot::Place(person.place) {
                    events.extend([Event::Take { who, what }; 4]);
                } else if thing.at == Spot::With(who) {
                    events.extend([Event::Leave { who, what }; 2]);
                    let others = (0..self.people.len()).filter(|whom| *whom != who);
                    let near = others.filter(|whom| self.people[*whom].place == person.place);
                    events.extend(near.flat_map(|whom| [Event::Give { who, what, whom }; 3]));
                }
            }
        }
        let mut sensible = events.clone();
        sensible.retain(|event| !self.undoes_the_last(*event));
        match sensible.is_empty() {
            true => events,
            false => sensible,
        }
    }

    fn undoes_the_last(&self, event: Event) -> bool {
        match (self.last, event) {
            (Some(Event::Go { who: last, .. }), Event::Go { who, .. }) => who == last,
            (
                Some(Event::Take { what: last, .. } | Event::Give { what: last, .. }),
                Event::Leave { what, .. },
            )
            | (Some(Event::Leave { what: last, .. }), Event::Take { what, .. })
            | (Some(Event::Give { what: last, .. }), Event::Give { what, .. }) => what == last,
            _ => false,
        }
    }

    fn told(&mut self, event: Event) -> String {
        let who = actor(event);
        let subject = match self.last.map(actor) == Some(who) {
            true => capitalised(self.people[who].pronoun),
            false => self.people[who].name.to_string(),
        };
        let variant = self.draws.below(3);
        match event {
            Event::Go { to, .. } => {
                let there = self.places[to].1;
                let carried = self.things.iter().find(|thing| thing.at == Spot::With(who));
                match (carried, variant) {
                    // The easier the story, the more often it says what travels along.
                    (Some(thing), _) if self.draws.below(4) >= self.difficulty => {
                        format!("{subject} carried {} to {there}.", thing.name)
                    }
                    (_, 0) => format!("{subject} walked to {there}."),
                    (_, 1) => format!("{subject} went to {there}."),
                    (_, _) => format!("{subject} ran to {there}."),
                }
            }
            Event::Take { what, .. } => {
                let Thing { name, left_by, .. } = &self.things[what];
                let clause = match left_by.filter(|other| *other != who) {
                    Some(other) => format!(", which {} had left there", self.people[other].name),
                    None => String::new(),
                };
                match variant {
                    0 => format!("{subject} took {name}{clause}."),
                    1 => format!("{subject} picked up {name}{clause}."),
                    _ => format!("{subject} found {name}{clause}, and kept it."),
                }
            }
            Event::Leave { what, .. } => {
                let name = &self.things[what].name;
                match variant {
                    0 => format!("{subject} put {name} down."),
                    1 => {
                        let here = self.here(self.people[who].place);
                        format!("{subject} left {name} {here}.")
                    }
                    _ => format!("{subject} set {name} down and forgot it."),
                }
            }
            Event::Give { what, whom, .. } => {
                let (name, whom) = (&self.things[what].name, self.people[whom].name);
                match variant {
                    0 => format!("{subject} gave {name} to {whom}."),
                    1 => format!("{subject} handed {name} to {whom}."),
                    _ => format!("{subject} lent {whom} {name}."),
                }
            }
        }
    }

    fn end(&mut self) {
        let elder = self.draws.pick(&ELDERS);
        let first = self.people[0].name;
        let sentence = match self.draws.below(2) {
            0 => format!("In the evening, {elder} asked about the day."),
            _ => format!("When the lamps were lit, {elder} wanted to know everything."),
        };
        self.say(sentence);
        let order: Vec<usize> = (0..self.things.len()).collect();
        for what in self.draws.some(&order, order.len()) {
            let Thing { name, at, .. } = &self.things[what];
            self.say(match at {
                Spot::With(0) => format!("\"Where is {name}?\" \"I have it,\" said {first}."),
                Spot::With(who) => {
                    let who = self.people[*who].name;
                    format!("\"Where is {name}?\" \"{who} has it,\" said {first}.")
                }
                Spot::Place(place) => {
                    let here = capitalised(&self.here(*place));
                    format!("\"Where is {name}?\" \"{here},\" said {first}.")
                }
            });
        }
        for i in 1..self.people.len() {
            let Person { name, treat, .. } = self.people[i];
            let elder = capitalised(elder);
            self.say(format!("{elder} had kept {treat} for {name}."));
        }
        let kept = self.promise.1;
        self.say(format!("Then {first} remembered the promise and {kept}."));
    }

    fn here(&self, place: usize) -> String {
        let (preposition, name) = self.places[place];
        format!("{preposition} {name}")
    }

    fn say(&mut self, sentence: String) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(&sentence);
    }
}

fn actor(event: Event) -> usize {
    match event {
        Event::Go { who, .. }
        | Event::Take { who, .. }
        | Event::Leave { who, .. }
        | Event::Give { who, .. } => who,
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hexadecimal;
    use sha2::{Digest, Sha256};
    use std::collections::HashSet;

    #[test]
    fn a_story_depends_on_seed_and_index_only() {
        assert_eq!(story(1, 5), story(1, 5));
        assert_ne!(story(1, 5).text, story(2, 5).text);
        assert_ne!(story(1, 5).text, story(1, 9).text);
    }

    #[test]
    fn even_the_easiest_stories_hardly_ever_repeat() {
        let texts: HashSet<String> = (0..20_000)
            .map(|i| story(1, i * DIFFICULTIES).text)
            .collect();
        assert_eq!(texts.len(), 20_000);
    }

    #[test]
    fn harder_stories_are_longer() {
        let mean = |difficulty: u64| {
            let lengths = (0..200).map(|i| story(1, i * DIFFICULTIES + difficulty).text.len());
            lengths.sum::<usize>() / 200
        };
        let lengths: Vec<usize> = (0..DIFFICULTIES).map(mean).collect();
        assert!(
            lengths.windows(2).all(|pair| pair[0] * 5 < pair[1] * 4),
            "{lengths:?}"
        );
    }

    #[test]
    fn the_end_follows_from_the_beginning() {
        for index in 0..400 {
            let text = story(3, index).text;
            let (name, promise) = text.split_once(" promised to ").unwrap();
            let name = name.rsplit(' ').next().unwrap();
            let promise = promise.split('.').next().unwrap();
            let kept = PROMISES
                .iter()
                .find(|(made, _)| *made == promise)
                .unwrap()
                .1;
            assert!(
                text.ends_with(&format!("{name} remembered the promise and {kept}.")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_thing_that_nobody_touched_is_where_it_was() {
        for index in (0..400).step_by(4) {
            let mut day = Day::new(Draws::new(random::key(1, "story", index)), 0);
            let place = day.things[0].at;
            day.begin();
            day.end();
            let Spot::Place(place) = place else {
                panic!("things start at places")
            };
            let answer = format!("\"{},\" said", capitalised(&day.here(place)));
            assert!(day.text.contains(&answer), "{}", day.text);
        }
    }

    /// Data that anybody made can be made again: a seed means the same stories for ever.
    #[test]
    fn a_seed_means_the_stories_that_it_always_meant() {
        let mut hash = Sha256::new();
        for (seed, index) in [1, 2]
            .into_iter()
            .flat_map(|seed| (0..200).map(move |i| (seed, i)))
        {
            let Story {
                text,
                difficulty,
                index,
                events,
            } = story(seed, index);
            hash.update(format!("{index} {difficulty} {events} {text}\n"));
        }
        assert_eq!(
            hexadecimal(&hash.finalize()),
            "b67a1cc2593e23ed1b57f98c31fd0ccf642264a68d6eaf10d2a2b14742b7fe41"
        );
    }

    #[test]
    fn only_what_can_happen_happens_and_the_evening_knows_where_everything_is() {
        for index in 0..200 {
            let difficulty = (index % DIFFICULTIES) as usize;
            let mut day = Day::new(Draws::new(random::key(9, "story", index)), difficulty);
            day.begin();
            for _ in 0..12 {
                let possible = day.possible();
                let places: Vec<usize> = day.people.iter().map(|person| person.place).collect();
                let spots: Vec<Spot> = day.things.iter().map(|thing| thing.at).collect();
                for event in &possible {
                    assert!(match *event {
                        Event::Go { who, to } => places[who] != to && to < day.places.len(),
                        Event::Take { who, what } => spots[what] == Spot::Place(places[who]),
                        Event::Leave { who, what } => spots[what] == Spot::With(who),
                        Event::Give { who, what, whom } => {
                            spots[what] == Spot::With(who)
                                && who != whom
                                && places[who] == places[whom]
                        }
                    });
                }
                day.event();
                let of_event = |event: &&Event| {
                    let (mut places, mut spots) = (places.clone(), spots.clone());
                    match **event {
                        Event::Go { who, to } => places[who] = to,
                        Event::Take { who, what } => spots[what] = Spot::With(who),
                        Event::Leave { who, what } => spots[what] = Spot::Place(places[who]),
                        Event::Give { what, whom, .. } => spots[what] = Spot::With(whom),
                    }
                    day.people.iter().map(|person| person.place).eq(places)
                        && day.things.iter().map(|thing| thing.at).eq(spots)
                };
                let happened = possible.iter().find(of_event).expect("something possible");
                assert!(day.last.is_none_or(|last| actor(last) == actor(*happened)));
            }
            day.end();
            for thing in &day.things {
                let answer = match thing.at {
                    Spot::With(0) => "I have it".to_string(),
                    Spot::With(who) => format!("{} has it", day.people[who].name),
                    Spot::Place(place) => capitalised(&day.here(place)),
                };
                let dialogue = format!("\"Where is {}?\" \"{answer},\" said", thing.name);
                assert!(day.text.contains(&dialogue), "{}", day.text);
            }
        }
    }
}
