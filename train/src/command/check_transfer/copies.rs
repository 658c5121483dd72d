//! `Copies`: what has to be set in a recipe so that its model has another width, with and without the transfer.

use crate::cli;
use crate::cli::Growth;
use crate::error::{Error, Problem};
use crate::recipe::Checked;
use brian::route::position::Injection;
use brian::{BaselineConfig, BrianConfig, WidthTransfer};
use std::path::Path;

/// The most tokens that a copy learns from. Of few tokens each has much of the step to itself, and what is learnt of it outweighs what
/// is drawn at a smaller width.
const TOKENS: usize = 16;

/// How a copy depends on its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parametrization {
    /// As the base says.
    Transfer,
    /// As if the width were the base's.
    Standard,
}

impl Parametrization {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transfer => "with the transfer",
            Self::Standard => "without it",
        }
    }
}

/// The copies of a recipe at several widths.
pub struct Copies<'a> {
    file: &'a Path,
    model: BaselineConfig,
    /// Of the first copy of each width; the next ones count on.
    seed: u64,
    /// Tokens that a copy learns from.
    window: usize,
    /// What only a model with a pool has.
    routed: Option<&'a BrianConfig>,
    growth: Growth,
    /// The base of all copies: the recipe's, or the first width.
    pub base: WidthTransfer,
}

impl<'a> Copies<'a> {
    /// Those of a recipe.
    ///
    /// # Errors
    /// `Config` if its model has no width that is known here, or the first width cannot be a base.
    pub fn of(recipe: &'a Checked, arguments: &'a cli::CheckTransfer) -> Result<Self, Error> {
        let routed = recipe.model.get::<BrianConfig>();
        let row = recipe.model.get::<BaselineConfig>().copied();
        let Some(model) = row.or(routed.map(BrianConfig::baseline)) else {
            let (file, kind) = (&arguments.recipe, recipe.model.kind());
            let found = format!("{kind:?}");
            let expected = "\"baseline\" or \"brian\", whose width can be transferred";
            return Err(Error::config(Problem::new(
                file,
                "model.kind",
                found,
                expected,
            )));
        };
        let mut copies = Self {
            file: &arguments.recipe,
            model,
            seed: recipe.run.seed,
            window: recipe.data.window.min(TOKENS),
            routed,
            growth: arguments.heads,
            base: WidthTransfer {
                base_d_model: arguments.widths[0],
                base_d_head: model.heads().d_head,
            },
        };
        copies.base = match model.width_transfer {
            Some(base) => base,
            None => WidthTransfer {
                base_d_head: copies.d_head(arguments.widths[0])?,
                ..copies.base
            },
        };
        Ok(copies)
    }

    /// `PATH=VALUE` of everything that differs in a copy, which is so many behind the first of its width.
    ///
    /// # Errors
    /// `Config` if a copy of this width would have no whole number of heads, or no whole width of a head.
    pub fn sets(
        &self,
        (width, of, index): (usize, Parametrization, u64),
    ) -> Result<Vec<String>, Error> {
        let model = &self.model;
        let d_head = self.d_head(width)?;
        let mut sets = vec![
            format!("run.seed={}", self.seed.saturating_add(index)),
            "batch.sequences=1".to_string(),
            format!("data.window={}", self.window),
            format!("model.d_model={width}"),
            format!("model.d_ff={}", self.nearest(model.d_ff, width)),
        ];
        if self.growth == Growth::More {
            let n_heads = self.exactly("n_heads", model.n_heads, width)?;
            sets.push(format!("model.n_heads={n_heads}"));
            if let Some(n_kv_heads) = model.n_kv_heads {
                let n_kv_heads = self.nearest(n_kv_heads, width);
                sets.push(format!("model.n_kv_heads={n_kv_heads}"));
            }
        }
        if model.d_head.is_some() {
            sets.push(format!("model.d_head={d_head}"));
        }
        if let Some(routed) = self.routed {
            let d_ff_pool = self.nearest(routed.d_ff_pool, width);
            sets.push(format!("model.d_ff_pool={d_ff_pool}"));
            if routed.position.injection == Injection::Direct {
                sets.push(format!("model.position.d_position={width}"));
            }
        }
        let base = match of {
            Parametrization::Transfer => self.base,
            Parametrization::Standard => WidthTransfer {
                base_d_model: width,
                base_d_head: d_head,
            },
        };
        let fields = [
            ("base_d_model", base.base_d_model),
            ("base_d_head", base.base_d_head),
        ];
        let table = "model.width_transfer";
        match model.width_transfer {
            Some(_) => sets.extend(fields.map(|(key, value)| format!("{table}.{key}={value}"))),
            None => {
                let fields = fields.map(|(key, value)| format!("{key} = {value}"));
                sets.push(format!("{table}={{ {} }}", fields.join(", ")));
            }
        }
        Ok(sets)
    }

    fn d_head(&self, width: usize) -> Result<usize, Error> {
        let d_head = self.model.heads().d_head;
        match self.growth {
            Growth::More => Ok(d_head),
            Growth::Wider => self.exactly("d_head", d_head, width),
        }
    }

