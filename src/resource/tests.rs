//! Random jobs against a simple model, and the words of requests and refusals.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::*;

/// An action of a test.
#[derive(Clone, Debug)]
enum Action {
    Submit {
        request: Wanted,
        prioritized: bool,
    },
    /// A waiting job is cancelled: the nth, counted around.
    Cancel(usize),
    /// A running job ends: the nth, counted around.
    End(usize),
}

/// A request of the model: alternatives of cores (in quarters), memory, and GPUs.
#[derive(Clone, Debug)]
struct Wanted(Vec<(u32, u32, u32)>);

const CORES: u32 = 3;
const MEMORY: u32 = 10;
const GPUS: u32 = 2;

impl Wanted {
    fn request(&self) -> Request {
        let need = |&(quarters, memory, gpus): &(u32, u32, u32)| {
            Cores::share(f64::from(quarters) / 4.0)
                & Memory::bytes(memory.into())
                & Units("gpus", gpus)
        };
        self.0
            .iter()
            .map(need)
            .reduce(|one, other| one | other)
            .unwrap()
    }
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let need = (0..=4 * CORES, 0..=MEMORY, 0..=GPUS);
    let wanted = prop::collection::vec(need, 1..3).prop_map(Wanted);
    let action = prop_oneof![
        3 => (wanted, any::<bool>()).prop_map(|(request, prioritized)| Action::Submit { request, prioritized }),
        1 => (0usize..20).prop_map(Action::Cancel),
        2 => (0usize..20).prop_map(Action::End),
    ];
    prop::collection::vec(action, 0..60)
}

/// A waiting job of the model.
#[derive(Clone, Debug)]
struct Waiting {
    ticket: TicketId,
    number: usize,
    wanted: Wanted,
    prioritized: bool,
}

/// The resources that are taken, counted from the allocations of the running jobs.
struct Taken {
    quarters_of_core: Vec<u32>,
    memory: u32,
    gpus: Vec<u32>,
}

fn taken(running: &[Allocation]) -> Taken {
    let mut taken = Taken {
        quarters_of_core: vec![0; CORES as usize],
        memory: 0,
        gpus: vec![0; GPUS as usize],
    };
    for allocation in running {
        let mut quarters = allocation.amount("cores").map_or(0, quarters);
        // The units are whole, except for the last one of an amount that is not.
        for core in allocation.units("cores") {
            let part = quarters.min(4);
            taken.quarters_of_core[core.parse::<usize>().unwrap()] += part;
            quarters -= part;
        }
        assert_eq!(quarters, 0, "{allocation} has fewer cores than it says");
        taken.memory += u32::try_from(allocation.memory().unwrap_or(0)).unwrap();
        for gpu in allocation.units("gpus") {
            taken.gpus[gpu.parse::<usize>().unwrap()] += 1;
        }
    }
    taken
}

fn quarters(amount: Amount) -> u32 {
    let text: f64 = amount.to_string().parse().unwrap();
    (text * 4.0) as u32
}

impl Taken {
    fn is_possible(&self) -> bool {
        self.quarters_of_core.iter().all(|&quarters| quarters <= 4)
            && self.memory <= MEMORY
            && self.gpus.iter().all(|&jobs| jobs <= 1)
    }

    /// Returns whether one of the alternatives fits into the rest.
    fn has_room_for(&self, wanted: &Wanted) -> bool {
        let fits = |&(quarters, memory, gpus): &(u32, u32, u32)| {
            let free_cores = self
                .quarters_of_core
                .iter()
                .filter(|&&used| used == 0)
                .count();
            let (wholes, fraction) = (quarters as usize / 4, quarters % 4);
            let left = free_cores.checked_sub(wholes);
            let shared = |used: &u32| *used > 0 && 4 - used >= fraction;
            let fraction_fits = fraction == 0
                || left.is_some_and(|left| left > 0)
                || self.quarters_of_core.iter().any(shared);
            let free_gpus = self.gpus.iter().filter(|&&jobs| jobs == 0).count();
            left.is_some()
                && fraction_fits
                && MEMORY - self.memory >= memory
                && free_gpus >= gpus as usize
        };
        wanted.0.iter().any(fits)
    }
}

