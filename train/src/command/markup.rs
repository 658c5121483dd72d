//! Self-contained HTML pages, and writing pages to files. Every page parses as XML.

use crate::error::Error;
use crate::escape;
use crate::say::note;
use std::fs;
use std::path::PathBuf;

const STYLE: &str = "
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; } td, th { padding: .1rem .8rem .1rem 0; text-align: left; overflow-wrap: normal; }
.scroll { overflow-x: auto; }
";

/// A whole page; `body` is markup, `title` is text.
pub fn document(title: &str, style: &str, body: &str) -> String {
    let title = escape::xml(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/><title>{title}</title>\
         <style>{STYLE}{style}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    )
}

/// Writes the content to a file, if one is named, and prints a note.
///
/// # Errors
/// `Resource` if the file cannot be written.
pub fn write(path: Option<&PathBuf>, content: impl FnOnce() -> String) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, content()).map_err(|cause| Error::resource(path, "write", cause))?;
    note(&format!("wrote {}", path.display()));
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::escape::xml;
    use xml::reader::{EventReader, XmlEvent};

    /// What a page or a picture would like to smuggle in.
    pub const HOSTILE: [&str; 4] = [
        "<script>alert('1')</script>&nbsp;]]>",
        "\x1b[31m\u{9b}2J\0\u{1f}\u{7f}\r\n\t",
        "\" onload=\"x\u{202e}\u{2066}\u{feff}",
        "\u{fffe}\u{ffff}\u{2028}&#27;<!-- -->",
    ];

    /// The text of a document, if all of it is XML.
    pub fn parsed(document: &str) -> Result<String, String> {
        let mut text = String::new();
        let (mut depth, mut roots) = (0, 0);
        for event in EventReader::from_str(document) {
            match event.map_err(|error| error.to_string())? {
                XmlEvent::StartElement { .. } => {
                    roots += usize::from(depth == 0);
                    depth += 1;
                }
                XmlEvent::EndElement { .. } => depth -= 1,
                XmlEvent::Characters(part) | XmlEvent::Whitespace(part) => text += &part,
                _ => {}
            }
        }
        // The reader takes several documents for one.
        match roots {
            1 => Ok(text),
            _ => Err(format!("{roots} roots")),
        }
    }

    #[test]
    fn the_judge_is_strict() {
        for wrong in [
            "<a>&nbsp;</a>",
            "<a><br></a>",
            "<a b=c></a>",
            "<a>\x1b</a>",
            "<a>\u{ffff}</a>",
            "<a>&</a>",
            "<a></a><b></b>",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_page_is_xml_whatever_its_title_and_text() {
        for text in HOSTILE {
            let body = format!("<p title=\"{0}\">{0}</p>", xml(text));
            let page = document(text, "p { color: red; }", &body);
            parsed(&page).unwrap_or_else(|wrong| panic!("{text:?}: {wrong}"));
        }
        let shown = parsed(&document(HOSTILE[0], "", "")).unwrap();
        // As title and as heading.
        assert_eq!(shown.matches(HOSTILE[0]).count(), 2, "{shown}");
    }
}
