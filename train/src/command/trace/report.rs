//! `TraceReport`: all results of a trace, put together as text for a terminal, as JSON, as one HTML page and as SVG.

use super::ablation::Ablation;
use super::card::EdgeCard;
use super::comparison::Comparison;
use super::names::Names;
use super::picture::{MOST_STEPS, map};
use super::raised::Raised;
use super::table::Table;
use super::{contributions, steps};
use crate::command::markup::document;
use crate::escape::{terminal, xml};
use brillm::explain::TracedStep;
use serde_json::{Value, json};

const STYLE: &str = "
.number { text-align: right; font-variant-numeric: tabular-nums; } .text { font-family: monospace; white-space: pre; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; } details { border-top: 1px solid #8886; padding: .4rem 0; }
summary { cursor: pointer; }
";

/// The results of a trace.
#[derive(Clone, Debug, Default)]
pub struct TraceReport {
    /// The run's name, the stage and the step.
    pub run: (String, String, u64),
    /// Replacements of edges that hold for the whole report.
    pub edits: Vec<String>,
    /// The text, and its tokens, if there is one.
    pub text: Option<(String, Vec<u32>)>,
    /// One step per token.
    pub steps: Vec<TracedStep>,
    /// What the replacements did to the text.
    pub edited: Option<Comparison>,
    /// The text with what-if changes.
    pub what_ifs: Vec<Comparison>,
    /// Facts about edges.
    pub edges: Vec<EdgeCard>,
    /// Ablations of edges.
    pub ablations: Vec<Ablation>,
    /// Edges that were only raised, if requested.
    pub raised: Option<Raised>,
    /// The number of lines of a list.
    pub top: usize,
}

impl TraceReport {
    fn title(&self) -> String {
        let (run, stage, step) = &self.run;
        format!("{}, stage {}, step {step}", terminal(run), terminal(stage))
    }

    /// The report for a terminal.
    pub fn terminal(&self, names: &Names<'_>) -> String {
        let mut parts = vec![self.title() + "\n"];
        let edits = self.edits.iter().map(|edit| terminal(edit));
        parts.extend(edits.map(|edit| format!("in memory only: {edit}\n")));
        if self.text.is_some() {
            parts.push(steps::overview(&self.steps, names).text());
        }
        for step in &self.steps {
            let tables = self.of_step(step, names, 1).into_iter();
            parts.extend(tables.map(|table| table.text()));
        }
        parts.extend(self.others(names).iter().map(Table::text));
        parts.join("\n")
    }

    /// What competed, and how energies came about: of the truth, then of the best if it is another; of the best at the end.
    fn of_step(&self, step: &TracedStep, names: &Names<'_>, energies: usize) -> Vec<Table> {
        let tokens = self.text.as_ref().map_or(&[][..], |(_, tokens)| tokens);
        let mut tables = vec![steps::candidates(step, names)];
        let shown = step.attributions.iter().take(energies);
        tables.extend(shown.map(|a| contributions::table(step, a, tokens, names, self.top)));
        tables
    }

    /// All but the steps.
    fn others(&self, names: &Names<'_>) -> Vec<Table> {
        let compared = self.edited.iter().chain(&self.what_ifs);
        let mut tables: Vec<Table> = compared.map(|comparison| comparison.table(names)).collect();
        tables.extend(self.edges.iter().map(|edge| edge.table(names)));
        tables.extend(self.ablations.iter().map(|ablation| ablation.table(names)));
        tables.extend(self.raised.iter().map(|raised| raised.table(names)));
        tables
    }

    /// The report as JSON.
    pub fn json(&self, names: &Names<'_>) -> Value {
        let (run, stage, step) = &self.run;
        let compared = |comparison: &Comparison| comparison.json(names);
        let mut object = json!({
            "schema": 1,
            "run": run,
            "stage": stage,
            "step": step,
            "edits": self.edits,
            "set_edge": self.edited.as_ref().map(compared),
            "what_if": self.what_ifs.iter().map(compared).collect::<Value>(),
            "edges": self.edges.iter().map(|edge| edge.json(names)).collect::<Value>(),
            "ablations": self.ablations.iter().map(|ablation| ablation.json(names)).collect::<Value>(),
            "positive_only": self.raised.as_ref().map(|raised| raised.json(names)),
        });
        if let Some((text, tokens)) = &self.text {
            let token = |(place, &id): (usize, &u32)| json!({ "position": place + 1, "id": id, "token": names.of(id) });
            let steps = self.steps.iter().map(|step| steps::json(step, names));
            object["text"] = json!(text);
            object["tokens"] = tokens.iter().enumerate().map(token).collect();
            object["loss"] = json!(steps::loss(&self.steps));
            object["steps"] = steps.collect();
        }
        object
    }

    /// The report as one self-contained HTML page.
    pub fn html(&self, names: &Names<'_>) -> String {
        let mut page = String::new();
        for edit in &self.edits {
            page += &format!("<p>In memory only: {}</p>", xml(edit));
        }
        if let Some((text, _)) = &self.text {
            page += &format!("<p>“{}”</p>", xml(text));
            page += "<h2>What earlier positions contributed</h2>\
                     <p>By integrated gradients, to the energy of the token that came next, or of the best one after the last. \
                     A row sums to that energy.</p><div class=\"scroll\">";
            page += &self.svg(names);
            page += "</div><h2>The signal</h2>";
            page += &steps::overview(&self.steps, names).html();
            for step in self.steps.iter().take(MOST_STEPS) {
                let (position, name) = (step.position + 1, xml(names.of(step.token)));
                page += &format!("<details><summary>step {position} at {name}</summary>");
                page.extend(self.of_step(step, names, 2).iter().map(Table::html));
                page += "</details>";
            }
            if self.steps.len() > MOST_STEPS {
                page += &format!("<p>The first {MOST_STEPS} steps are drawn; --json has all.</p>");
            }
        }
        page.extend(self.others(names).iter().map(Table::html));
        document(&self.title(), STYLE, &page)
    }

    /// The map of contributions, as a standalone SVG.
    pub fn svg(&self, names: &Names<'_>) -> String {
        map(&self.steps, names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::markup::tests::{HOSTILE, parsed};
    use crate::command::trace::table::Column;
    use crate::data::{Kind, Tokenizer};

    #[test]
    fn pages_are_xml_and_terminals_obey_nothing_whatever_texts_say() {
        let texts = HOSTILE.iter().map(|text| Ok(text.to_string()));
        let tokenizer = Tokenizer::train(Kind::Character, texts, None).unwrap();
        let names = Names::new(&tokenizer);
        let all = HOSTILE.concat();
        let report = TraceReport {
            run: (all.clone(), all.clone(), 1),
            edits: vec![all.clone()],
            text: Some((all.clone(), Vec::new())),
            ..TraceReport::default()
        };
        let mut table = Table::new(all.clone(), &[Column::Token("token")]);
        for id in 0..tokenizer.vocabulary_size() as u32 {
            table.row([names.of(id).to_string()]);
        }
        table.row([all]);
        let table_page = document("table", "", &table.html());
        for page in [report.html(&names), report.svg(&names), table_page] {
            parsed(&page).unwrap_or_else(|wrong| panic!("{wrong}: {page}"));
        }
        for text in [report.terminal(&names), table.text()] {
            let obeyed = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
            assert!(!text.contains(obeyed), "{text:?}");
        }
    }
}