    /// A size that grows with the width.
    fn nearest(&self, size: usize, width: usize) -> usize {
        let size = size as f64 * width as f64 / self.model.d_model as f64;
        (size.round() as usize).max(1)
    }

    /// The same, where it has to be a whole number.
    fn exactly(&self, field: &str, size: usize, width: usize) -> Result<usize, Error> {
        let grown = size * width;
        if grown > 0 && grown.is_multiple_of(self.model.d_model) {
            return Ok(grown / self.model.d_model);
        }
        let d_model = self.model.d_model;
        let expected = format!(
            "widths at which {field}, {size} at d_model {d_model}, is a whole number of at least 1"
        );
        let problem = Problem::new(self.file, "--widths", width.to_string(), expected);
        Err(Error::config(problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;
    use clap::Parser;

    fn recipe(kind: &str, size: &str, sets: &[&str]) -> Checked {
        let bundled = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == (kind, size));
        let text = bundled.expect("a bundled recipe").text.to_string();
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        from_text("r.toml", text, &sets).unwrap()
    }

    fn arguments(typed: &str) -> cli::CheckTransfer {
        let words = ["nerve", "check-transfer", "r.toml"].into_iter();
        let typed = cli::Cli::try_parse_from(words.chain(typed.split_whitespace())).unwrap();
        match typed.verb {
            cli::Verb::CheckTransfer(arguments) => arguments,
            _ => unreachable!("the verb that was typed"),
        }
    }

    /// The model of a copy, after its recipe was checked like any other.
    fn copy<T: Copy + 'static>(
        (kind, size, sets): (&str, &str, &[&str]),
        typed: &str,
        width: usize,
        of: Parametrization,
    ) -> T {
        let arguments = arguments(typed);
        let own = recipe(kind, size, sets);
        let copies = Copies::of(&own, &arguments).unwrap();
        let all = copies.sets((width, of, 6)).unwrap();
        let all = sets.iter().copied().chain(all.iter().map(String::as_str));
        let copy = recipe(kind, size, &all.collect::<Vec<_>>());
        assert_eq!(
            (copy.run.seed, copy.batch.sequences, copy.data.window),
            (7, 1, 16)
        );
        *copy.model.get().expect("a model of the same kind")
    }

    const ROUTED: (&str, &str, &[&str]) =
        ("brian", "ladder", &["model.n_heads=4", "model.d_model=128"]);

    #[test]
    fn a_copy_has_its_width_and_more_heads_or_wider_ones() {
        let own: BrianConfig = *recipe(ROUTED.0, ROUTED.1, ROUTED.2).model.get().unwrap();
        let more: BrianConfig = copy(ROUTED, "", 512, Parametrization::Transfer);
        assert_eq!((more.d_model, more.n_heads), (512, 16));
        assert_eq!(more.baseline().heads().d_head, 32);
        assert_eq!(
            [more.d_ff, more.d_ff_pool],
            [own.d_ff, own.d_ff_pool].map(|size| 4 * size)
        );
        let base = |base_d_model, base_d_head| WidthTransfer {
            base_d_model,
            base_d_head,
        };
        assert_eq!(more.width_transfer, Some(base(64, 32)));
        assert_eq!(more.baseline().ratios().width, 8.0);
        let wider: BrianConfig = copy(ROUTED, "--heads wider", 512, Parametrization::Transfer);
        assert_eq!((wider.d_model, wider.n_heads), (512, 4));
        assert_eq!(wider.width_transfer, Some(base(64, 16)));
        assert_eq!(wider.baseline().ratios().head, 8.0);
    }

    #[test]
    fn a_copy_without_the_transfer_is_its_own_base_and_one_of_a_base_keeps_it() {
        let standard: BrianConfig = copy(ROUTED, "", 256, Parametrization::Standard);
        assert_eq!(standard.baseline().ratios(), Default::default());
        let with_base = [
            "model.d_model=128",
            "model.n_heads=4",
            "model.width_transfer={ base_d_model = 32, base_d_head = 16 }",
        ];
        let with_base = ("baseline", "tiny", &with_base[..]);
        let kept: BaselineConfig = copy(with_base, "", 256, Parametrization::Transfer);
        assert_eq!(kept.ratios().width, 8.0);
        assert_eq!(kept.ratios().head, 2.0);
        let standard: BaselineConfig = copy(with_base, "", 256, Parametrization::Standard);
        assert_eq!(standard.ratios(), Default::default());
    }

    #[test]
    fn a_model_without_a_width_and_a_width_without_whole_heads_are_refused_by_name() {
        let arguments = arguments("--widths 16,64");
        let own = recipe(ROUTED.0, ROUTED.1, ROUTED.2);
        let copies = Copies::of(&own, &arguments).unwrap();
        let refused = copies.sets((48, Parametrization::Transfer, 1)).unwrap_err();
        assert_eq!(
            refused.lines(),
            [
                "r.toml: --widths: found 48, expected widths at which n_heads, 4 at d_model 128, is a whole number of at least 1"
            ]
        );
    }
}
