//! `run_process`: what a job of the module `delayed` reads and sets.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::call::RunProcess;
use crate::sys::usage::CpuTimes;

impl RunProcess {
    /// Returns the name of the program.
    pub(crate) fn program(&self) -> &str {
        &self.0.program
    }

    /// Sets a time limit, unless there is a shorter one.
    pub(crate) fn at_most_for(self, limit: Duration) -> Self {
        let limit = self.0.time_limit.map_or(limit, |other| other.min(limit));
        self.time_limit(limit)
    }

    /// Sets where the processor time is stored that the process, and the processes that it has
    /// waited for, have used when it has ended.
    pub(crate) fn measured(mut self, cpu_times: Arc<OnceLock<CpuTimes>>) -> Self {
        self.0.cpu_times = Some(cpu_times);
        self
    }
}
