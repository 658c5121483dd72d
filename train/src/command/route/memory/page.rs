//! A report on reads of the memory as one self-contained HTML page: a map for every sequence, and its reads as a list.

use super::picture::map;
use super::report::{MemoryReport, ReadSequence, ShownRead, percent};
use crate::command::markup::document;
use crate::escape::xml;

const STYLE: &str = "
details { border-top: 1px solid #8886; padding: .4rem 0; } summary { cursor: pointer; }
td.text { font-family: monospace; white-space: pre-wrap; }
";

/// The HTML page of a report.
pub fn page(report: &MemoryReport) -> String {
    let mut page = format!(
        "<p>What tokens read from the memory {}: of every read the {} largest shares of attention.</p><table>",
        xml(report.kind),
        report.top
    );
    for [name, value] in report.numbers() {
        page += &format!("<tr><td>{}</td><td>{}</td></tr>", xml(&name), xml(&value));
    }
    page += "</table>";
    page.extend(report.sequences.iter().enumerate().map(of_sequence));
    page.extend(report.more_sequences().map(paragraph));
    document(&report.title, STYLE, &page)
}

fn of_sequence((index, sequence): (usize, &ReadSequence)) -> String {
    let reads: Vec<&ShownRead> = sequence.of_something().collect();
    let mut text = format!(
        "<h2>Sequence {index}</h2><div class=\"scroll\">{}</div>",
        map(sequence)
    );
    text.extend(sequence.notes(reads.len()).into_iter().map(paragraph));
    text += &format!("<details><summary>{} reads</summary><table>", reads.len());
    text += "<tr><th>token</th><th>read</th><th>of memory</th><th>shares</th></tr>";
    text.extend(reads.iter().map(|read| row(sequence, read)));
    text + "</table></details>"
}

fn row(sequence: &ReadSequence, read: &ShownRead) -> String {
    let shares = read.shares.iter();
    let mut shares: Vec<String> = shares
        .map(|share| format!("{} {}", percent(share.share), sequence.source(share)))
        .collect();
    if read.n_left_out > 0 {
        let (n, sum) = (read.n_left_out, percent(read.left_out));
        shares.push(format!("{sum} {n} more"));
    }
    let (name, shares) = (xml(&sequence.name(read.token)), xml(&shares.join(", ")));
    let (place, mass) = (read.place(), percent(read.of_memory));
    format!(
        "<tr><td class=\"text\">{name}</td><td>{place}</td><td>{mass}</td><td class=\"text\">{shares}</td></tr>"
    )
}

fn paragraph(text: String) -> String {
    format!("<p>{}</p>", xml(&text))
}
