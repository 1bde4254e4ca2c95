//! The cause of a worker's end, which used to be told by the text on its standard error only, and
//! no claim where the cause is another one.

use std::time::Duration;

use crate::common;
use crate::common::stage::kill;
use crate::common::{endless, test, with_workers};
use rustix::process::{Resource, Rlimit, setrlimit};
use seedbed::worker::{ExitCause, WorkerErrorKind};
use seedbed::{WorkerConfig, WorkerContext, WorkerError};

const MEGABYTE: usize = 1 << 20;

fn limit(resource: Resource, bytes: u64) {
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    setrlimit(resource, limit).unwrap();
}

/// Crashes are meant here, and need no core dump.
fn without_core_dumps() -> WorkerConfig {
    WorkerConfig::new().init(|| limit(Resource::Core, 0))
}

/// The ways to end a worker.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
enum Way {
    OneVector,
    ManyBoxes,
    VectorInThread,
    RefusedThenAbort,
    Recursion,
    RecursionInThread,
    NullPointer,
    WildPointer,
    BeyondTheStack,
    Abort,
    Exit,
    Spin,
    BigFile,
}

#[allow(unconditional_recursion)]
fn recurse(n: u64) -> u64 {
    let room = std::hint::black_box([n; 64]);
    room[7] + recurse(n + 1)
}

fn write_to(address: usize) {
    // SAFETY: none: the worker process is to crash.
    #[allow(unsafe_code)]
    unsafe {
        std::ptr::without_provenance_mut::<u64>(address).write_volatile(7)
    }
}

fn in_thread(job: impl FnOnce() + Send + 'static) {
    std::thread::spawn(job).join().unwrap();
}

fn end(way: Way) {
    match way {
        Way::OneVector => drop(std::hint::black_box(vec![0_u8; 1000 * MEGABYTE])),
        Way::ManyBoxes => {
            let mut boxes = Vec::new();
            loop {
                boxes.push(Box::new([1_u8; 1000]));
            }
        }
        Way::VectorInThread => in_thread(|| end(Way::OneVector)),
        Way::RefusedThenAbort => {
            let mut vector = Vec::<u8>::new();
            vector.try_reserve(1000 * MEGABYTE).unwrap_err();
            std::process::abort()
        }
        Way::Recursion => _ = recurse(0),
        Way::RecursionInThread => in_thread(|| _ = recurse(0)),
        Way::NullPointer => write_to(8),
        Way::WildPointer => write_to(1 << 46),
        Way::BeyondTheStack => {
            let local = 0_u64;
            let mut address = (&raw const local).addr();
            loop {
                address += 4096;
                write_to(address);
            }
        }
        Way::Abort => std::process::abort(),
        Way::Exit => std::process::exit(3),
        Way::Spin => loop {
            std::hint::spin_loop();
        },
        Way::BigFile => {
            limit(Resource::Fsize, 10);
            let file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut &file, &[0; 100]).unwrap();
        }
    }
}

async fn ended(workers: &WorkerContext, way: Way) -> (ExitCause, String) {
    let error = workers.run_sync(end, way).await.unwrap_err();
    assert_eq!(error.kind(), WorkerErrorKind::Broken, "{error}");
    (cause(&error), error.to_string())
}

fn cause(error: &WorkerError) -> ExitCause {
    error.exit().unwrap().cause()
}

/// With musl, whose functions have no unwind tables, one large allocation is not recognised.
const WAYS_OUT_OF_MEMORY: &[Way] = if cfg!(target_env = "musl") {
    &[Way::ManyBoxes]
} else {
    &[Way::OneVector, Way::ManyBoxes, Way::VectorInThread]
};

fn a_worker_that_runs_out_of_memory_says_so_with_its_limit() {
    let config = without_core_dumps().memory_limit(300 << 20);
    test(with_workers(config, |workers| async move {
        // As the first job, and in a worker that has run others.
        for warm in [false, true] {
            for &way in WAYS_OUT_OF_MEMORY {
                if warm {
                    for _ in 0..3 {
                        workers.run_sync(common::pid, ()).await.unwrap();
                    }
                }
                let (cause, text) = ended(&workers, way).await;
                assert_eq!(cause, ExitCause::OutOfMemory, "{way:?}: {text}");
                for part in ["out of memory", "300.0 MiB", "SIGABRT", "memory_limit"] {
                    assert!(text.contains(part), "{part} is not in: {text}");
                }
            }
        }
    }));
}

