//! Results of earlier runs, which are kept in files.
//!
//! | files | job |
//! |---|---|
//! | `identity` | the identity of a job |
//! | `entry` | the bytes of a file (pure) |
//! | `folder` | reading a file, and writing one atomically |

mod entry;
mod folder;
mod identity;

pub(super) use folder::KeptResult;
pub(super) use identity::claim;
