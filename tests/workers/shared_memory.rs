//! Shared memory on its way to workers and back: all processes read it in place, and it is freed
//! with its last user.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Mutex;

use crate::common::{mapping_at, pid, poll_with_yields, test, with_workers};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seedbed::worker::{SharedBytes, SharedSlice, WorkerErrorKind};
use seedbed::{CancelScope, WorkerConfig, WorkerContext};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Identifies a piece of memory in the whole system, from an address in it.
fn memory_at<T>(slice: &[T]) -> String {
    let line = mapping_at(slice);
    assert!(line.contains("seedbed-shared"), "{line}");
    // Range, rights, offset; then device and inode.
    let device_and_inode: Vec<_> = line.split_ascii_whitespace().skip(3).take(2).collect();
    device_and_inode.join(" ")
}

/// Returns how many pieces of shared memory this process has mapped, and how many descriptors of
/// such it has open.
fn pieces_here() -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.matches("seedbed-shared").count();
    let listed = std::fs::read_dir("/proc/self/fd").unwrap();
    let leads_to_memory = |entry: &std::fs::DirEntry| {
        std::fs::read_link(entry.path())
            .is_ok_and(|target| target.to_string_lossy().contains("seedbed-shared"))
    };
    let open = listed.filter(|entry| leads_to_memory(entry.as_ref().unwrap()));
    (mapped, open.count())
}

async fn pieces_in(workers: &WorkerContext) -> (usize, usize) {
    workers.run_sync(|()| pieces_here(), ()).await.unwrap()
}

fn bytes(text: &str) -> SharedBytes {
    SharedBytes::copy_from(text.as_bytes()).unwrap()
}

fn a_worker_reads_the_very_same_memory() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let numbers = SharedSlice::build(10_000, |numbers: &mut [u64]| {
            numbers.fill(3);
            Ok(())
        });
        let numbers = numbers.unwrap();
        let look = |numbers: SharedSlice<u64>| (numbers.iter().sum::<u64>(), memory_at(&numbers));
        let (sum, memory) = workers.run_sync(look, numbers.clone()).await.unwrap();
        assert_eq!(sum, 30_000);
        assert_eq!(memory, memory_at(&numbers));
    }));
}

fn a_result_is_the_very_memory_that_the_worker_filled() {
    fn make(text: String) -> (SharedBytes, String) {
        let shared = bytes(&text);
        let memory = memory_at(&shared);
        (shared, memory)
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let text = "made by a worker".to_owned();
        let (shared, memory) = workers.run_sync(make, text).await.unwrap();
        assert_eq!(&*shared, b"made by a worker");
        assert_eq!(memory_at(&shared), memory);
        assert_eq!(pieces_in(&workers).await, (0, 0), "the worker has let go");
        // The memory outlives its worker, and other workers can use it.
        workers.shutdown().await.unwrap();
        assert_eq!(&shared[..4], b"made");
        with_workers(WorkerConfig::new(), |others| async move {
            let look = |shared: SharedBytes| memory_at(&shared);
            assert_eq!(others.run_sync(look, shared).await.unwrap(), memory);
        })
        .await;
    }));
}

fn a_part_of_an_argument_comes_back_as_a_part_of_the_same_memory() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let text = bytes("a weed is a plant in the wrong place");
        let word = |(text, from, to): (SharedBytes, usize, usize)| text.slice(from..to);
        let weed = workers.run_sync(word, (text.clone(), 2, 6)).await.unwrap();
        assert_eq!(&*weed, b"weed");
        assert_eq!(memory_at(&weed), memory_at(&text));
    }));
}

fn the_same_memory_goes_along_once_however_often_it_stands_in_the_argument() {
    type Many = BTreeMap<String, Vec<SharedSlice<u16>>>;
    fn count(many: Many) -> ((usize, usize), u16) {
        (pieces_here(), many.values().flatten().flatten().sum())
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let numbers = SharedSlice::copy_from(&[3u16; 1000]).unwrap();
        let each = (0..1000).map(|n| numbers.slice(n..=n)).collect();
        let other = SharedSlice::copy_from(&[5]).unwrap();
        let many = Many::from([
            ("each".to_owned(), each),
            (
                "other".to_owned(),
                vec![other.clone(), other, SharedSlice::default()],
            ),
        ]);
        let (pieces, sum) = workers.run_sync(count, many).await.unwrap();
        assert_eq!((pieces, sum), ((2, 2), 3010));
    }));
}

