//! `Specials`: the ids that begin, end and fill up documents or stand for what is unknown; found by their names among the
//! added tokens, or read from the file where it says them itself, under [`KEY`].

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The key of a file's first added token that says the special tokens: the library, in Python too, leaves unknown keys alone
/// there and refuses them everywhere else.
pub(super) const KEY: &str = "nerve_specials";

/// What the start symbol is called. `[CLS]` counts too, where the file's template puts it in front.
const BEGINS: [&str; 6] = [
    "<s>",
    "<|begin_of_text|>",
    "<bos>",
    "<|startoftext|>",
    "[BOS]",
    "<|bos|>",
];
/// What ends a document, the first that there is. `[SEP]` counts too, where the file's template puts it behind.
const ENDS: [&str; 7] = [
    "</s>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<eos>",
    "[EOS]",
    "<|eos|>",
    "<|im_end|>",
];
/// What else ends a document or a turn, so that no text is drawn beyond it.
const OTHER_ENDS: [&str; 4] = ["<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "[SEP]"];
const PADS: [&str; 5] = [
    "[PAD]",
    "<pad>",
    "<|pad|>",
    "<|finetune_right_pad_id|>",
    "<|padding|>",
];
const UNKNOWNS: [&str; 3] = ["<unk>", "[UNK]", "<|unk|>"];

/// The ids of the special tokens. Our own tokenizers have all of them; others may have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specials {
    /// `<s>`
    pub begin: Option<u32>,
    /// `</s>`
    pub end: Option<u32>,
    /// `<pad>`
    pub pad: Option<u32>,
    /// `<unk>`
    pub unknown: Option<u32>,
}