/// Returns the job that must be next: of the prioritised ones if there are any, the oldest.
fn head(waiting: &[Waiting]) -> Option<&Waiting> {
    let prioritized = waiting.iter().find(|job| job.prioritized);
    prioritized.or_else(|| waiting.first())
}

fn resources() -> Resources {
    Resources::none()
        .cores(0..CORES as usize)
        .memory(Memory::bytes(MEMORY.into()))
        .units("gpus", ["0", "1"])
}

/// A bug that the model must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// A job that ends gives nothing back.
    AllocationLost,
    /// A job that is cancelled stays in the queue.
    TicketLeft,
}

/// Carries out actions, and compares what happens with the model.
fn compare(actions: Vec<Action>, bug: Option<Bug>) -> Result<(), TestCaseError> {
    let mut ledger = Ledger::new(&resources());
    let mut queue = Queue::new();
    let (mut waiting, mut running) = (Vec::<Waiting>::new(), Vec::<Allocation>::new());
    let mut number = 0;
    for action in actions {
        match action {
            Action::Submit {
                request,
                prioritized,
            } => {
                let wanted = request.request();
                if ledger.check(&wanted, None).is_ok() {
                    let ticket = queue.push(wanted, prioritized, number);
                    waiting.push(Waiting {
                        ticket,
                        number,
                        wanted: request,
                        prioritized,
                    });
                    number += 1;
                } else {
                    prop_assert!(!taken(&[]).has_room_for(&request));
                }
            }
            Action::Cancel(at) if !waiting.is_empty() => {
                let job = waiting.remove(at % waiting.len());
                if bug != Some(Bug::TicketLeft) {
                    prop_assert_eq!(queue.remove(job.ticket), Some(job.number));
                    prop_assert_eq!(queue.remove(job.ticket), None);
                }
            }
            Action::End(at) if !running.is_empty() => {
                let allocation = running.remove(at % running.len());
                if bug != Some(Bug::AllocationLost) {
                    ledger.release(&allocation);
                }
            }
            Action::Cancel(_) | Action::End(_) => {}
        }
        while let Some((granted, allocation)) = queue.grant_next(&mut ledger, None) {
            prop_assert_eq!(Some(granted), head(&waiting).map(|job| job.number));
            waiting.retain(|job| job.number != granted);
            running.push(allocation);
        }
        let taken = taken(&running);
        prop_assert!(taken.is_possible());
        prop_assert_eq!(queue.len(), waiting.len());
        prop_assert!(!head(&waiting).is_some_and(|job| taken.has_room_for(&job.wanted)));
    }
    for job in waiting {
        queue.remove(job.ticket);
    }
    for allocation in running {
        ledger.release(&allocation);
    }
    prop_assert!(ledger.is_all_free());
    Ok(())
}

#[test]
fn the_model_finds_a_lost_allocation_and_a_ticket_that_was_left() {
    for bug in [Bug::AllocationLost, Bug::TicketLeft] {
        let config = Config {
            failure_persistence: None,
            ..Config::default()
        };
        let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner = TestRunner::new_with_rng(config, random);
        let found = runner.run(&actions(), |actions| compare(actions, Some(bug)));
        assert!(matches!(found, Err(TestError::Fail(..))), "{bug:?}");
    }
}

proptest! {
    #[test]
    fn jobs_get_what_they_ask_for_in_order_and_nothing_is_lost(actions in actions()) {
        compare(actions, None)?;
    }

    #[test]
    fn shares_add_up_exactly(shares in prop::collection::vec(0.0f64..2.0, 0..20)) {
        let resources = Resources::none().amount("licences", 50);
        let mut ledger = Ledger::new(&resources);
        let allocations: Vec<_> = shares
            .iter()
            .map(|&share| ledger.allocate(&Request::amount("licences", Amount::share(share)), None).unwrap())
            .collect();
        allocations.iter().for_each(|allocation| ledger.release(allocation));
        prop_assert!(ledger.is_all_free());
    }
}

fn refusal(request: impl Into<Request>) -> String {
    Ledger::new(&resources())
        .check(&request.into(), None)
        .unwrap_err()
}

