//! Reports a cancelled scope that waits for work which cancellation does not interrupt.
//!
//! The future that the scope waits for reports itself, from its polls: it knows its name, and a
//! cancellation wakes the task that polls it. As long as nothing is cancelled, that costs one load
//! in a poll that returns `Pending`.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use super::node::SharedTree;
use super::position::current_node;
use super::tree::NodeId;
use super::tuning::WAIT_REPORTED_AFTER;
use super::wait_tick::WaitTick;

/// Writes what is waited for. Not a type parameter: futures of many types have a report each.
pub(crate) type Describe<'a> = dyn FnMut(&mut String) + 'a;

/// Reports, once, that a cancelled scope waits for the future that has this.
#[derive(Debug)]
pub(crate) enum WaitReport {
    /// No scope around was cancelled when the tree had this number of cancellations.
    Seen(usize),
    /// A cancelled scope waits.
    Waiting(Box<Ticks>),
}

/// The regular checks of a wait. They are in real time, as the work that is waited for mostly is.
#[derive(Debug)]
pub(crate) struct Ticks {
    interval: Duration,
    /// The time of the last report, or of the beginning.
    since: Instant,
    next: WaitTick,
    is_warned: bool,
    is_printed: bool,
}

impl WaitReport {
    pub(crate) const fn new() -> Self {
        Self::Seen(0)
    }

    /// Checks the position of this thread after a poll there that returned `Pending`. `describe`
    /// continues the words "waits for".
    pub(crate) fn poll_here(&mut self, cx: &mut Context<'_>, describe: &mut Describe<'_>) {
        if let Some((tree, node)) = current_node() {
            self.poll(cx, &tree, node, describe);
        }
    }

    /// Checks the node of a future whose poll has returned `Pending`.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        tree: &Arc<SharedTree>,
        node: NodeId,
        describe: &mut Describe<'_>,
    ) {
        if let Self::Seen(seen) = self {
            let cancellations = tree.cancellations();
            if std::mem::replace(seen, cancellations) == cancellations
                || tree.cancellation(node).is_none()
            {
                return;
            }
            *self = Self::Waiting(Box::new(Ticks::new(WAIT_REPORTED_AFTER)));
        }
        if let Self::Waiting(ticks) = self {
            ticks.poll(cx, tree, node, describe);
        }
    }
}

/// Runs a future that keeps the scopes around it waiting, and reports a long wait.
pub(crate) async fn reported<F: Future>(
    future: F,
    mut describe: impl FnMut(&mut String),
) -> F::Output {
    let (mut future, mut report) = (pin!(future), WaitReport::new());
    poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        if polled.is_pending() {
            report.poll_here(cx, &mut describe);
        }
        polled
    })
    .await
}

impl Ticks {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            since: Instant::now(),
            next: WaitTick::new(),
            is_warned: false,
            is_printed: false,
        }
    }

    #[cold]
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        tree: &SharedTree,
        node: NodeId,
        describe: &mut Describe<'_>,
    ) {
        let mut is_due = false;
        // Ctrl-C may come after the warning. Outside of runs it does not cancel.
        if !(self.is_warned && (self.is_printed || tree.run().is_none())) {
            is_due = self.since.elapsed() >= self.interval;
            if is_due {
                self.since = Instant::now();
            }
            self.next.wake_at_next(cx);
        }
        // A shield further in reports itself, and is the better description.
        let cancellation = tree.cancellation(node).filter(|_| is_due);
        if let Some(cancellation) = cancellation
            && !tree.has_shield_below(node)
        {
            self.report(cancellation.by_ctrl_c, describe);
        }
    }

    fn report(&mut self, by_ctrl_c: bool, describe: &mut Describe<'_>) {
        let prints = by_ctrl_c && !self.is_printed;
        if self.is_warned && !prints {
            return;
        }
        let mut what = String::new();
        describe(&mut what);
        if !std::mem::replace(&mut self.is_warned, true) {
            tracing::warn!(
                target: "seedbed::cancel",
                "a cancelled scope has waited {:?} for {what}",
                self.interval
            );
        }
        if prints {
            self.is_printed = true;
            print(&what);
        }
    }
}

/// Tells the person at the terminal what the program waits for. Does not wait for a terminal or a
/// pipe that takes nothing, nor for another thread that holds the lock of standard error.
fn print(what: &str) {
    let line =
        format!("seedbed: Ctrl-C: waiting for {what}; another Ctrl-C ends the program at once\n");
    #[cfg(not(target_os = "linux"))]
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()); // no other place to report to
    #[cfg(target_os = "linux")]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let stderr = rustix::stdio::stderr();
        let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
        if poll(&mut ready, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
            let _ = rustix::io::write(stderr, line.as_bytes()); // no other place to report to
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::tree::Kind;
    use super::*;

    /// Polls once, and returns whether the report describes its future.
    fn describes(ticks: &mut Ticks, tree: &SharedTree, node: NodeId) -> bool {
        let mut described = false;
        let cx = &mut Context::from_waker(Waker::noop());
        ticks.poll(cx, tree, node, &mut |_| described = true);
        described
    }

    #[cfg_attr(miri, ignore = "Miri has no reactor")]
    #[test]
    fn a_wait_is_reported_once_and_only_if_a_scope_is_cancelled() {
        let tree = SharedTree::new(None);
        let scope = tree.add(None, Kind::Plain, None);
        let shield = tree.add(Some(scope), Kind::Shield, None);
        let mut ticks = Ticks::new(Duration::ZERO);
        assert!(!describes(&mut ticks, &tree, shield));
        tree.cancel(scope).now();
        assert!(describes(&mut ticks, &tree, shield));
        assert!(!describes(&mut ticks, &tree, shield));
    }

    #[cfg_attr(miri, ignore = "Miri has no reactor")]
    #[test]
    fn the_innermost_shield_reports() {
        let tree = SharedTree::new(None);
        let scope = tree.add(None, Kind::Plain, None);
        let outer = tree.add(Some(scope), Kind::Shield, None);
        let between = tree.add(Some(outer), Kind::Plain, None);
        let inner = tree.add(Some(between), Kind::Shield, None);
        tree.cancel(scope).now();
        let mut ticks = Ticks::new(Duration::ZERO);
        assert!(!describes(&mut ticks, &tree, outer));
        tree.remove(inner).now();
        assert!(describes(&mut ticks, &tree, outer));
    }
}
