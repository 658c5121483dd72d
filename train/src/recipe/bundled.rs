//! `BUNDLED`: the recipes that come with the program, the texts of `assets/recipes` compiled in, each with model kind and size.

/// A recipe of `assets/recipes`, compiled in.
#[derive(Clone, Copy, Debug)]
pub struct Bundled {
    /// The kind of the model (the folder).
    pub kind: &'static str,
    /// The size of the model (the file).
    pub size: &'static str,
    /// The content.
    pub text: &'static str,
}

macro_rules! bundled {
    ($($kind:literal / $size:literal),* $(,)?) => {
        [$(Bundled {
            kind: $kind,
            size: $size,
            text: include_str!(concat!("../../../assets/recipes/", $kind, "/", $size, ".toml")),
        }),*]
    };
}

/// All bundled recipes, the smallest of a kind first.
pub const BUNDLED: [Bundled; 19] = bundled![
    "baseline" / "tiny",
    "baseline" / "graded",
    "baseline" / "shakespeare_char",
    "baseline" / "song_lyrics",
    "baseline" / "r125",
    "baseline" / "r350",
    "baseline" / "r1b",
    "brian" / "tiny",
    "brian" / "recurrent",
    "brian" / "ladder",
    "brian" / "ladder_parallel",
    "brian" / "r125",
    "brian" / "r125_parallel",
    "brian" / "r350",
    "brian" / "r1b",
    "brillm" / "tiny",
    "brillm" / "song_lyrics",
    "brillm" / "zh_4k",
    "brillm" / "en_4k",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::load::from_text;

    #[test]
    fn every_bundled_recipe_holds_every_rule_and_its_resolved_text_is_the_same_recipe() {
        for bundled in BUNDLED {
            let file = format!("{}/{}.toml", bundled.kind, bundled.size);
            let load = |text: &str, sets: &[String]| {
                from_text(&file, text.to_string(), sets)
                    .unwrap_or_else(|problems| panic!("{problems:#?}"))
            };
            let recipe = load(bundled.text, &[]);
            assert_eq!(recipe.text(), bundled.text);
            let changed = load(bundled.text, &["run.seed=7".to_string()]);
            assert_eq!(changed.run.seed, 7);
            assert_eq!(*load(changed.text(), &[]), *changed);
            assert_ne!(*recipe, *changed);
        }
    }

    #[test]
    fn lines_are_short_enough_for_a_terminal() {
        for bundled in BUNDLED {
            for line in bundled.text.lines() {
                assert!(
                    line.chars().count() <= 120,
                    "{}/{}: {line}",
                    bundled.kind,
                    bundled.size
                );
            }
        }
    }
}
