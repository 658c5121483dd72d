//! The edge table on a GPU between steps: `Resident` opens it there, and brings values and moments back to the host; the
//! kernels of the submodules do what [`crate::ops::host`] does on the host.
//!
//! This is one version of [`crate::ops::step`], and none of an operation below it: its kernels hand each other what lies on the
//! device, as the table does, and no operation's result is ever seen on the host.
//!
//! Only lists of the size of a step's pairs or less are transferred. The times of rows stay on the host, so it always knows
//! which rows have to catch up; its own values and moments are old until [`Resident::settle`] brings them.
//!
//! | file | what |
//! |---|---|
//! | `plan` | a step as lists of numbers: pairs, uses of rows, weights |
//! | `mix` | the weights of the mix, and their gradient, on the host |
//! | `arithmetic` | what kernels share |
//! | `trail` | the true path, a cube per sequence |
//! | `score` | energies, a cube per pair; softmax, a cube per token |
//! | `rows` | catching up, gradient and AdamW, a cube per row |
//! | `table` | the table, and the kernels in their order |
//! | `on_device` | the interface of a table on a device |
//! | `runtime` | the runtimes it can lie on |
//!
//! What is not done here is done by the definitions in [`crate::ops`]: biases of nodes, tables of bf16, rows wider than a cube,
//! tables larger than a device allows.

#[cfg(feature = "cube")]
mod arithmetic;
#[cfg(feature = "cube")]
mod mix;
mod on_device;
#[cfg(feature = "cube")]
mod plan;
#[cfg(feature = "cube")]
mod rows;
#[cfg(feature = "cube")]
mod runtime;
#[cfg(feature = "cube")]
mod score;
#[cfg(feature = "cube")]
mod table;
#[cfg(all(test, any(feature = "wgpu", feature = "cuda")))]
mod tests;
#[cfg(feature = "cube")]
mod trail;

use crate::model::BriLlm;
use crate::row_adamw::{Clock, Moments};
use on_device::OnDevice;
pub(crate) use on_device::What;
use std::any::Any;
use std::fmt;

/// The table on a device, if it lies on one.
///
/// A copy of an optimizer has none, and uses the host's numbers; so these have to be settled.
#[derive(Default)]
pub(crate) enum Resident {
    /// Not tried yet.
    #[default]
    Unknown,
    /// There is no device that could hold it.
    Nowhere,
    /// It lies on a device.
    There(Box<dyn OnDevice>),
}

impl Resident {
    /// The table on a device, brought there if it is not yet and can be.
    pub fn on(
        &mut self,
        device: &dyn Any,
        model: &mut BriLlm,
        moments: &mut Moments,
    ) -> Option<&mut dyn OnDevice> {
        if self.there().is_some_and(|table| !table.lies_on(device)) {
            self.leave(model, moments);
        }
        if let Self::Unknown = self {
            *self = match open(device, model, moments) {
                Some(table) => Self::There(table),
                None => Self::Nowhere,
            };
        }
        self.there()
    }

    /// The table on a device, if it lies there.
    pub fn there(&mut self) -> Option<&mut dyn OnDevice> {
        match self {
            Self::There(table) => Some(&mut **table),
            _ => None,
        }
    }

    /// Brings what has changed to the host and drops the device's copy.
    pub fn leave(&mut self, model: &mut BriLlm, moments: &mut Moments) {
        if let Some(table) = self.there() {
            if table.is_ahead() {
                table.download(What::All, model, moments);
            }
            *self = Self::Unknown;
        }
    }

    /// Brings every row to the last step, and its values and maybe its moments to the host; returns whether there is a table.
    pub fn settle(
        &mut self,
        what: What,
        model: &mut BriLlm,
        moments: &mut Moments,
        clock: &Clock<'_>,
    ) -> bool {
        let Some(table) = self.there() else {
            return false;
        };
        if table.is_ahead() {
            table.catch_up(moments, clock);
            table.download(what, model, moments);
        }
        true
    }

    /// # Panics
    /// If the host's numbers are old.
    fn assert_settled(&self) {
        if let Self::There(table) = self {
            assert!(
                !table.is_ahead(),
                "`catch_up` comes before a copy or a comparison"
            );
        }
    }
}

#[cfg(feature = "cube")]
use runtime::open;

#[cfg(not(feature = "cube"))]
fn open(_: &dyn Any, _: &BriLlm, _: &Moments) -> Option<Box<dyn OnDevice>> {
    None
}

impl Clone for Resident {
    fn clone(&self) -> Self {
        self.assert_settled();
        Self::Unknown
    }
}

impl PartialEq for Resident {
    fn eq(&self, other: &Self) -> bool {
        self.assert_settled();
        other.assert_settled();
        true
    }
}

impl fmt::Debug for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Unknown => "unknown",
            Self::Nowhere => "nowhere",
            Self::There(_) => "on a device",
        };
        f.write_str(name)
    }
}
