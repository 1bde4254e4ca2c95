//! Writes what a block does as a trace that Perfetto and `chrome://tracing` show.
//!
//! The format is an array of JSON objects, one in a line. A job is a slice in the row of each of
//! its cores, from the grant of its resources to their release. Jobs that have no core, or a part
//! of one that another job uses, have rows of their own, because slices of a row must not overlap.
//! A dependency is an arrow: from the end of a slice to the beginning of the one that needs its
//! result, or to the moment at which a future receives it; and from the moment at which a future
//! submits a job to the beginning of that.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::delayed::value::awaiter::JobId;

/// A row of the trace.
#[derive(Clone, Copy)]
struct Row {
    place: RowPlace,
    /// The number that the row has in the file.
    number: usize,
}

/// The core whose slices a row shows. `part` is 0 for the first row of a core, and more where
/// several jobs share it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct RowPlace {
    /// `None` for jobs without cores.
    core: Option<usize>,
    part: usize,
}

/// Orders rows by their core, and then by their part.
impl Ord for RowPlace {
    fn cmp(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        tests::COMPARISONS.set(tests::COMPARISONS.get() + 1);
        (self.core, self.part).cmp(&(other.core, other.part))
    }
}

impl PartialOrd for RowPlace {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A slice that has begun.
struct Slice {
    name: &'static str,
    begun: Duration,
    rows: Vec<Row>,
    allocation: String,
    /// The jobs from whose results it has received values.
    received: HashSet<JobId>,
}

/// A moment in a row, at which an arrow begins or ends.
#[derive(Clone, Copy)]
struct Point {
    row: usize,
    at: Duration,
}

/// The beginnings of arrows that lead to a job which has not begun.
#[derive(Default)]
struct Before {
    /// Jobs whose results it has received.
    results: Vec<JobId>,
    /// The moment in a slice at which it was submitted.
    submitted: Option<Point>,
}

/// The writer of a trace.
pub(super) struct Trace {
    out: Box<dyn Write + Send>,
    begun: Instant,
    /// How many rows there are.
    rows: usize,
    /// The rows that no slice uses now, with their numbers.
    free: BTreeMap<RowPlace, usize>,
    /// How many rows each core has.
    parts: HashMap<Option<usize>, usize>,
    running: HashMap<JobId, Slice>,
    /// The moments just before the ends of the slices of ended jobs.
    ends: HashMap<JobId, Point>,
    /// The arrows that lead to jobs which have not begun.
    before: HashMap<JobId, Before>,
    arrows: u64,
    /// The first error of the writer. After it, nothing is written.
    error: Option<io::Error>,
}

impl Trace {
    /// Begins a trace with a row for each core.
    pub(super) fn new(
        out: impl Write + Send + 'static,
        name: &str,
        cores: &[usize],
        now: Instant,
    ) -> Self {
        let mut trace = Self {
            out: Box::new(out),
            begun: now,
            rows: 0,
            free: BTreeMap::new(),
            parts: HashMap::new(),
            running: HashMap::new(),
            ends: HashMap::new(),
            before: HashMap::new(),
            arrows: 0,
            error: None,
        };
        trace.write(format_args!(
            "[\n{{\"ph\":\"M\",\"pid\":1,\"tid\":0,\"name\":\"process_name\",\"args\":{{\"name\":\"{}\"}}}}",
            Escaped(name)
        ));
        for &core in cores {
            let row = trace.add_row(Some(core));
            trace.free.insert(row.place, row.number);
        }
        trace
    }

    fn write(&mut self, line: std::fmt::Arguments<'_>) {
        if self.error.is_none() {
            self.error = self.out.write_fmt(line).err();
        }
    }

    /// Adds a row of a core, which is in use, and writes its name.
    fn add_row(&mut self, core: Option<usize>) -> Row {
        let parts = self.parts.entry(core).or_default();
        self.rows += 1;
        let number = self.rows;
        let part = *parts;
        *parts += 1;
        let mut name = match core {
            Some(core) => format!("core {core}"),
            None => "no core".to_owned(),
        };
        if part > 0 {
            let _ = write!(name, " ({})", part + 1); // a string takes everything
        }
        // Cores in their order, and each one's parts behind it; jobs without cores at the end.
        let first = core.map_or(u32::MAX as usize, |core| core * 1000);
        let order = first.saturating_add(part);
        self.write(format_args!(
            ",\n{{\"ph\":\"M\",\"pid\":1,\"tid\":{number},\"name\":\"thread_name\",\"args\":{{\"name\":\"{name}\"}}}}\
             ,\n{{\"ph\":\"M\",\"pid\":1,\"tid\":{number},\"name\":\"thread_sort_index\",\"args\":{{\"sort_index\":{order}}}}}"
        ));
        Row {
            place: RowPlace { core, part },
            number,
        }
    }

    /// Takes the first free row of a core.
    fn take_row(&mut self, core: Option<usize>) -> Row {
        let part = |part| RowPlace { core, part };
        let mut of_core = self.free.range(part(0)..=part(usize::MAX));
        match of_core
            .next()
            .map(|(&place, &number)| Row { place, number })
        {
            Some(row) => {
                self.free.remove(&row.place);
                row
            }
            None => self.add_row(core),
        }
    }

