//! `OnDevice`, the interface of an edge table on a device: a training step, catching up of all rows, and download to the host.

use crate::candidate::{Group, Paths};
use crate::model::{BriLlm, Gradients, Learnt};
use crate::row_adamw::{Clock, Moments};
use std::any::Any;

/// What is brought to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Nothing.
    Nothing,
    /// The values of rows.
    Values,
    /// Their moments as well.
    All,
}

/// A table and its moments on some device.
#[cfg_attr(not(feature = "cube"), allow(dead_code))]
pub(crate) trait OnDevice: Send + Sync {
    /// One step on the table; returns the gradients of the rest, or `None` if this step needs more room than there is.
    fn learn(
        &mut self,
        model: &BriLlm,
        moments: &mut Moments,
        paths: &Paths<'_>,
        groups: &[Group],
        clock: &Clock<'_>,
    ) -> Option<(Learnt, Gradients)>;

    /// Brings every row to the last step, on the device.
    fn catch_up(&mut self, moments: &mut Moments, clock: &Clock<'_>);

    /// Brings what has changed to the host, as far as it is asked for.
    fn download(&mut self, what: What, model: &mut BriLlm, moments: &mut Moments);

    /// Whether the host's values are older than the device's.
    fn is_ahead(&self) -> bool;

    /// Whether this is the device.
    fn lies_on(&self, device: &dyn Any) -> bool;
}