fn empty_slices_need_no_memory() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let look = |empty: SharedSlice<f64>| (pieces_here(), empty);
        let empty = SharedSlice::build(0, |_| Ok(())).unwrap();
        let (pieces, back) = workers.run_sync(look, empty).await.unwrap();
        assert_eq!((pieces, back.len()), ((0, 0), 0));
    }));
}

fn the_data_of_an_init_closure_is_copied() {
    static TABLE: Mutex<Option<SharedSlice<i32>>> = Mutex::new(None);
    fn keep(table: &SharedSlice<i32>) {
        *TABLE.lock().unwrap() = Some(table.clone());
    }
    fn look_up(at: usize) -> i32 {
        TABLE.lock().unwrap().as_ref().unwrap()[at]
    }
    let table = SharedSlice::copy_from(&[10, 20, 30]).unwrap();
    let config = WorkerConfig::new().init_with(table, keep);
    test(with_workers(config, |workers| async move {
        assert_eq!(workers.run_sync(look_up, 1).await.unwrap(), 20);
    }));
}

/// Memory that a job keeps stays, even if all other processes have freed it.
fn a_job_may_keep_a_clone_in_a_static() {
    static KEPT: Mutex<Option<SharedBytes>> = Mutex::new(None);
    fn keep(shared: SharedBytes) {
        *KEPT.lock().unwrap() = Some(shared);
    }
    fn look(_: ()) -> Vec<u8> {
        KEPT.lock().unwrap().as_ref().unwrap().to_vec()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        workers.run_sync(keep, bytes("for later")).await.unwrap();
        assert_eq!(workers.run_sync(look, ()).await.unwrap(), b"for later");
        assert_eq!(pieces_in(&workers).await, (1, 1));
        workers
            .run_sync(keep, SharedBytes::default())
            .await
            .unwrap();
        assert_eq!(pieces_in(&workers).await, (0, 0));
    }));
}

/// A value that cannot be decoded.
#[derive(Serialize)]
struct Fragile;

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("broke on the way"))
    }
}

/// A value that cannot be sent.
#[derive(Deserialize)]
struct Heavy;

impl Serialize for Heavy {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("too heavy"))
    }
}

fn a_call_that_fails_leaves_no_memory_in_the_worker_and_none_here() {
    fn blow_up(_: SharedBytes) {
        panic!("on purpose")
    }
    use WorkerErrorKind::{DecodeArgument, DecodeResult, EncodeArgument, EncodeResult, Panicked};
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        let shared = bytes("shared");
        let kinds = [
            workers
                .run_sync(
                    |(_, _): (SharedBytes, Fragile)| (),
                    (shared.clone(), Fragile),
                )
                .await
                .map_err(|error| error.kind()),
            workers
                .run_sync(|(_, _): (SharedBytes, Heavy)| (), (shared.clone(), Heavy))
                .await
                .map_err(|error| error.kind()),
            workers
                .run_sync(blow_up, shared.clone())
                .await
                .map_err(|error| error.kind()),
            workers
                .run_sync(|text: String| (bytes(&text), Fragile), "x".to_owned())
                .await
                .map(drop)
                .map_err(|error| error.kind()),
            workers
                .run_sync(|shared: SharedBytes| (shared, Heavy), shared.clone())
                .await
                .map(drop)
                .map_err(|error| error.kind()),
        ];
        let wanted = [
            DecodeArgument,
            EncodeArgument,
            Panicked,
            DecodeResult,
            EncodeResult,
        ];
        assert_eq!(kinds, wanted.map(Err));
        assert_eq!(pieces_in(&workers).await, (0, 0));
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
        assert_eq!(pieces_here(), (1, 1), "ours, and nothing that came back");
    }));
}

