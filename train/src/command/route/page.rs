//! A route report as one self-contained HTML page: no network, no script.

use super::picture::{colour, flow};
use super::report::{NOTE, RouteReport, ShownToken, mark, name, rows};
use crate::command::markup::document;
use crate::escape::xml;
use brian::route::action::Action;

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
        page += &format!("<p class=\"warning\">{}</p>", xml(&warning));
    }
    page += "<h2>What it gave and cost</h2>";
    page += &table([report.costs(), report.rates()].concat());
    page += &format!(
        "<p>{NOTE}</p><h2>Where tokens go</h2><div class=\"scroll\">{}</div>",
        flow(counts)
    );
    let n_pool = counts.n_pool;
    let of_block = |block| colour(Action::Block(block));
    page += &bars("Executions per block", &counts.load, 0, of_block);
    let of_out = |_| colour(Action::Out);
    page += &bars("Step at which tokens leave", &counts.exits, 1, of_out);
    page += "<h2>Most frequent paths</h2>";
    let path = |(path, share): (Vec<Action>, f64)| {
        let path = path.into_iter().map(name).collect::<Vec<_>>().join(" ");
        [format!("{:.2} %", 100.0 * share), path]
    };
    page += &table(report.top_paths(20).into_iter().map(path).collect());
    page += "<h2>Moves from block (row) to block (column), %</h2><table><tr><th></th>";
    page.extend((0..n_pool).map(|block| format!("<th>{block}</th>")));
    page += "</tr>";
    for (block, shares) in report.moves().into_iter().enumerate() {
        let cells = shares.iter().map(|share| format!("<td>{share}</td>"));
        page += &format!("<tr><th>{block}</th>{}</tr>", cells.collect::<String>());
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
        page.extend(sequence.iter().map(|token| cells(token, n_pool)));
        page += "</div>";
    }
    page += "<h2>All rates</h2>";
    page += &table(rows(counts.named(true)));
    document(&report.title, STYLE, &page)
}

fn table(rows: Vec<[String; 2]>) -> String {
    let row = |[name, value]: [String; 2]| {
        format!("<tr><td>{}</td><td>{}</td></tr>", xml(&name), xml(&value))
    };
    let rows: String = rows.into_iter().map(row).collect();
    format!("<table>{rows}</table>")
}

fn bars(title: &str, counts: &[u64], first: usize, colour: impl Fn(usize) -> String) -> String {
    let total = counts.iter().sum::<u64>().max(1) as f64;
    let mut text = format!("<h2>{title}</h2><table>");
    for (index, &count) in counts.iter().enumerate() {
        let share = 100.0 * count as f64 / total;
        let (name, width, colour) = (index + first, share * 0.3, colour(index));
        text += &format!(
            "<tr><td>{name}</td><td>{share:.1} %</td><td><span class=\"bar\" style=\"width:{width:.1}rem;background:{colour}\"></span></td></tr>"
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
        let thought = token.probabilities.get(step);
        let thought = thought.and_then(|step| step.get(action.index(n_pool)));
        let hint = thought.map_or(String::new(), |p| format!(" title=\"p = {p:.3}\""));
        let (colour, name) = (colour(action), mark(action));
        text += &format!("<span class=\"cell\" style=\"background:{colour}\"{hint}>{name}</span>");
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
