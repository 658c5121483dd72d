//! A route report as one self-contained HTML page: no network, no script.

use super::picture::{colour, flow};
use super::report::{NOTE, RouteReport, ShownToken, name, short_name};
use crate::command::markup::document;
use crate::escape::xml;
use brian::route::action::Action;
use std::fmt::Write;

const STYLE: &str = "
.bar { display: inline-block; height: .8rem; vertical-align: middle; }
.sequence { display: flex; flex-wrap: wrap; gap: 2px; margin: 1rem 0; }
.token { display: flex; flex-direction: column; align-items: center; min-width: 1.1rem; }
.text { font-family: monospace; white-space: pre; }
.cell { width: 100%; text-align: center; font-size: .65rem; color: #fff; line-height: 1rem; }
.warning { border-left: 4px solid #D55E00; padding-left: .6rem; }
";

/// The HTML page of a report.
pub fn page(report: &RouteReport) -> String {
    let counts = &report.counts;
    let mut page = format!(
        "<p>{} tokens, a pool of {} blocks, at most {} steps.</p>",
        counts.tokens, counts.n_pool, counts.max_steps
    );
    for warning in report.warnings() {
        let _ = write!(page, "<p class=\"warning\">{}</p>", xml(&warning));
    }
    page += "<h2>What it gave and cost</h2>";
    page += &table([report.costs(), report.rates()].concat());
    let _ = write!(page, "<p>{NOTE}</p>");
    page += "<h2>Where tokens go</h2><div class=\"scroll\">";
    page += &flow(counts);
    page += "</div>";
    page += &bars("Executions per block", &counts.load, 0, |block| {
        colour(Action::Block(block))
    });
    page += &bars("Step at which tokens leave", &counts.exits, 1, |_| {
        colour(Action::Out)
    });
    page += "<h2>Most frequent paths</h2><table>";
    for (path, share) in report.top_paths(20) {
        let path: Vec<String> = path.iter().copied().map(name).collect();
        let _ = write!(
            page,
            "<tr><td>{:.2} %</td><td>{}</td></tr>",
            100.0 * share,
            path.join(" ")
        );
    }
    page += "</table><h2>Moves from block (row) to block (column), %</h2><table><tr><th></th>";
    (0..counts.n_pool).for_each(|block| {
        let _ = write!(page, "<th>{block}</th>");
    });
    page += "</tr>";
    for (block, shares) in report.moves().into_iter().enumerate() {
        let cells = shares.iter().map(|share| format!("<td>{share}</td>"));
        let cells = cells.collect::<String>();
        let _ = write!(page, "<tr><th>{block}</th>{cells}</tr>");
    }
    page += "</table>";
    let memory = report.memory();
    if !memory.is_empty() {
        page += "<h2>Reads of the memory; slots by age, 0 the newest</h2>";
        page += &table(memory);
    }
    page += "<h2>Token by token</h2>";
    for sequence in &report.sequences {
        page += "<div class=\"sequence\">";
        sequence
            .iter()
            .for_each(|token| page += &cells(token, counts.n_pool));
        page += "</div>";
    }
    page += "<h2>All rates</h2>";
    let all = counts.named(true).into_iter();
    page += &table(
        all.map(|(name, value)| [name, format!("{value:.4}")])
            .collect(),
    );
    document(&report.title, STYLE, &page)
}

fn table(rows: Vec<[String; 2]>) -> String {
    let row = |[name, value]: &[String; 2]| {
        format!("<tr><td>{}</td><td>{}</td></tr>", xml(name), xml(value))
    };
    format!(
        "<table>{}</table>",
        rows.iter().map(row).collect::<String>()
    )
}

fn bars(title: &str, counts: &[u64], first: usize, colour: impl Fn(usize) -> String) -> String {
    let total = counts.iter().sum::<u64>().max(1) as f64;
    let mut text = format!("<h2>{title}</h2><table>");
    for (index, &count) in counts.iter().enumerate() {
        let share = 100.0 * count as f64 / total;
        let _ = write!(
            text,
            "<tr><td>{}</td><td>{share:.1} %</td><td><span class=\"bar\" style=\"width:{:.1}rem;background:{}\"></span></td></tr>",
            index + first,
            share * 0.3,
            colour(index),
        );
    }
    text + "</table>"
}

fn cells(token: &ShownToken, n_pool: usize) -> String {
    let mut text = format!(
        "<div class=\"token\"><span class=\"text\">{}</span>",
        xml(&token.text)
    );
    for (step, &action) in token.actions.iter().enumerate() {
        let thought = token
            .probabilities
            .get(step)
            .and_then(|step| step.get(action.index(n_pool)));
        let hint = thought.map_or(String::new(), |p| format!(" title=\"p = {p:.3}\""));
        let _ = write!(
            text,
            "<span class=\"cell\" style=\"background:{}\"{hint}>{}</span>",
            colour(action),
            short_name(action),
        );
    }
    text + "</div>"
}

#[cfg(test)]
mod tests {
    use super::super::report::Passes;
    use super::super::report::tests::report;
    use crate::command::markup::tests::{HOSTILE, parsed};

    #[test]
    fn every_step_of_every_token_is_a_cell() {
        let report = report(["a", "b", "c", "d"]);
        let steps: usize = report
            .sequences
            .concat()
            .iter()
            .map(|token| token.actions.len())
            .sum();
        assert_eq!(report.html().matches("class=\"cell\"").count(), steps);
    }

    #[test]
    fn every_number_of_the_text_is_on_the_page() {
        let mut report = report(["a", "b", "c", "d"]);
        report.passes = Passes {
            nats: 5.0,
            targets: 4,
            flops: Some(300.0),
            tokens: 4,
            baseline_flops: 400.0,
        };
        let (text, page) = (report.terminal(100, 4), report.html());
        assert!(
            text.contains("flops_share_of_all_blocks_in_a_row      0.7500\n"),
            "{text}"
        );
        let is_number = |word: &&str| word.contains('.') && word.parse::<f64>().is_ok();
        let numbers: Vec<&str> = text.split_whitespace().filter(is_number).collect();
        assert!(numbers.len() > 20, "{text}");
        for number in numbers {
            assert!(page.contains(number), "{number} of {text}");
        }
    }

    #[test]
    fn page_and_picture_are_xml_whatever_tokens_say() {
        let report = report(HOSTILE);
        for document in [report.html(), report.svg()] {
            parsed(&document).unwrap_or_else(|wrong| panic!("{wrong}: {document}"));
        }
    }

    #[test]
    fn text_stays_text_and_every_tag_is_closed() {
        let page = report(["<script>alert(1)</script>", "\x1b[31m", "\"", "&"]).html();
        assert!(!page.contains("<script") && !page.contains('\x1b'));
        for tag in [
            "html", "body", "table", "div", "span", "svg", "path", "title", "h2", "tr", "td",
        ] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert!(
            !page.contains("http") || page.matches("http").count() == 1,
            "only the name of SVG"
        );
    }
}
