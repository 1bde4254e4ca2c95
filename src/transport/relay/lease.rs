//! The lease by which a guardian lets its worker live: how each side knows that it is over. Pure.
//!
//! The guardian holds the lease. Each renewal counts from the moment when the guardian *asked* for
//! it, so a renewal that was long on its way extends nothing. The program grants it. It knows that
//! the guardian asked before the request arrived, so the lease ends at the latest a term after the
//! program's answer. No comparison of clocks is needed: each side measures times with a clock of
//! its own, and the clocks need only run at about the same rate.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::tuning::{LEASE_KILL_MARGIN, LEASE_RENEWALS_PER_TERM};

/// The guardian's side. Times are those of a clock of its own that also runs while the machine is
/// suspended.
#[derive(Debug)]
pub(crate) struct LeaseHolder {
    term: Duration,
    over: Duration,
    /// The requests that have not been answered: their numbers and times.
    requests: VecDeque<(u64, Duration)>,
    next_request: Duration,
    next_number: u64,
}

impl LeaseHolder {
    /// Starts a lease of one term, which was asked for at the time `asked`.
    pub(crate) fn new(asked: Duration, term: Duration) -> Self {
        Self {
            term,
            over: asked.saturating_add(term),
            requests: VecDeque::new(),
            next_request: asked + term / LEASE_RENEWALS_PER_TERM,
            next_number: 0,
        }
    }

    /// Returns the number of the next request for a renewal if it is due.
    pub(crate) fn take_request(&mut self, now: Duration) -> Option<u64> {
        if now < self.next_request {
            return None;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.next_request = now + self.term / LEASE_RENEWALS_PER_TERM;
        // A renewal of a request that is older than a term would extend nothing.
        let term = self.term;
        self.requests.retain(|&(_, asked)| now < asked + term);
        self.requests.push_back((number, now));
        Some(number)
    }

    /// Extends the lease by the renewal of this request. The number of an unknown one is ignored.
    pub(crate) fn renew(&mut self, number: u64) {
        let answered = |&&(known, _): &&(u64, Duration)| known == number;
        if let Some(&(_, asked)) = self.requests.iter().find(answered) {
            self.over = self.over.max(asked + self.term);
            self.requests.retain(|&(known, _)| known > number);
        }
    }

    /// Returns the time at which the lease is over.
    pub(crate) fn over(&self) -> Duration {
        self.over
    }

    /// Returns the time at which something is due next: a request, or the end.
    pub(crate) fn next_due(&self) -> Duration {
        self.over.min(self.next_request)
    }
}

/// The program's side. Times are those of a clock of its own.
#[derive(Debug)]
pub(crate) struct LeaseGranter {
    /// The term, and the time within which a guardian whose lease is over has killed its worker.
    term: Duration,
    over: Duration,
    /// No more renewals are granted.
    is_cancelled: bool,
}

impl LeaseGranter {
    /// Grants the first term, at the time `now`.
    pub(crate) fn new(now: Duration, term: Duration) -> Self {
        let term = Self::longest(term);
        Self {
            term,
            over: now + term,
            is_cancelled: false,
        }
    }

    /// Returns after which time, at the latest, a worker has ended that gets no more renewals: the
    /// term, an eighth more for clocks that run at different rates, and the time for the kill.
    pub(crate) fn longest(term: Duration) -> Duration {
        term + term / 8 + LEASE_KILL_MARGIN
    }

    /// Grants a renewal at the time `now`, before it is sent. Returns `false` if none is granted.
    pub(crate) fn grant(&mut self, now: Duration) -> bool {
        if self.is_cancelled || now >= self.over {
            return false;
        }
        self.over = now + self.term;
        true
    }

    /// Grants no more renewals.
    pub(crate) fn cancel(&mut self) {
        self.is_cancelled = true;
    }

