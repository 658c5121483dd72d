//! Tests that `docs/recipe.md` is exactly what is generated here from the comments of the recipe types, and that it has every
//! key of every bundled recipe.
//!
//! After a change of those: `NERVE_WRITE_REFERENCE=1 cargo test --release -p tests reference`.

use crate::tidy::{root, sources};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use train::recipe::bundled::BUNDLED;
use train::registry::registry;

const HEAD: &str = "# Recipes

Every key, with what it takes and what it means. This page is made from the comments of the types that recipes are read into, and
a test holds it equal to them; `nerve config explain KEY` prints parts of it. `NAME` stands for the name of a stage, `[]` for an
element of a list. A value with a `kind` and nothing else may be written as the word alone: `start = \"fresh\"`. The keys of sweep files
are told by `nerve sweep --help`.

Of a graph, `model.kind = \"brillm\"`, the paper is that of BriLLM, the code and the reference are its published implementation, and
D1, D2 and so on count what these do differently: the table in `brillm/src/compat.rs`.
";

/// The families of models: what `model.kind` can be, the type of its table, and the file that uses it.
const FAMILIES: [[&str; 4]; 3] = [
    [
        "baseline",
        "The decoder of fixed depth.",
        "BaselineConfig",
        "train/src/family/baseline.rs",
    ],
    [
        "brian",
        "The decoder with a routed pool.",
        "BrianConfig",
        "train/src/family/brian.rs",
    ],
    [
        "brillm",
        "The graph of tokens.",
        "SignalConfig",
        "train/src/family/brillm/mod.rs",
    ],
];

/// The losses that come with the program: name, what it is, the type of its table, and the file of that.
const LOSSES: [[&str; 4]; 1] = [[
    "z",
    "Adds the mean over targets of the squared logarithm of the softmax's normaliser (Chowdhery et al. 2022, section 5).",
    "ZConfig",
    "train/src/model/loss/z.rs",
]];

/// A type that is read from a file.
struct Item {
    file: String,
    name: String,
    body: Body,
}

enum Body {
    Struct(Vec<Field>),
    Enum(Vec<Variant>),
}

struct Field {
    name: String,
    text: String,
    kind: String,
}

struct Variant {
    name: String,
    text: String,
    fields: Vec<Field>,
    /// What a variant of one unnamed field holds.
    holds: Option<String>,
}

/// All types with `Deserialize` in a crate's sources.
fn items(folder: &str) -> Vec<Item> {
    let files = sources(folder).into_iter();
    files
        .flat_map(|(name, text)| items_of(&name, &text))
        .collect()
}

fn items_of(file: &str, text: &str) -> Vec<Item> {
    let mut found = Vec::new();
    let (mut doc, mut is_read) = (Vec::new(), false);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(comment) = line.strip_prefix("///") {
            doc.push(comment.trim().to_string());
            continue;
        }
        if line.starts_with("#[") {
            is_read |= line.contains("Deserialize");
            continue;
        }
        let mut words = line.split_whitespace();
        let heads = (words.next(), words.next(), words.next(), words.next());
        if let (true, (Some("pub"), Some(what @ ("struct" | "enum")), Some(name), Some("{"))) =
            (is_read, heads)
        {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
            found.push(Item {
                file: file.to_string(),
                name: name.to_string(),
                body: match what {
                    "struct" => Body::Struct(fields(&body, "    pub ")),
                    _ => Body::Enum(variants(&body)),
                },
            });
        }
        (doc, is_read) = (Vec::new(), false);
    }
    found
}

/// Comments as one line of a table.
fn sentence(doc: &[String]) -> String {
    let text = doc.join(" ");
    let text = text.replace("[`", "`").replace("`]", "`");
    text.trim().replace("Self::", "").replace('|', "\\|")
}

fn fields(lines: &[&str], indent: &str) -> Vec<Field> {
    let mut found = Vec::new();
    let mut doc = Vec::new();
    for line in lines {
        if let Some(comment) = line.trim().strip_prefix("///") {
            doc.push(comment.trim().to_string());
        } else if let Some((name, kind)) = line
            .strip_prefix(indent)
            .and_then(|field| field.split_once(": "))
        {
            found.push(Field {
                name: name.to_string(),
                text: sentence(&std::mem::take(&mut doc)),
                kind: kind.trim_end_matches(',').to_string(),
            });
        }
    }
    found
}

