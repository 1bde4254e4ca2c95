//! The demand of a job when it enters the queue, which depends on what was learned until then.

use std::sync::Arc;

use super::options::{Checked, Options, TimeLimit};
use super::pool::Pool;
use crate::resource::{Allocation, Amount, CORES, MEMORY, Memory, Request, WallTime};

/// Returns what a call asks for, its learned memory included.
pub(super) fn of_call(pool: &Pool, options: &Options) -> Arc<Checked> {
    let of_call = &options.of_call;
    let learned = options.memory.as_ref().and_then(|group| {
        let total = pool.total(MEMORY)?.wholes();
        let amount = group.memory();
        let amount = amount.unwrap_or_else(|| share(pool, total, &of_call.request));
        Some(amount.min(total))
    });
    match learned {
        Some(bytes) => with_memory(pool, options, bytes),
        None => with_expected_time(pool, options, of_call),
    }
}

/// Returns what a call asks for that has run out of its learned memory: all memory of the block.
/// `None` if the call had that.
pub(super) fn of_second_run(
    pool: &Pool,
    options: &Options,
    held: &Allocation,
) -> Option<Arc<Checked>> {
    let total = pool.total(MEMORY)?.wholes();
    (held.memory()? < total).then(|| with_memory(pool, options, total))
}

fn with_memory(pool: &Pool, options: &Options, bytes: u64) -> Arc<Checked> {
    let request = options.of_call.request.clone() & Memory::bytes(bytes);
    let request = match expected_time(pool, options, &request) {
        Some(time) => request & time,
        None => request,
    };
    Arc::new(pool.check(request, &options.held_around))
}

/// Adds the time that a job is expected to take, if the block's time is limited.
pub(super) fn with_expected_time(
    pool: &Pool,
    options: &Options,
    checked: &Arc<Checked>,
) -> Arc<Checked> {
    match expected_time(pool, options, &checked.request) {
        Some(time) => {
            let request = checked.request.clone() & time;
            Arc::new(pool.check(request, &options.held_around))
        }
        None => checked.clone(),
    }
}

/// Returns the time that a job is expected to take, if the block's time is limited and the request
/// says nothing of it.
fn expected_time(pool: &Pool, options: &Options, request: &Request) -> Option<WallTime> {
    let Some(TimeLimit::Learned(group)) = &options.time_limit else {
        return None;
    };
    pool.time_left()?;
    let mut needs = request.needs().iter();
    if needs.any(|need| need.wall_time().is_some()) {
        return None;
    }
    group.expected_time().map(WallTime)
}

/// Returns the part of the memory that belongs to the cores of a request.
fn share(pool: &Pool, memory: u64, request: &Request) -> u64 {
    let of_cores = |amount: Amount| amount.max(Amount::ONE).to_f64();
    let all = pool.total(CORES).map_or(1.0, of_cores);
    let mut amounts = request.needs().iter().flat_map(|need| need.amounts());
    let own = amounts.find_map(|(name, amount)| (name == CORES).then_some(amount));
    let own = own.map_or(1.0, Amount::to_f64);
    // The conversion rounds down, so that the shares of all cores fit.
    (memory as f64 * (own / all)) as u64
}