fn more_pieces_than_a_message_takes_are_an_error_before_anything_is_sent() {
    fn make(count: usize) -> Vec<SharedBytes> {
        (0..count).map(|n| bytes(&n.to_string())).collect()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let length = |pieces: Vec<SharedBytes>| pieces.iter().map(|piece| piece.len()).sum();
        let error = workers.run_sync(length, make(254)).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::EncodeArgument);
        assert!(
            error.to_string().contains("more than 253 pieces"),
            "{error}"
        );
        assert_eq!(
            workers.statistics().idle_workers,
            0,
            "no worker was needed to find out"
        );
        let total: usize = workers.run_sync(length, make(253)).await.unwrap();
        assert_eq!(total, 10 + 90 * 2 + 153 * 3);
        let back = workers.run_sync(make, 253).await.unwrap();
        assert_eq!(&*back[252], b"252");
        drop(back);
        let error = workers.run_sync(make, 254).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::EncodeResult);
        assert_eq!(pieces_in(&workers).await, (0, 0));
    }));
}

/// Limits the process to the descriptors that it has now, until the returned limit is passed to
/// `more_files`.
fn no_more_files() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let free: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let lowest_free = free.as_raw_fd() as u64;
    let current = Some(lowest_free);
    setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
    before
}

fn more_files(limit: Rlimit) {
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Large values are sent in memory of their own. Without such memory, they are sent all the same.
fn a_large_value_travels_in_any_surroundings() {
    static LIMIT: Mutex<Option<Rlimit>> = Mutex::new(None);
    fn fill_up(_: ()) {
        *LIMIT.lock().unwrap() = Some(no_more_files());
    }
    fn with_small_files(_: ()) {
        let before = getrlimit(Resource::Fsize);
        let current = Some(300_000);
        setrlimit(Resource::Fsize, Rlimit { current, ..before }).unwrap();
        more_files(LIMIT.lock().unwrap().take().unwrap());
    }
    fn louder(mut text: String) -> String {
        text.push('!');
        text
    }
    fn make(length: usize) -> String {
        "seedbed ".repeat(length / 8)
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        for length in [1 << 18, 1 << 20, 40 << 20] {
            let louder = workers.run_sync(louder, make(length)).await.unwrap();
            assert!(louder == make(length) + "!");
        }
        let limit = no_more_files();
        let length = workers
            .run_sync(|text: String| text.len(), make(1 << 20))
            .await;
        more_files(limit);
        assert_eq!(
            length.unwrap(),
            1 << 20,
            "this process could make no memory"
        );
        workers.run_sync(fill_up, ()).await.unwrap();
        let made = workers.run_sync(make, 1 << 20).await.unwrap();
        assert!(made == make(1 << 20), "the worker could make no memory");
        workers.run_sync(with_small_files, ()).await.unwrap();
        let made = workers.run_sync(make, 1 << 20).await.unwrap();
        assert!(
            made == make(1 << 20),
            "the worker could not make as much of it"
        );
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
        assert_eq!(pieces_in(&workers).await, (0, 0));
        assert_eq!(pieces_here(), (0, 0));
    }));
}

fn a_worker_that_cannot_take_the_memory_of_a_large_argument_fails_this_call_and_no_other() {
    static LIMIT: Mutex<Option<Rlimit>> = Mutex::new(None);
    fn fill_up(_: ()) {
        *LIMIT.lock().unwrap() = Some(no_more_files());
    }
    fn empty_out(_: ()) {
        more_files(LIMIT.lock().unwrap().take().unwrap());
    }
    let length = |text: String| text.len();
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        workers.run_sync(fill_up, ()).await.unwrap();
        let large = "x".repeat(1 << 20);
        let error = workers.run_sync(length, large.clone()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::DecodeArgument);
        assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
        workers.run_sync(empty_out, ()).await.unwrap();
        assert_eq!(workers.run_sync(length, large).await.unwrap(), 1 << 20);
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
    }));
}

fn a_worker_with_too_many_files_open_fails_this_call_and_no_other() {
    static LIMIT: Mutex<Option<Rlimit>> = Mutex::new(None);
    fn fill_up(_: ()) {
        *LIMIT.lock().unwrap() = Some(no_more_files());
    }
    fn empty_out(_: ()) {
        more_files(LIMIT.lock().unwrap().take().unwrap());
    }
    let length = |shared: SharedBytes| shared.len();
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        workers.run_sync(fill_up, ()).await.unwrap();
        let error = workers.run_sync(length, bytes("four")).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::DecodeArgument);
        assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
        workers.run_sync(empty_out, ()).await.unwrap();
        assert_eq!(workers.run_sync(length, bytes("four")).await.unwrap(), 4);
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
        assert_eq!(pieces_in(&workers).await, (0, 0));
    }));
}