#[test]
fn what_never_fits_is_refused_with_the_reason() {
    assert_eq!(
        refusal(Cores(4)),
        "it asks for 4 cores, and there is 3 of `cores` in all. Ask for less, or give the block more resources"
    );
    assert!(refusal(Token("internet")).contains("there is no `internet`"));
    assert!(refusal(Memory::mib(1)).contains("there is 10 bytes of memory"));
    let either = refusal(Cores(4) | Units("gpus", 3));
    assert!(
        either.contains("4 cores") && either.contains("3 of `gpus`"),
        "{either}"
    );
}

#[test]
fn a_kind_on_both_sides_of_an_and_is_refused() {
    let doubled = Cores(1) & (Cores(1) | Memory::bytes(1));
    assert_eq!(
        refusal(doubled),
        "`&` combines different things, and cores stands on both sides; add the amounts up"
    );
    let hour = WallTime(Duration::from_secs(3600));
    assert!(refusal(hour & hour).contains("wall time stands on both sides"));
}

#[test]
fn the_first_alternative_that_fits_is_taken() {
    let mut ledger = Ledger::new(&resources());
    let request = Cores(2) & Units("gpus", 1) | Cores(1);
    let first = ledger.allocate(&request, None).unwrap();
    let second = ledger.allocate(&request, None).unwrap();
    assert_eq!((first.alternative(), second.alternative()), (0, 1));
    assert_eq!((first.cores(), second.cores()), (vec![0, 1], vec![2]));
    assert_eq!(first.to_string(), "cores 0-1, gpus 0");
    assert!(ledger.allocate(&request, None).is_none());
}

#[test]
fn parts_of_cores_share_cores_so_that_others_stay_whole() {
    let mut ledger = Ledger::new(&resources());
    let mut allocate = |request: Request| ledger.allocate(&request, None).unwrap().cores();
    let half = Cores::share(0.5);
    assert_eq!(allocate(half.clone()), [0]);
    assert_eq!(allocate(Cores::share(1.5)), [0, 1]);
    assert_eq!(allocate(half), [2]);
}

#[test]
fn a_job_starts_if_enough_wall_time_is_left() {
    let mut ledger = Ledger::new(&resources());
    let minute = Duration::from_secs(60);
    let request = Cores(1) & WallTime(minute);
    assert!(ledger.allocate(&request, Some(minute)).is_some());
    assert!(ledger.allocate(&request, Some(minute / 2)).is_none());
    assert!(
        ledger
            .check(&request, Some(minute / 2))
            .unwrap_err()
            .contains("30s of wall time")
    );
    assert!(ledger.allocate(&request, None).is_some());
}

#[test]
fn a_waiting_head_says_what_it_waits_for() {
    let mut ledger = Ledger::new(&resources());
    ledger.allocate(&Cores(2).into(), None).unwrap();
    assert_eq!(
        ledger.explain(&Cores(2).into(), None),
        "waits for 2 cores, and there is 1 of `cores`"
    );
}

#[test]
fn requests_and_allocations_can_be_sent() {
    let request = Cores(1) & Memory::mib(5) | ZERO;
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    let allocation = Ledger::new(&resources())
        .allocate(&Cores(2).into(), None)
        .unwrap();
    let text = serde_json::to_string(&allocation).unwrap();
    assert_eq!(
        serde_json::from_str::<Allocation>(&text).unwrap(),
        allocation
    );
}

#[test]
fn cores_of_a_job_are_on_one_node_where_that_is_free() {
    let nodes = BTreeMap::from([(0, 0), (1, 1), (2, 0), (3, 1), (4, 1)]);
    let mut ledger = Ledger::new(&Resources::none().cores_of(0..5, &nodes));
    let mut take = |count| ledger.allocate(&Cores(count).into(), None).unwrap();
    // Node 0 has two, so that node 1 keeps its three.
    let two = take(2);
    assert_eq!(two.cores(), [0, 2]);
    let three = take(3);
    assert_eq!(three.cores(), [1, 3, 4]);
    ledger.release(&two);
    ledger.release(&three);
    // No node has four: all of the larger one, and one of the other.
    let four = ledger.allocate(&Cores(4).into(), None).unwrap();
    assert_eq!(four.cores(), [0, 1, 3, 4]);
    ledger.release(&four);
    assert!(ledger.is_all_free());
}