fn memory_that_another_limit_refuses_counts_too() {
    let config = without_core_dumps().init(|| limit(Resource::Data, 300 << 20));
    test(with_workers(config, |workers| async move {
        let (cause, text) = ended(&workers, WAYS_OUT_OF_MEMORY[0]).await;
        assert_eq!(cause, ExitCause::OutOfMemory);
        assert!(!text.contains("memory_limit"), "{text}");
    }));
}

fn an_abort_after_a_refused_allocation_is_only_a_crash() {
    let config = without_core_dumps().memory_limit(300 << 20);
    test(with_workers(config, |workers| async move {
        for way in [Way::RefusedThenAbort, Way::Abort, Way::NullPointer] {
            let (cause, text) = ended(&workers, way).await;
            assert_eq!(cause, ExitCause::Crashed, "{way:?}: {text}");
        }
    }));
}

fn a_stack_overflow_is_recognised_on_every_stack() {
    test(async {
        let ways = [Way::Recursion, Way::RecursionInThread];
        with_workers(without_core_dumps(), |workers| async move {
            for way in ways {
                let (cause, text) = ended(&workers, way).await;
                assert_eq!(cause, ExitCause::StackOverflow, "{way:?}: {text}");
                assert!(text.contains("overflowed its stack"), "{text}");
            }
        })
        .await;
        #[cfg(feature = "stack_size")]
        with_workers(
            without_core_dumps().stack_size(MEGABYTE),
            |workers| async move {
                let (cause, text) = ended(&workers, Way::Recursion).await;
                assert_eq!(cause, ExitCause::StackOverflow, "{text}");
                assert!(text.contains("1048576"), "{text}");
            },
        )
        .await;
    });
}

fn a_wild_pointer_is_no_stack_overflow() {
    test(with_workers(without_core_dumps(), |workers| async move {
        for way in [Way::NullPointer, Way::WildPointer, Way::BeyondTheStack] {
            let (cause, text) = ended(&workers, way).await;
            assert_eq!(cause, ExitCause::Crashed, "{way:?}: {text}");
        }
    }));
}

fn the_kernels_limits_are_recognised_by_their_signals() {
    let limit = Duration::from_millis(50);
    let config = without_core_dumps().cpu_limit(limit);
    test(with_workers(config, |workers| async move {
        let (cause, text) = ended(&workers, Way::Spin).await;
        assert_eq!(cause, ExitCause::CpuLimit);
        assert!(text.contains("50ms"), "{text}");
        let (cause, _) = ended(&workers, Way::BigFile).await;
        assert_eq!(cause, ExitCause::FileSizeLimit);
    }));
}

fn other_ends_are_told_apart() {
    test(with_workers(without_core_dumps(), |workers| async move {
        assert_eq!(ended(&workers, Way::Exit).await.0, ExitCause::Exited);
        let call = workers.run_sync(endless, ());
        let error = call.time_limit(Duration::ZERO).await.unwrap_err();
        assert_eq!(cause(&error), ExitCause::KilledByParent);

        let stage = common::stage::Stage::new();
        let call = workers.run_sync(common::stage::forever, stage.path());
        let killed = async { kill(stage.reached().await) };
        let call = std::future::IntoFuture::into_future(call);
        let (result, ()) = smol::future::zip(call, killed).await;
        assert_eq!(cause(&result.unwrap_err()), ExitCause::KilledFromOutside);
    }));
}

suite! {
    a_worker_that_runs_out_of_memory_says_so_with_its_limit,
    memory_that_another_limit_refuses_counts_too,
    an_abort_after_a_refused_allocation_is_only_a_crash,
    a_stack_overflow_is_recognised_on_every_stack,
    a_wild_pointer_is_no_stack_overflow,
    the_kernels_limits_are_recognised_by_their_signals,
    other_ends_are_told_apart,
}
