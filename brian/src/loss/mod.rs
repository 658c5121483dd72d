//! What a pass costs: one pure function per term.
//!
//! | term | formula | zero when |
//! |---|---|---|
//! | [`language`] | mean over valid targets of `−ln p(target)` | every target is certain |

pub mod language;
