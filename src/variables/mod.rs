//! Variables whose value belongs to a [run](RunVar) or to a [part of the task tree](TreeVar).

mod run_var;
mod tree_var;

pub use run_var::{RunVar, RunVarToken};
pub use tree_var::{HasTreeVars, TreeVar, TreeVarScope};

pub(crate) use run_var::Variables;
pub(crate) use tree_var::sealed::TreeValuesOfChildren;