    /// Records that a future, which may run, has submitted a job.
    pub(super) fn submit(&mut self, job: JobId, by: JobId, now: Instant) {
        if let Some(slice) = self.running.get(&by) {
            let at = self.just_before(now).max(slice.begun);
            let row = slice.rows[0].number;
            self.before.entry(job).or_default().submitted = Some(Point { row, at });
        }
    }

    /// Records that a job has received values that come from the results of others. It may run, or
    /// begin later.
    pub(super) fn depend(&mut self, job: JobId, on: Vec<JobId>, now: Instant) {
        let at = self.just_before(now);
        let Some(slice) = self.running.get_mut(&job) else {
            self.before.entry(job).or_default().results.extend(on);
            return;
        };
        // A job that has not ended yet has no part in this value, which is an error of another one.
        let ended = on
            .into_iter()
            .filter_map(|other| Some((other, *self.ends.get(&other)?)));
        let from: Vec<Point> = ended
            .filter(|(other, _)| slice.received.insert(*other))
            .map(|(_, end)| end)
            .collect();
        let to = Point {
            row: slice.rows[0].number,
            at: at.max(slice.begun),
        };
        for from in from {
            self.write_arrow(from, to, "result");
        }
    }

    /// Returns the time just before `now`. An arrow belongs to a slice only if it begins or ends
    /// before that ends, and the slice may end now.
    fn just_before(&self, now: Instant) -> Duration {
        let since_begin = now.saturating_duration_since(self.begun);
        since_begin.saturating_sub(Duration::from_nanos(1))
    }

    fn write_arrow(&mut self, from: Point, to: Point, name: &str) {
        self.arrows += 1;
        let id = self.arrows;
        let (begun, ended) = (Micros(from.at), Micros(to.at));
        let (from, to) = (from.row, to.row);
        self.write(format_args!(
            ",\n{{\"ph\":\"s\",\"pid\":1,\"tid\":{from},\"ts\":{begun},\"id\":{id},\"cat\":\"job\",\"name\":\"{name}\"}}\
             ,\n{{\"ph\":\"f\",\"bp\":\"e\",\"pid\":1,\"tid\":{to},\"ts\":{ended},\"id\":{id},\"cat\":\"job\",\"name\":\"{name}\"}}"
        ));
    }

    /// Begins the slice of a job.
    pub(super) fn begin(
        &mut self,
        job: JobId,
        name: &'static str,
        cores: &[usize],
        allocation: String,
        now: Instant,
    ) {
        let begun = now.saturating_duration_since(self.begun);
        let rows: Vec<Row> = match cores {
            [] => vec![self.take_row(None)],
            cores => cores
                .iter()
                .map(|&core| self.take_row(Some(core)))
                .collect(),
        };
        let to = Point {
            row: rows[0].number,
            at: begun,
        };
        let before = self.before.remove(&job).unwrap_or_default();
        if let Some(from) = before.submitted {
            self.write_arrow(from, to, "submitted");
        }
        for other in before.results {
            if let Some(&from) = self.ends.get(&other) {
                self.write_arrow(from, to, "result");
            }
        }
        let slice = Slice {
            name,
            begun,
            rows,
            allocation,
            received: HashSet::new(),
        };
        self.running.insert(job, slice);
    }

    /// Ends the slice of a job, if it has begun, and forgets what it has waited for otherwise.
    pub(super) fn end(&mut self, job: JobId, now: Instant) {
        self.before.remove(&job);
        let Some(slice) = self.running.remove(&job) else {
            return;
        };
        let ended = now.saturating_duration_since(self.begun);
        let (name, allocation) = (Escaped(slice.name), Escaped(&slice.allocation));
        let (begun, took) = (
            Micros(slice.begun),
            Micros(ended.saturating_sub(slice.begun)),
        );
        for (at, row) in slice.rows.iter().enumerate() {
            let number = row.number;
            self.free.insert(row.place, number);
            if at == 0 {
                let end = Point {
                    row: number,
                    at: self.just_before(now).max(slice.begun),
                };
                self.ends.insert(job, end);
            }
            self.write(format_args!(
                ",\n{{\"ph\":\"X\",\"pid\":1,\"tid\":{number},\"ts\":{begun},\"dur\":{took},\"cat\":\"job\",\
                 \"name\":\"{name}\",\"args\":{{\"has\":\"{allocation}\"}}}}"
            ));
        }
    }

    /// Ends the trace.
    ///
    /// # Errors
    ///
    /// The first error of the writer.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.write(format_args!("\n]\n"));
        match self.error.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }
}

/// Writes a time in microseconds, with three decimal places.
struct Micros(Duration);

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = self.0.as_nanos();
        write!(f, "{}.{:03}", nanos / 1000, nanos % 1000)
    }
}