impl Specials {
    /// The texts of our own special tokens, in the order of the fields.
    pub const TEXTS: [&'static str; 4] = ["<s>", "</s>", "<pad>", "<unk>"];

    /// The start symbol, put before a document as context: `<s>`, else the symbol that ends documents; `None` without either.
    pub fn start_symbol(&self) -> Option<u32> {
        self.begin.or(self.end)
    }

    /// Every id with its name.
    pub(in crate::data) fn named(&self) -> [(&'static str, Option<u32>); 4] {
        [
            ("begin", self.begin),
            ("end", self.end),
            ("pad", self.pad),
            ("unknown", self.unknown),
        ]
    }

    /// Those of added tokens (text and id) by their names. `first` and `last` are those that the file's template puts around
    /// a text; `unknown` is what the model itself calls so.
    pub(super) fn by_name(
        added: &[(&str, u32)],
        (first, last): (Option<&str>, Option<&str>),
        unknown: Option<u32>,
    ) -> (Self, Vec<u32>) {
        let id = |name: &&str| {
            let named = added.iter().find(|(text, _)| text == name);
            named.map(|(_, id)| *id)
        };
        let first_of = |names: &[&str]| names.iter().find_map(id);
        // BERT's symbols bound its texts only if the template says so: other files have them and never use them.
        let around = |symbol: Option<&str>, name| symbol.filter(|it| *it == name).and(id(&name));
        let specials = Self {
            begin: first_of(&BEGINS).or_else(|| around(first, "[CLS]")),
            end: first_of(&ENDS).or_else(|| around(last, "[SEP]")),
            pad: first_of(&PADS),
            unknown: unknown.or_else(|| first_of(&UNKNOWNS)),
        };
        let ends = ENDS.iter().chain(&OTHER_ENDS).filter_map(id);
        (specials, specials.with_ends(ends))
    }

    /// Every id that ends a document, rising.
    fn with_ends(&self, others: impl Iterator<Item = u32>) -> Vec<u32> {
        let mut ends: Vec<u32> = self.end.into_iter().chain(others).collect();
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// As the file says them under [`KEY`]; the error is what should be there.
    pub(super) fn said(value: &Value) -> Result<(Self, Vec<u32>), String> {
        let expected = "begin, pad and unknown (an id or null) and end (a list of ids, first the one behind documents)";
        let Said {
            begin,
            end,
            pad,
            unknown,
        } = serde_json::from_value(value.clone()).map_err(|_| expected.to_string())?;
        let specials = Self {
            begin,
            end: end.first().copied(),
            pad,
            unknown,
        };
        Ok((specials, specials.with_ends(end.into_iter())))
    }

    /// A file that says these specials and otherwise the same, written anew; `None` if it has no added token to say them in.
    pub(super) fn written_to(&self, ends: &[u32], file: &[u8]) -> Option<Vec<u8>> {
        let others = ends.iter().copied().filter(|id| Some(*id) != self.end);
        let end: Vec<u32> = self.end.into_iter().chain(others).collect();
        let (begin, pad, unknown) = (self.begin, self.pad, self.unknown);
        let mut file: Value = serde_json::from_slice(file).ok()?;
        let first = file.pointer_mut("/added_tokens/0")?.as_object_mut()?;
        let said = json!({ "begin": begin, "end": end, "pad": pad, "unknown": unknown });
        first.insert(KEY.to_string(), said);
        Some(file.to_string().into_bytes())
    }
}

/// What a file says under [`KEY`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    begin: Option<u32>,
    end: Vec<u32>,
    pad: Option<u32>,
    unknown: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_begins_behind_its_own_symbol_or_behind_the_end_of_another() {
        let of = |begin, end| Specials {
            begin,
            end,
            pad: Some(7),
            unknown: Some(8),
        };
        assert_eq!(of(Some(5), Some(6)).start_symbol(), Some(5));
        assert_eq!(of(None, Some(6)).start_symbol(), Some(6));
        assert_eq!(of(None, None).start_symbol(), None);
    }

    #[test]
    fn specials_are_found_by_the_names_that_others_give_them() {
        let none = (None, None);
        let of = |added: &[(&str, u32)], template, unknown| {
            let (specials, ends) = Specials::by_name(added, template, unknown);
            let Specials {
                begin,
                end,
                pad,
                unknown,
            } = specials;
            (begin, end, pad, unknown, ends)
        };
        let llama = [
            ("<|begin_of_text|>", 10),
            ("<|end_of_text|>", 11),
            ("<|eot_id|>", 12),
        ];
        assert_eq!(
            of(&llama, none, None),
            (Some(10), Some(11), None, None, vec![11, 12])
        );
        let qwen = [("<|endoftext|>", 5), ("<|im_start|>", 6), ("<|im_end|>", 7)];
        assert_eq!(
            of(&qwen, none, None),
            (None, Some(5), None, None, vec![5, 7])
        );
        let ours = [("<s>", 0), ("</s>", 1), ("<pad>", 2), ("<unk>", 3)];
        assert_eq!(
            of(&ours, none, Some(9)),
            (Some(0), Some(1), Some(2), Some(9), vec![1])
        );
        let bert = [("[PAD]", 0), ("[UNK]", 1), ("[CLS]", 2), ("[SEP]", 3)];
        let template = (Some("[CLS]"), Some("[SEP]"));
        assert_eq!(
            of(&bert, template, None),
            (Some(2), Some(3), Some(0), Some(1), vec![3])
        );
        assert_eq!(
            of(&bert, none, None),
            (None, None, Some(0), Some(1), vec![3])
        );
        assert_eq!(of(&[], template, None), (None, None, None, None, vec![]));
    }

    #[test]
    fn a_file_says_its_specials_once_and_is_otherwise_unchanged() {
        let specials = Specials {
            begin: Some(1),
            end: Some(2),
            pad: None,
            unknown: Some(0),
        };
        let file = b"{\"added_tokens\": [{\"id\": 1}], \"x\": 0.1}";
        let once = specials.written_to(&[2, 5], file).unwrap();
        let value: Value = serde_json::from_slice(&once).unwrap();
        let said = &value["added_tokens"][0][KEY];
        assert_eq!(Specials::said(said), Ok((specials, vec![2, 5])));
        assert_eq!(
            (&value["x"], &value["added_tokens"][0]["id"]),
            (&json!(0.1), &json!(1))
        );
        let other = Specials {
            end: Some(5),
            ..specials
        };
        let twice = other.written_to(&[2, 5], &once).unwrap();
        assert_eq!(specials.written_to(&[2, 5], &twice).unwrap(), once);
        assert!(
            specials
                .written_to(&[], b"{\"added_tokens\": []}")
                .is_none()
        );
        assert!(Specials::said(&json!({"end": [1], "stop": 2})).is_err());
        assert!(Specials::said(&json!({"begin": 1.5, "end": []})).is_err());
    }
}
