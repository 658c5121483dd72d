//! Explains why the loss of a stage does not begin where that of the stage before ended.

use crate::recipe::{Policy, Stage, StageStart};
use brian::route::policy::Teacher;

/// One sentence for each change of what the loss is measured on.
pub fn changes(before: &Stage, now: &Stage) -> Vec<String> {
    let mut found = Vec::new();
    if now.start == StageStart::Fresh {
        let drawn = "the weights are drawn anew, so the loss starts as at the beginning";
        found.push(drawn.to_string());
    }
    found.extend(lead(&before.policy, &now.policy));
    let (Some(was), Some(is)) = (&before.walk, &now.walk) else {
        return found;
    };
    let of_walks = [
        (
            is.memory && !was.memory,
            "the memory is written and read from here on, so the loss may start higher",
        ),
        (
            is.parallel && !was.parallel,
            "several paths are walked at once from here on, so the loss may start elsewhere",
        ),
        (
            was.exit_objective != is.exit_objective,
            "the exit learns by another objective, so walks end elsewhere and the loss may jump",
        ),
        (
            was.constraint != is.constraint,
            "the bounds on a walk are others, so walks end elsewhere and the loss may jump",
        ),
    ];
    let changed = of_walks.into_iter().filter(|(changed, _)| *changed);
    found.extend(changed.map(|(_, sentence)| sentence.to_string()));
    found
}

fn lead(before: &Policy, now: &Policy) -> Option<String> {
    let share = |policy: &Policy| match policy {
        Policy::Router { .. } => 1.0,
        Policy::Scheduled { schedule, .. } => {
            schedule.first().map_or(1.0, |row| row.router_probability)
        }
        Policy::None | Policy::Sequential | Policy::Teacher { .. } => 0.0,
    };
    // A schedule ends where its last row is.
    let ended = match before {
        Policy::Scheduled { schedule, .. } => {
            schedule.last().map_or(1.0, |row| row.router_probability)
        }
        before => share(before),
    };
    let text = match (before, now) {
        (Policy::Router { .. }, Policy::Router { .. }) => return None,
        (_, Policy::Router { .. }) if ended < 1.0 => {
            "the router leads alone now, so the loss starts higher".to_string()
        }
        (_, Policy::Scheduled { .. }) if share(now) > ended => format!(
            "the router decides {} % of the time now, so the loss may start higher; a validation, where it decides alone, the more",
            100.0 * share(now)
        ),
        (_, Policy::Scheduled { .. }) => {
            "a validation lets the router decide alone, so its loss may start higher".to_string()
        }
        // The order that the blocks have learnt.
        (Policy::None | Policy::Sequential, Policy::Teacher { teacher: Teacher::Sequential }) => {
            return None;
        }
        (Policy::None | Policy::Sequential, Policy::Teacher { .. }) => {
            "a teacher leads now, and blocks run in an order they did not learn, so the loss may start higher".to_string()
        }
        (Policy::Teacher { teacher: was }, Policy::Teacher { teacher }) if was != teacher => {
            "another teacher leads now, so the loss may start higher".to_string()
        }
        _ => return None,
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use brian::route::policy::Select;

    #[test]
    fn a_router_that_takes_over_is_the_reason_of_a_higher_loss() {
        let teacher = Policy::Teacher {
            teacher: Teacher::Sequential,
        };
        let router = Policy::Router {
            select: Select::Argmax,
        };
        let text = "the router leads alone now, so the loss starts higher";
        assert_eq!(lead(&teacher, &router).unwrap(), text);
        assert_eq!(lead(&router, &router), None);
        assert_eq!(lead(&Policy::None, &Policy::Sequential), None);
        assert_eq!(lead(&teacher, &teacher), None);
        assert_eq!(lead(&Policy::Sequential, &teacher), None);
    }
}