fn a_parent_with_too_many_files_open_fails_this_call_and_no_other() {
    fn make(text: String) -> SharedBytes {
        bytes(&text)
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        let limit = no_more_files();
        let made = workers.run_sync(make, "made".to_owned()).await;
        more_files(limit);
        let error = made.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::DecodeResult);
        assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
        let made = workers.run_sync(make, "made".to_owned()).await.unwrap();
        assert_eq!(&*made, b"made");
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
    }));
}

fn memory_that_cannot_be_had_is_an_error_and_no_signal() {
    fn with_small_files(_: ()) -> [String; 3] {
        const LIMIT: usize = 1 << 20;
        let before = getrlimit(Resource::Fsize);
        let current = Some(LIMIT as u64);
        setrlimit(Resource::Fsize, Rlimit { current, ..before }).unwrap();
        let just_fits = SharedBytes::copy_from(&[1; LIMIT]).unwrap();
        assert_eq!(just_fits.len(), LIMIT);
        let mut writer = SharedBytes::writer().unwrap();
        let errors = [
            SharedBytes::copy_from(&[1; LIMIT + 1]).unwrap_err(),
            SharedBytes::build(2 * LIMIT, |_| Ok(())).unwrap_err(),
            writer.write_all(&[1; LIMIT + 1]).unwrap_err(),
        ];
        errors.map(|error| error.kind().to_string())
    }
    fn beyond_all_addresses(_: ()) -> String {
        let error = SharedBytes::build(1 << 47, |_| Ok(())).unwrap_err();
        error.kind().to_string()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let kind = workers.run_sync(beyond_all_addresses, ()).await;
        assert_eq!(kind.unwrap(), "out of memory");
        let kinds = workers.run_sync(with_small_files, ()).await;
        assert_eq!(kinds.unwrap(), ["file too large"; 3]);
    }));
}

fn a_worker_without_addresses_fails_the_call_that_needs_them() {
    fn limit_addresses(more: u64) {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
        let before = getrlimit(Resource::As);
        let current = Some(pages * rustix::param::page_size() as u64 + more);
        setrlimit(Resource::As, Rlimit { current, ..before }).unwrap();
    }
    let length = |shared: SharedBytes| shared.len();
    test(with_workers(WorkerConfig::new(), |workers| async move {
        workers.run_sync(limit_addresses, 16 << 20).await.unwrap();
        let large = SharedBytes::build(32 << 20, |_| Ok(())).unwrap();
        let error = workers.run_sync(length, large.clone()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::DecodeArgument);
        assert!(error.to_string().contains("cannot be mapped"), "{error}");
        let small = bytes("small");
        assert_eq!(workers.run_sync(length, small).await.unwrap(), 5);
    }));
}

/// A replacement that a faulty job returns in place of its memory.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Forgery {
    NoMemory,
    Unsealed,
    Hollow,
    Short,
}

fn forge((shared, forgery): (SharedBytes, Forgery)) -> SharedBytes {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    let memory = |contents: &[u8], length: u64, seals| {
        let file = memfd_create("forged", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::write(&file, contents).unwrap();
        ftruncate(&file, length).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file
    };
    let forged: OwnedFd = match forgery {
        Forgery::NoMemory => std::fs::File::open("/dev/zero").unwrap().into(),
        Forgery::Unsealed => memory(&shared, 4, SealFlags::SHRINK | SealFlags::GROW),
        Forgery::Hollow => memory(&shared, 1 << 40, all),
        Forgery::Short => memory(&shared, 3, all),
    };
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if target.to_string_lossy().contains("seedbed-shared") {
            let number = entry.file_name().to_string_lossy().parse().unwrap();
            // SAFETY: the number stays that of an open descriptor, which its owner closes.
            let replaced = unsafe { libc::dup2(forged.as_raw_fd(), number) };
            assert_eq!(replaced, number);
        }
    }
    shared
}

