//! Shows the progress of a block on standard error: a bar on a terminal, lines elsewhere.

use std::future::{Future, IntoFuture, poll_fn};
use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::Stream;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::handle::Jobs;
use super::statistics::Statistics;

/// The least time between two lines.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

impl Jobs<'_> {
    /// Runs a future, and shows on standard error how far the jobs of the block have come.
    ///
    /// On a terminal, that is a bar, which is removed at the end. Elsewhere, it is a line every
    /// five seconds and at the end, such as `12 of 40 jobs, 2 running, 26 queued`. Only for the
    /// feature `indicatif`.
    ///
    /// # Cancellation
    ///
    /// Cancels the future, and removes the bar.
    ///
    /// ```
    /// use seedbed::delayed::{Resources, open};
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         let sum = jobs.call(i32::abs, -1) + jobs.call(i32::abs, -2);
    ///         assert_eq!(jobs.show_progress(sum).await.unwrap(), 3);
    ///     }));
    /// }
    /// ```
    pub async fn show_progress<F: IntoFuture>(&self, future: F) -> F::Output {
        let view = if io::stderr().is_terminal() {
            View::bar(ProgressDrawTarget::stderr())
        } else {
            View::Lines(Lines::new(io::stderr()))
        };
        show(self, view, future.into_future()).await
    }
}

async fn show<F: Future>(jobs: &Jobs<'_>, mut view: View<impl Write>, future: F) -> F::Output {
    let mut progress = pin!(jobs.progress());
    let mut future = pin!(future);
    let value = poll_fn(|cx| {
        while let Poll::Ready(Some(now)) = progress.as_mut().poll_next(cx) {
            view.update(&now);
        }
        future.as_mut().poll(cx)
    })
    .await;
    view.finish(&jobs.statistics());
    value
}

enum View<W> {
    Bar(Bar),
    Lines(Lines<W>),
}

impl<W: Write> View<W> {
    fn bar(target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target);
        // The template is constant; if a later version refuses it, the default style is used.
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len} jobs{msg}") {
            bar.set_style(style);
        }
        Self::Bar(Bar(bar))
    }

    fn update(&mut self, now: &Statistics) {
        match self {
            Self::Bar(Bar(bar)) => {
                bar.set_length(now.submitted as u64);
                bar.set_position(ended(now) as u64);
                bar.set_message(state(now));
            }
            Self::Lines(lines) => lines.update(now, Instant::now()),
        }
    }

    fn finish(&mut self, now: &Statistics) {
        if let Self::Lines(lines) = self {
            lines.write(now);
        }
    }
}

/// Removes the bar when dropped.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

struct Lines<W> {
    out: W,
    last: Instant,
}

impl<W: Write> Lines<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            last: Instant::now(),
        }
    }

    fn update(&mut self, now: &Statistics, at: Instant) {
        if at.saturating_duration_since(self.last) >= BETWEEN_LINES {
            self.last = at;
            self.write(now);
        }
    }

    fn write(&mut self, now: &Statistics) {
        let (ended, submitted, state) = (ended(now), now.submitted, state(now));
        let _ = writeln!(self.out, "{ended} of {submitted} jobs{state}"); // no reason to fail
    }
}

fn ended(now: &Statistics) -> usize {
    now.succeeded + now.failed + now.cancelled + now.cached
}

/// Describes the jobs that have not succeeded.
fn state(now: &Statistics) -> String {
    let counts = [
        (now.failed, "failed"),
        (now.cancelled, "cancelled"),
        (now.running, "running"),
        (now.queued, "queued"),
    ];
    let shown = counts.iter().filter(|(count, _)| *count > 0);
    shown
        .map(|(count, name)| format!(", {count} {name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;
    use crate::delayed::{Cores, Resources, each, open};

    #[test]
    fn lines_are_written_at_most_every_five_seconds_and_at_the_end() {
        let mut text = Vec::new();
        crate::run::run(open(
            Resources::none().cores([0]),
            async |jobs: Jobs<'_>| {
                let one = jobs.on(Cores(1));
                let both = each((one.spawn(async {}), one.spawn(async {})));
                let lines = View::Lines(Lines::new(&mut text));
                show(&jobs, lines, both.into_future()).await.unwrap();
            },
        ));
        assert_eq!(String::from_utf8(text).unwrap(), "2 of 2 jobs\n");

        let mut lines = Lines::new(Vec::new());
        let begun = lines.last;
        let mut now = crate::run::run(open(Resources::none(), async |jobs: Jobs<'_>| {
            jobs.statistics()
        }));
        for (second, queued, failed) in [(4, 9, 0), (5, 7, 1), (9, 3, 1), (10, 0, 2)] {
            (now.queued, now.failed, now.submitted) = (queued, failed, 10);
            lines.update(&now, begun + Duration::from_secs(second));
        }
        let text = String::from_utf8(lines.out).unwrap();
        assert_eq!(
            text,
            "1 of 10 jobs, 1 failed, 7 queued\n2 of 10 jobs, 2 failed\n"
        );
    }

    #[test]
    fn a_bar_shows_the_counts_on_a_terminal_and_is_removed() {
        let term = InMemoryTerm::new(5, 60);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        crate::run::run(open(
            Resources::none().cores([0]),
            async |jobs: Jobs<'_>| {
                let one = jobs.on(Cores(1));
                let (first, _second) = (one.spawn(async {}), one.spawn(async {}));
                let mut view = View::<Vec<u8>>::bar(target);
                first.await.unwrap();
                view.update(&jobs.statistics());
                let View::Bar(Bar(bar)) = &view else {
                    unreachable!("made above");
                };
                bar.force_draw();
                let shown = term.contents();
                assert!(shown.contains("of 2 jobs"), "{shown:?}");
            },
        ));
        assert_eq!(term.contents(), "");
    }
}