    /// Returns the time from which on the guardian's lease is certainly over, and its worker has
    /// ended.
    pub(crate) fn over(&self) -> Duration {
        self.over
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TERM: Duration = Duration::from_secs(10);

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_renewal_counts_from_its_request_and_not_from_its_arrival() {
        let mut holder = LeaseHolder::new(at(0), TERM);
        assert_eq!(holder.take_request(at(2_499)), None);
        assert_eq!(holder.take_request(at(2_500)), Some(0));
        assert_eq!(holder.over(), at(10_000));
        holder.renew(0); // whenever that arrives
        assert_eq!(holder.over(), at(12_500));
        holder.renew(0);
        holder.renew(7);
        assert_eq!(holder.over(), at(12_500), "neither was asked for");
        assert_eq!(holder.next_due(), at(5_000));
    }

    #[test]
    fn a_later_renewal_makes_earlier_ones_worthless() {
        let mut holder = LeaseHolder::new(at(0), TERM);
        assert_eq!(holder.take_request(at(3_000)), Some(0));
        assert_eq!(holder.take_request(at(6_000)), Some(1));
        holder.renew(1);
        holder.renew(0);
        assert_eq!(holder.over(), at(16_000));
    }

    #[test]
    fn nothing_is_granted_after_the_end_or_a_cancellation() {
        let mut granter = LeaseGranter::new(at(0), TERM);
        assert!(granter.grant(at(1_000)));
        let over = granter.over();
        assert_eq!(over, at(1_000) + LeaseGranter::longest(TERM));
        assert!(!granter.grant(over));
        granter.cancel();
        assert!(!granter.grant(at(2_000)));
        assert_eq!(granter.over(), over);
    }

    /// One step of both sides: this much time passes; then the request that is due is lost, or
    /// arrives after the first delay, and its answer arrives after the second one, if it is not
    /// lost.
    #[derive(Clone, Debug)]
    struct Step {
        passes: u64,
        arrives_after: Option<u64>,
        returns_after: Option<u64>,
    }

    fn step() -> impl Strategy<Value = Step> {
        let delay = || prop::option::weighted(0.8, prop_oneof![0..50_u64, 0..30_000_u64]);
        (0..6_000_u64, delay(), delay()).prop_map(|(passes, arrives_after, returns_after)| Step {
            passes,
            arrives_after,
            returns_after,
        })
    }

    proptest! {
        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn the_granter_never_takes_a_lease_for_over_that_the_holder_still_has(
            steps in prop::collection::vec(step(), 1..60),
            // The holder's clock began at another time, and runs up to a hundredth slower.
            offset in 0..1_000_000_u64,
            slower in 0..100_u64,
        ) {
            let holders = |time: u64| at(offset + time - time * slower / 10_000);
            let mut holder = LeaseHolder::new(holders(0), TERM);
            let mut granter = LeaseGranter::new(at(20), TERM);
            let mut requests: Vec<(u64, u64, Option<u64>)> = Vec::new(); // arrival, number, delay
            let mut renewals: Vec<(u64, u64)> = Vec::new(); // arrival, number
            let mut now = 20;
            for Step { passes, arrives_after, returns_after } in steps {
                now += passes;
                requests.sort_unstable();
                for (time, number, delay) in requests.extract_if(.., |request| request.0 <= now) {
                    if granter.grant(at(time)) && let Some(delay) = delay {
                        renewals.push((time + delay, number));
                    }
                }
                let held_before = holder.over();
                for (time, number) in renewals.extract_if(.., |renewal| renewal.0 <= now) {
                    // A guardian whose lease is over has ended, and reads nothing any more.
                    if holders(time) < held_before {
                        holder.renew(number);
                    }
                }
                if holders(now) >= holder.over() {
                    return Ok(());
                }
                prop_assert!(at(now) < granter.over(), "at {} ms the holder goes on until {:?}", now, holder.over());
                if let Some(number) = holder.take_request(holders(now)) {
                    requests.extend(arrives_after.map(|delay| (now + delay, number, returns_after)));
                }
            }
        }
    }
}