fn variants(lines: &[&str]) -> Vec<Variant> {
    let mut found: Vec<Variant> = Vec::new();
    let (mut doc, mut renamed, mut skipped) = (Vec::new(), None, false);
    let mut lines = lines.iter();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("///") {
            doc.push(comment.trim().to_string());
            continue;
        }
        if line.starts_with("#[") {
            skipped |= line == "#[serde(skip)]";
            renamed = line
                .split("rename = \"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            continue;
        }
        let name: String = line.chars().take_while(|c| c.is_alphanumeric()).collect();
        let holds = line
            .split('(')
            .nth(1)
            .and_then(|rest| rest.split(')').next());
        let body: Vec<&str> = match line.ends_with('{') {
            true => lines
                .by_ref()
                .take_while(|line| **line != "    },")
                .copied()
                .collect(),
            false => Vec::new(),
        };
        if std::mem::take(&mut skipped) {
            doc.clear();
            continue;
        }
        found.push(Variant {
            name: renamed.take().map_or_else(|| snake(&name), str::to_string),
            text: sentence(&std::mem::take(&mut doc)),
            fields: fields(&body, "        "),
            holds: holds.map(str::to_string),
        });
    }
    found
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// The rows of the reference: key, value, meaning.
struct Reference {
    items: Vec<Item>,
    rows: Vec<[String; 3]>,
}

impl Reference {
    /// The type a field means: in its own file, else in the crate and module that its file takes it from.
    fn item(&self, name: &str, from: &str) -> Option<&Item> {
        let named: Vec<&Item> = self.items.iter().filter(|item| item.name == name).collect();
        if let Some(here) = named.iter().find(|item| item.file == from) {
            return Some(here);
        }
        let text = fs::read_to_string(root().join(from)).unwrap();
        let uses = text.split(';').find_map(|statement| {
            let starts = [statement.find("\nuse "), statement.find("\npub use ")];
            let path = statement[starts.into_iter().flatten().min()?..]
                .split("use ")
                .nth(1)?;
            let mut words = path.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.any(|word| word == name).then_some(path)
        });
        let path: Vec<&str> = uses?.split("::").collect();
        let owner = match path[0] {
            named @ ("brian" | "brillm" | "train") => named,
            _ => from.split('/').next()?,
        };
        let of_owner = named
            .into_iter()
            .filter(|item| item.file.starts_with(&format!("{owner}/")));
        // Among several, the one whose file has the most of the path.
        of_owner.max_by_key(|item| {
            path.iter()
                .filter(|part| item.file.contains(**part))
                .count()
        })
    }

    fn add_families(&mut self, path: &str) {
        for [kind, text, config, file] in FAMILIES {
            let row = [format!("{path} = \"{kind}\""), String::new(), text.into()];
            self.rows.push(row);
            self.add_struct(path, config, file);
        }
    }

    fn add_struct(&mut self, path: &str, name: &str, from: &str) {
        if name == "ModelConfig" {
            return self.add_families(path);
        }
        let item = self
            .item(name, from)
            .unwrap_or_else(|| panic!("{name}, which {from} uses"));
        let file = item.file.clone();
        let Body::Struct(fields) = &item.body else {
            return self.add_variants(path, name, from);
        };
        let fields: Vec<[String; 3]> = described(fields);
        for [name, text, kind] in fields {
            self.add_field(&join(path, &name), &text, &kind, &file);
        }
    }

    fn add_field(&mut self, path: &str, text: &str, kind: &str, file: &str) {
        let (value, inner, is_list) = self.value(kind, file);
        self.rows.push([path.to_string(), value, text.to_string()]);
        if path == "loss" {
            self.add_losses();
        }
        if let Some(inner) = inner {
            let path = match (is_list, path) {
                (true, "stage") => "stage.NAME".to_string(),
                (true, path) => format!("{path}[]"),
                (false, path) => path.to_string(),
            };
            self.add_struct(&path, &inner, file);
        }
    }

    fn add_losses(&mut self) {
        for [name, text, config, file] in LOSSES {
            let path = join("loss", name);
            let value = "table; may be left out".to_string();
            self.rows.push([path.clone(), value, text.into()]);
            self.add_struct(&path, config, file);
        }
    }

    fn add_variants(&mut self, path: &str, name: &str, from: &str) {
        let item = self.item(name, from).unwrap();
        let file = item.file.clone();
        let Body::Enum(variants) = &item.body else {
            return;
        };
        let copy = |variant: &Variant| {
            let Variant {
                name, text, holds, ..
            } = variant;
            let fields: Vec<[String; 3]> = described(&variant.fields);
            (name.clone(), text.clone(), fields, holds.clone())
        };
        let variants: Vec<_> = variants.iter().map(copy).collect();
        for (name, text, fields, holds) in variants {
            self.rows
                .push([format!("{path} = \"{name}\""), String::new(), text]);
            for [field, text, kind] in fields {
                self.add_field(&join(path, &field), &text, &kind, &file);
            }
            if let Some(holds) = holds {
                self.add_struct(path, &holds, &file);
            }
        }
    }

    /// What a field takes, the type to go on with, and whether it is a list of them.
    fn value(&self, kind: &str, file: &str) -> (String, Option<String>, bool) {
        let inside = |kind: &'static str, found: &str| {
            let rest = found.strip_prefix(kind)?.strip_suffix('>')?;
            Some(rest.to_string())
        };
        if let Some(kind) = inside("Option<", kind) {
            let (value, inner, is_list) = self.value(&kind, file);
            return (format!("{value}; may be left out"), inner, is_list);
        }
        if let Some(kind) = inside("Vec<", kind) {
            let (value, inner, _) = self.value(&kind, file);
            return (format!("list: {value}"), inner, true);
        }
        let plain = match kind {
            "u8" | "u32" | "u64" | "usize" => "whole number",
            "f64" => "number",
            "[f64; 2]" => "two numbers",
            "bool" => "true, false",
            "String" => "text",
            "Tables" => "table of tables; may be left out",
            "PathBuf" => "path",
            kind if kind.starts_with("BTreeMap") => "table of keys and values",
            _ => "",
        };
        if !plain.is_empty() {
            return (plain.to_string(), None, false);
        }
        if kind == "ModelConfig" {
            let kinds = FAMILIES.map(|[kind, ..]| kind);
            assert_eq!(registry().kinds(), kinds);
            return (kinds.join(", "), Some(kind.to_string()), false);
        }
        let item = self
            .item(kind, file)
            .unwrap_or_else(|| panic!("{kind}, which {file} uses"));
        let value = match &item.body {
            Body::Struct(_) => "table".to_string(),
            Body::Enum(variants) => {
                let names: Vec<&str> = variants
                    .iter()
                    .map(|variant| variant.name.as_str())
                    .collect();
                names.join(", ")
            }
        };
        (value, Some(kind.to_string()), false)
    }
}

