//! The sentences printed about a finished data directory: what was left out, read otherwise, rounded or looks odd.
//! All of it is in the manifest.

use super::SplitRule;
use super::share::Share;
use crate::data::manifest::Manifest;
use crate::data::tokenizer::SpelledSpecials;
use crate::data::unknown;

/// One sentence for each fact that the user should know.
pub fn sentences(manifest: &Manifest) -> Vec<String> {
    let mut all = Vec::new();
    for source in &manifest.sources {
        let path = &source.path;
        let facts = source.notes.iter().cloned();
        let facts = facts.chain(source.counts.sentences());
        all.extend(facts.map(|fact| format!("{path}: {fact}")));
        let count = source.specials_in_text;
        if count > 0 {
            let read = match manifest.specials {
                SpelledSpecials::Text => "text; --specials parse reads them as specials",
                SpelledSpecials::Parse => "specials; --specials text reads them as text",
            };
            all.push(format!(
                "{path}: {count} special tokens, such as </s>, are spelled out in the text and read as {read}"
            ));
        }
    }
    all.extend(rounding(manifest));
    for (name, counts) in &manifest.splits {
        all.extend(unknown::sentence(name, counts.unknown, counts.tokens));
        let documents = counts.documents;
        let count = counts.duplicates;
        if count > 0 {
            all.push(format!(
                "{name}: {count} of {documents} documents repeat one before them"
            ));
        }
        let count = counts.also_in_train;
        if count > 0 {
            all.push(format!(
                "warning: {name}: {count} of {documents} documents are in train too, so what is measured on them was trained on"
            ));
        }
    }
    all
}

/// How far the documents of validation are from the share asked for; a text cut by its bytes is not rounded.
fn rounding(manifest: &Manifest) -> Option<String> {
    let fraction = manifest.split.valid_fraction;
    let valid = manifest.splits.get("valid")?.documents;
    let all: u64 = manifest.splits.values().map(|split| split.documents).sum();
    let found = 100.0 * valid as f64 / all as f64;
    let asked = 100.0 * fraction;
    let is_exact = match manifest.split.rule {
        SplitRule::Tail => true,
        _ => Share::new(fraction).is_exactly(valid, all),
    };
    let why = match manifest.split.rule {
        SplitRule::Hash => "each is drawn by itself",
        _ => "rounded up",
    };
    (!is_exact).then(|| {
        format!("validation has {valid} of {all} documents, which is {found:.2} % where {asked:.2} % were asked for: {why}")
    })
}