fn forged_memory_is_an_error_of_this_call_and_never_looked_at() {
    let forgeries = [
        (Forgery::NoMemory, "is not of shared memory"),
        (Forgery::Unsealed, "is not sealed"),
        (Forgery::Hollow, "has holes"),
        (Forgery::Short, "has 3 bytes, and should have 4"),
    ];
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        for (forgery, words) in forgeries {
            let call = workers.run_sync(forge, (bytes("four"), forgery));
            let error = call.await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::DecodeResult);
            assert!(error.to_string().contains(words), "{error}");
        }
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
        assert_eq!(pieces_here(), (0, 0));
    }));
}

fn forever(_: SharedBytes) {
    loop {
        std::hint::spin_loop();
    }
}

fn a_call_that_is_killed_leaves_no_memory() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for times in 1..20 {
            let scope = CancelScope::new();
            let call = workers.run_sync(forever, bytes("x")).kill_on_cancel(true);
            let cancelling = async {
                for _ in 0..times {
                    smol::future::yield_now().await;
                }
                scope.cancel();
            };
            let (outcome, ()) = smol::future::zip(scope.run(call), cancelling).await;
            assert!(outcome.is_none());
            assert_eq!(pieces_here(), (0, 0));
        }
    }));
}

fn a_call_that_is_dropped_leaves_no_memory() {
    let length = |shared: SharedBytes| shared.len();
    test(with_workers(WorkerConfig::new(), |workers| async move {
        drop(workers.run_sync(length, bytes("never polled")));
        assert_eq!(pieces_here(), (0, 0));
        for kill in [false, true] {
            let mut times = 1;
            loop {
                let call = workers.run_sync(length, bytes("x")).kill_on_cancel(kill);
                if poll_with_yields(call.into_future(), times).await || times == 50 {
                    break;
                }
                times += 1;
            }
        }
        // `test` waits for jobs in the background, and checks them.
    }));
}

fn a_worker_that_dies_with_memory_in_hand_leaves_none_here() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        fn die(_: SharedBytes) {
            std::process::abort()
        }
        let error = workers.run_sync(die, bytes("x")).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Broken);
        assert_eq!(pieces_here(), (0, 0));
    }));
}

fn calls_at_once_share_one_piece_of_memory() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let numbers = SharedSlice::copy_from(&(0..100_000u64).collect::<Vec<_>>()).unwrap();
        let part = |part: SharedSlice<u64>| part.iter().sum::<u64>();
        let total = seedbed::open_nursery(async |n| {
            let parts = (0..10).map(|k| numbers.slice(k * 10_000..(k + 1) * 10_000));
            let calls: Vec<_> = parts
                .map(|slice| n.spawn(workers.run_sync(part, slice)))
                .collect();
            let mut total = 0;
            for call in calls {
                total += call.await.unwrap();
            }
            total
        });
        assert_eq!(total.await, 100_000 * 99_999 / 2);
        assert_eq!(pieces_here(), (1, 1));
    }));
}

suite! {
    a_worker_reads_the_very_same_memory,
    a_result_is_the_very_memory_that_the_worker_filled,
    a_part_of_an_argument_comes_back_as_a_part_of_the_same_memory,
    the_same_memory_goes_along_once_however_often_it_stands_in_the_argument,
    empty_slices_need_no_memory,
    the_data_of_an_init_closure_is_copied,
    a_job_may_keep_a_clone_in_a_static,
    a_call_that_fails_leaves_no_memory_in_the_worker_and_none_here,
    more_pieces_than_a_message_takes_are_an_error_before_anything_is_sent,
    a_large_value_travels_in_any_surroundings,
    a_worker_that_cannot_take_the_memory_of_a_large_argument_fails_this_call_and_no_other,
    a_worker_with_too_many_files_open_fails_this_call_and_no_other,
    a_parent_with_too_many_files_open_fails_this_call_and_no_other,
    memory_that_cannot_be_had_is_an_error_and_no_signal,
    a_worker_without_addresses_fails_the_call_that_needs_them,
    forged_memory_is_an_error_of_this_call_and_never_looked_at,
    a_call_that_is_killed_leaves_no_memory,
    a_call_that_is_dropped_leaves_no_memory,
    a_worker_that_dies_with_memory_in_hand_leaves_none_here,
    calls_at_once_share_one_piece_of_memory,
}