fn described(fields: &[Field]) -> Vec<[String; 3]> {
    let field = |field: &Field| [field.name.clone(), field.text.clone(), field.kind.clone()];
    fields.iter().map(field).collect()
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_string(),
        path => format!("{path}.{name}"),
    }
}

fn rows() -> Vec<[String; 3]> {
    let mut reference = Reference {
        items: ["brian/src", "brillm/src", "train/src"]
            .iter()
            .flat_map(|crate_| items(crate_))
            .collect(),
        rows: Vec::new(),
    };
    reference.add_struct("", "Recipe", "train/src/recipe/root.rs");
    reference.rows
}

fn page(rows: &[[String; 3]]) -> String {
    let mut text = HEAD.to_string();
    let mut section = "";
    for [key, value, meaning] in rows {
        let top = key.split(['.', ' ']).next().unwrap();
        if top != section {
            section = top;
            let _ = write!(
                text,
                "\n## {section}\n\n| key | value | meaning |\n|---|---|---|\n"
            );
        }
        let _ = writeln!(text, "| `{key}` | {value} | {meaning} |");
    }
    text
}

#[test]
fn the_reference_of_recipes_is_what_their_types_say() {
    let rows = rows();
    for [key, _, meaning] in &rows {
        assert!(!meaning.is_empty(), "{key} has no comment");
    }
    let (path, made) = (root().join("docs/recipe.md"), page(&rows));
    if std::env::var_os("NERVE_WRITE_REFERENCE").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = made
        .lines()
        .zip(found.lines())
        .find(|(made, found)| made != found);
    assert!(
        found == made,
        "docs/recipe.md is old: {differs:?}; see the head of {}",
        file!()
    );
}

#[test]
fn every_key_of_every_bundled_recipe_is_in_the_reference() {
    let known: BTreeSet<String> = rows().into_iter().map(|[key, _, _]| key).collect();
    for bundled in BUNDLED {
        let recipe: toml::Table = bundled.text.parse().unwrap();
        for key in keys("", &toml::Value::Table(recipe)) {
            assert!(
                known.contains(&key),
                "{}/{}: {key}",
                bundled.kind,
                bundled.size
            );
        }
    }
}

/// The keys of a file, as the reference writes them; `kind` belongs to the key above it.
fn keys(path: &str, value: &toml::Value) -> Vec<String> {
    match value {
        toml::Value::Table(table) => {
            let entries = table.iter().filter(|(name, _)| *name != "kind");
            let below = entries.flat_map(|(name, value)| {
                let path = join(path, name);
                [vec![path.clone()], keys(&path, value)].concat()
            });
            below.collect()
        }
        toml::Value::Array(elements) => {
            let path = match path {
                "stage" => "stage.NAME".to_string(),
                path => format!("{path}[]"),
            };
            elements
                .iter()
                .flat_map(|element| keys(&path, element))
                .collect()
        }
        _ => Vec::new(),
    }
}