/// Writes a text as the inside of a JSON string.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                '\0'..' ' => write!(f, "\\u{:04x}", u32::from(character))?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;
    use crate::sys::primitives::lock;

    /// A file in memory, which may be full.
    #[derive(Clone, Default)]
    struct File {
        text: Arc<Mutex<Vec<u8>>>,
        is_full: bool,
    }

    impl Write for File {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.is_full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            lock(&self.text).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the events with this phase.
    fn events<'a>(trace: &'a Value, phase: &str) -> Vec<&'a Value> {
        let all = trace.as_array().unwrap().iter();
        all.filter(|event| event["ph"] == phase).collect()
    }

    #[test]
    fn slices_of_a_row_do_not_overlap_and_arrows_lead_from_end_to_beginning() {
        let file = File::default();
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut trace = Trace::new(file.clone(), "a \"name\"\n", &[0, 3], begun);
        let jobs: Vec<JobId> = (0..5).map(|_| JobId::next()).collect();
        trace.begin(jobs[0], "both", &[0, 3], "cores 0,3".into(), at(0));
        trace.end(jobs[0], at(2));
        trace.depend(jobs[1], vec![jobs[0], jobs[4]], at(2));
        trace.begin(jobs[1], "half<'\"'>", &[3], String::new(), at(2));
        trace.begin(jobs[2], "other half", &[3], String::new(), at(3));
        trace.begin(jobs[3], "none", &[], String::new(), at(3));
        for job in [jobs[1], jobs[2], jobs[3], jobs[4], jobs[1]] {
            trace.end(job, at(5));
        }
        trace.finish().unwrap();
        let trace: Value = serde_json::from_slice(&lock(&file.text)).unwrap();

        let names: Vec<(u64, &str)> = events(&trace, "M")
            .iter()
            .filter(|event| event["name"] == "thread_name")
            .map(|event| {
                let name = event["args"]["name"].as_str().unwrap();
                (event["tid"].as_u64().unwrap(), name)
            })
            .collect();
        let rows = ["core 0", "core 3", "core 3 (2)", "no core"];
        assert_eq!(names, (1..).zip(rows).collect::<Vec<_>>());
        let slices: Vec<_> = events(&trace, "X")
            .iter()
            .map(|event| {
                let number = |key: &str| event[key].as_f64().unwrap();
                let name = event["name"].as_str().unwrap();
                (name, number("tid"), number("ts"), number("dur"))
            })
            .collect();
        let expected = [
            ("both", 1.0, 0.0, 2000.0),
            ("both", 2.0, 0.0, 2000.0),
            ("half<'\"'>", 2.0, 2000.0, 3000.0),
            ("other half", 3.0, 3000.0, 2000.0),
            ("none", 4.0, 3000.0, 2000.0),
        ];
        assert_eq!(slices, expected);
        let (from, to) = (events(&trace, "s"), events(&trace, "f"));
        assert_eq!((from.len(), to.len()), (1, 1));
        assert_eq!(from[0]["id"], to[0]["id"]);
        assert_eq!((&from[0]["tid"], &to[0]["tid"]), (&1.into(), &2.into()));
        assert_eq!(
            (&from[0]["ts"], &to[0]["ts"]),
            (&1999.999.into(), &2000.0.into())
        );
        assert_eq!(events(&trace, "M")[0]["args"]["name"], "a \"name\"\n");
    }

    thread_local! {
        /// How often two rows were compared.
        pub(super) static COMPARISONS: Cell<usize> = const { Cell::new(0) };
    }

    /// Returns how often rows are compared in a trace of this many jobs, which all run at once,
    /// twice.
    fn comparisons(jobs: usize) -> usize {
        let (before, now) = (COMPARISONS.get(), Instant::now());
        let mut trace = Trace::new(io::sink(), "many", &[], now);
        let jobs: Vec<JobId> = (0..jobs).map(|_| JobId::next()).collect();
        for _ in 0..2 {
            for &job in &jobs {
                trace.begin(job, "job", &[], String::new(), now);
            }
            assert_eq!(trace.rows, jobs.len());
            for &job in &jobs {
                trace.end(job, now);
            }
        }
        trace.finish().unwrap();
        COMPARISONS.get() - before
    }

    #[test]
    fn the_rows_of_many_jobs_at_once_are_found_without_a_search_through_all() {
        let (few, many) = (comparisons(1000), comparisons(20_000));
        assert!(many < 40 * few, "{few} for 1000, {many} for 20,000");
    }

    #[test]
    fn nothing_is_kept_of_a_job_that_ends_without_having_begun() {
        let mut trace = Trace::new(io::sink(), "name", &[], Instant::now());
        let (argument, job) = (JobId::next(), JobId::next());
        trace.depend(job, vec![argument], Instant::now());
        trace.end(job, Instant::now());
        assert!(trace.before.is_empty());
    }

    #[test]
    fn the_first_error_of_the_writer_ends_the_trace() {
        let file = File {
            is_full: true,
            ..File::default()
        };
        let mut trace = Trace::new(file, "full", &[0], Instant::now());
        let job = JobId::next();
        trace.begin(job, "job", &[0], String::new(), Instant::now());
        trace.end(job, Instant::now());
        let error = trace.finish().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
