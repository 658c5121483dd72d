//! A route report as text for a terminal.

use super::report::{NOTE, RouteReport, ShownToken, mark, name};
use crate::command::answer::{aligned, cells, padded};
use crate::escape;
use brian::route::action::Action;

/// The widest bar, in cells.
const BAR: usize = 40;

/// The report for a terminal of some width.
pub fn text(report: &RouteReport, width: usize, top: usize) -> String {
    let counts = &report.counts;
    let title = escape::terminal(&report.title);
    let mut parts = vec![
        format!("{title}, {} tokens\n", counts.tokens),
        aligned(&report.costs()),
        format!("{}{NOTE}\n", aligned(&report.rates())),
    ];
    parts.push("executions per block\n".to_string() + &bars(0, &counts.load));
    parts.push("tokens by the step at which they left\n".to_string() + &bars(1, &counts.exits));
    let path = |(path, share): (Vec<Action>, f64)| {
        let share = format!("{:.2} %", 100.0 * share);
        [share, words(&path)]
    };
    let paths: Vec<[String; 2]> = report.top_paths(top).into_iter().map(path).collect();
    parts.push("most frequent paths\n".to_string() + &aligned(&paths));
    parts.push(moves(report));
    let memory = aligned(&report.memory());
    if !memory.is_empty() {
        parts.push("reads of the memory; slots by age, 0 the newest\n".to_string() + &memory);
    }
    if let Some(sequence) = report.sequences.first() {
        parts.push("the first sequence\n".to_string() + &walks(sequence, counts.n_pool, width));
    }
    let warnings = report.warnings().into_iter();
    parts.extend(warnings.map(|warning| format!("warning: {warning}\n")));
    parts.join("\n")
}

fn words(path: &[Action]) -> String {
    let words: Vec<String> = path.iter().copied().map(name).collect();
    match words.is_empty() {
        true => "(none)".to_string(),
        false => words.join(" "),
    }
}

fn bars(first: usize, counts: &[u64]) -> String {
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let total = counts.iter().sum::<u64>().max(1);
    let row = |(index, &count): (usize, &u64)| {
        let length = (count as usize * BAR).div_ceil(most as usize);
        [
            format!("{}", index + first),
            format!("{:.1} %", 100.0 * count as f64 / total as f64),
            "█".repeat(length),
        ]
    };
    aligned(&counts.iter().enumerate().map(row).collect::<Vec<_>>())
}

/// How often a block followed a block, as shares of all moves.
fn moves(report: &RouteReport) -> String {
    let n_pool = report.counts.n_pool;
    let right = |cells: Vec<String>| {
        let cells = cells.iter().map(|cell| format!("{cell:>6}"));
        cells.collect::<String>()
    };
    let heads = right((0..n_pool).map(|block| block.to_string()).collect());
    let mut text = format!("moves from block (row) to block (column), %\n     {heads}\n");
    for (block, shares) in report.moves().into_iter().enumerate() {
        text += &format!("{block:>5}{}\n", right(shares));
    }
    text
}

/// Tokens above their paths, in as many lines as the width needs.
fn walks(sequence: &[ShownToken], n_pool: usize, width: usize) -> String {
    let mut text = String::new();
    let (mut above, mut below) = (String::new(), String::new());
    for token in sequence {
        let actions = token.actions.iter();
        let path: Vec<String> = actions.map(|&action| mark(action)).collect();
        let separator = if n_pool > 10 { " " } else { "" };
        let (shown, path) = (escape::terminal(&token.text), path.join(separator));
        let cell = cells(&shown).max(cells(&path)) + 1;
        if cells(&above) + cell > width.max(cell) {
            text += &format!("{}\n{}\n", above.trim_end(), below.trim_end());
            (above, below) = (String::new(), String::new());
        }
        above += &padded(&shown, cell);
        below += &padded(&path, cell);
    }
    text + &format!("{}\n{}\n", above.trim_end(), below.trim_end())
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;

    #[test]
    fn every_token_stands_above_its_path_and_no_line_is_too_wide() {
        let text = report(["one", "two", "c", "d"]).terminal(12, 3);
        assert!(text.contains("one two\n01· ·\n"), "{text}");
        assert_eq!(
            text.lines().filter(|line| line.contains("25.00 %")).count(),
            3
        );
    }

    #[test]
    fn a_token_cannot_command_the_terminal() {
        let text = report(["\x1b[31m", "\x07", "c", "d"]).terminal(80, 1);
        assert!(!text.contains('\x1b') && !text.contains('\x07'));
    }
}
