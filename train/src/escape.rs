//! Escapes untrusted text (of users, models and files) for output to a terminal, a page or picture, or JSON.
//!
//! Control characters, which begin escape sequences of terminals, and characters that change the direction of text are
//! replaced by visible marks: `␛` for ESC, `\u{202e}` where there is no symbol.

/// Escapes text for one line of a terminal; line ends are replaced too.
pub fn terminal(text: &str) -> String {
    text.chars().map(Seen::in_line).fold(String::new(), add)
}

/// Escapes text for a terminal; its line ends and tabs are kept.
pub fn terminal_lines(text: &str) -> String {
    let seen = |character| match character {
        '\n' | '\t' => Seen::Itself(character),
        character => Seen::in_line(character),
    };
    text.chars().map(seen).fold(String::new(), add)
}

/// Escapes text for HTML and SVG, as content and in quoted attributes. Both are XML and hold only what XML 1.0 allows.
pub fn xml(text: &str) -> String {
    let seen = |character| match character {
        '&' => Seen::As("&amp;"),
        '<' => Seen::As("&lt;"),
        '>' => Seen::As("&gt;"),
        '"' => Seen::As("&quot;"),
        '\'' => Seen::As("&#39;"),
        '\u{fffe}' | '\u{ffff}' => Seen::Number(character),
        character => Seen::in_line(character),
    };
    text.chars().map(seen).fold(String::new(), add)
}

/// Escapes JSON text: the same value, without control characters of terminals.
pub fn json(written: &str) -> String {
    let mut text = String::with_capacity(written.len());
    for character in written.chars() {
        match Seen::in_line(character) {
            Seen::Number(character) => {
                let mut units = [0; 2];
                let units = character.encode_utf16(&mut units).iter();
                text.extend(units.map(|unit| format!("\\u{unit:04x}")));
            }
            // JSON writes the other controls as escapes itself; its own ends of lines stand between values.
            _ if character == '\u{7f}' => text += "\\u007f",
            _ => text.push(character),
        }
    }
    text
}

/// How a character is shown.
enum Seen {
    Itself(char),
    As(&'static str),
    /// By its number.
    Number(char),
}

impl Seen {
    fn in_line(character: char) -> Self {
        match character {
            '\n' => Self::As("⏎"),
            '\t' => Self::As("⇥"),
            // Unicode has a picture of each of the 32 oldest controls, and of DEL.
            '\0'..='\u{1f}' => {
                Self::Itself(char::from_u32(0x2400 + u32::from(character)).unwrap_or('?'))
            }
            '\u{7f}' => Self::As("␡"),
            '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => Self::Number(character),
            // Marks, embeddings, overrides and isolates of direction.
            '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => Self::Number(character),
            character => Self::Itself(character),
        }
    }
}

fn add(mut text: String, seen: Seen) -> String {
    match seen {
        Seen::Itself(character) => text.push(character),
        Seen::As(mark) => text += mark,
        Seen::Number(character) => text += &format!("\\u{{{:x}}}", u32::from(character)),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\x1b[2J\u{9b}31m\u{202e}b\u{2066}\u{200f}\0\x7f\r\n\t\"'&<>\u{fffe}罗";

    #[test]
    fn a_terminal_obeys_nothing_and_nothing_is_lost() {
        let line = "a␛[2J\\u{9b}31m\\u{202e}b\\u{2066}\\u{200f}␀␡␍⏎⇥\"'&<>\u{fffe}罗";
        assert_eq!(terminal(HOSTILE), line);
        let lines = line.replace('⏎', "\n").replace('⇥', "\t");
        assert_eq!(terminal_lines(HOSTILE), lines);
        assert_eq!(terminal("e\u{301} 罗 👍🏽"), "e\u{301} 罗 👍🏽");
    }

    #[test]
    fn a_page_holds_only_what_xml_allows() {
        let page =
            "a␛[2J\\u{9b}31m\\u{202e}b\\u{2066}\\u{200f}␀␡␍⏎⇥&quot;&#39;&amp;&lt;&gt;\\u{fffe}罗";
        assert_eq!(xml(HOSTILE), page);
    }

    #[test]
    fn json_keeps_its_values_and_shows_no_control() {
        let value = serde_json::json!({ "text": HOSTILE, "list": [1, 2] });
        let written = json(&format!("{value:#}"));
        assert!(written.chars().all(|c| c == '\n' || !c.is_control()));
        assert!(!written.contains(['\u{202e}', '\u{2066}', '\u{200f}']));
        let read: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(read, value);
    }

    #[test]
    fn of_all_characters_only_those_that_act_are_marked() {
        // Controls, ends of lines and paragraphs, and whatever turns the direction of a line (Unicode's Bidi_Control).
        let acts = |c: char| {
            let turns = ['\u{61c}', '\u{200e}', '\u{200f}'].contains(&c)
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c);
            c.is_control() || c == '\u{2028}' || c == '\u{2029}' || turns
        };
        for character in ('\0'..='\u{ffff}').chain(['👍', char::MAX]) {
            let text = character.to_string();
            let shown = terminal(&text);
            assert_eq!(
                shown != text,
                acts(character),
                "{:#x}",
                u32::from(character)
            );
            assert!(!shown.contains(acts), "{:#x}", u32::from(character));
            let is_layout = ['\n', '\t'].contains(&character);
            let of_lines = if is_layout { &text } else { &shown };
            assert_eq!(terminal_lines(&text), *of_lines);
        }
        // Unicode's pictures stand in the order of the controls.
        assert_eq!(terminal("\0\u{1}\u{1f}\u{7f}\u{85}"), "␀␁␟␡\\u{85}");
    }
}
