//! The identity of code: the offset of a function in the executable image.
//!
//! A parent cannot send a function, but its workers execute the same image, so an offset in it
//! means the same instructions on both sides. For each use there is a *trampoline*: a plain
//! function, instantiated for one job type `F`, that decodes the argument, calls `F` and encodes
//! the result. The parent sends its offset from the base of the image.
//!
//! A job type `F` must be zero-sized, which the callers check at compile time. So the trampoline
//! needs no data to make its `F`; see [`zero_sized`] for the argument.
//!
//! Only the lookup of an offset could be steered from outside. Three checks guard it: the two
//! processes have compared the fingerprints of their images, the offset must lie in an executable
//! segment of the main image (on both sides), and the kind of the frame says which type of
//! trampoline its offset leads to.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::status::WorkerStatus;
use crate::sys::image::Image;
use crate::transport::codec;
use crate::transport::codec_error::CodecError;
use crate::transport::job::panic::catch_within;
use crate::transport::map::serve::{ItemEnd, Server};
use crate::transport::payload::incoming::Incoming;
use crate::transport::payload::outgoing_memory::Attachments;
use crate::transport::tuning::MAP_TEXT_BYTES;

/// The trampoline of a job: decodes the argument, appends the encoded result to the buffer, and
/// returns its attachments.
pub(crate) type JobFn = fn(Incoming<'_>, &mut Vec<u8>) -> Result<Attachments, JobFailure>;

/// The trampoline of an init or preload closure: decodes the closure's data and calls the closure.
pub(crate) type InitFn = fn(&[u8]) -> Result<(), CodecError>;

/// The trampoline of a retire closure: decodes the closure's data and returns the function to call
/// after each job.
pub(crate) type RetireFn = fn(&[u8]) -> Result<Retire, CodecError>;

/// Called after each job: returns whether the worker shall retire.
pub(crate) type Retire = Box<dyn Fn(&WorkerStatus) -> bool>;

/// The failure of a job that did not panic.
#[derive(Debug)]
pub(crate) enum JobFailure {
    /// The argument could not be decoded, so the job did not run.
    BadArgument(CodecError),
    /// The result could not be encoded.
    BadResult(CodecError),
}

/// The offset of a trampoline of type `P` in the main executable.
#[derive(Debug)]
pub(crate) struct Code<P> {
    offset: u64,
    trampoline: PhantomData<P>,
}

impl<P> Clone for Code<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Code<P> {}

impl<P> Code<P> {
    /// Returns the offset that is sent to workers.
    pub(crate) fn offset(self) -> u64 {
        self.offset
    }

    fn at(trampoline: *const ()) -> Option<Self> {
        // Exposed, because `find` makes a pointer of the address alone.
        let address = trampoline.expose_provenance();
        let offset = Image::of_this_process().offset_of_code(address)?;
        Some(Self {
            offset,
            trampoline: PhantomData,
        })
    }
}

/// A closure that captures nothing, can be copied, and can be called on any thread and in any
/// process.
pub(crate) trait Portable: Copy + Send + Sync + 'static {}

impl<F: Copy + Send + Sync + 'static> Portable for F {}

impl Code<JobFn> {
    /// Returns the code of a job, or `None` if it does not lie in the main executable.
    pub(crate) fn of_job<F, A, R>(_f: F) -> Option<Self>
    where
        F: Fn(A) -> R + Portable,
        A: Serialize + DeserializeOwned,
        R: Serialize + Send + 'static,
    {
        Self::at(job_trampoline::<F, A, R> as JobFn as *const ())
    }

    /// Returns the trampoline at an offset of this image, or `None` if there is no code.
    ///
    /// # Safety
    ///
    /// `offset` must have come from a `Code<JobFn>` of a process with the same image fingerprint.
    pub(crate) unsafe fn find(offset: u64) -> Option<JobFn> {
        let trampoline = find_code(offset)?;
        // SAFETY:
        // * `*const ()` and a function pointer have the same size on all platforms of this crate,
        //   so that the `transmute` compiles; std's documentation of `fn` asks for this way from a
        //   data pointer to a function pointer.
        // * The pointer is not null: `find_code` returns an address in an executable segment, and
        //   no segment of a Linux program begins at 0.
        // * The pointer leads to a function of this type: by the caller's promise, the offset is
        //   that of a `JobFn` in a process with the same image fingerprint, hence of the same
        //   `JobFn` here, with the same signature and ABI.
        // * The function is valid for `'static`: the main image is never unmapped.
        // * The pointer has the provenance of that function: `find_code` takes up an exposed one.
        //   In the process that made the `Code`, `at` has exposed it. In a worker, no Rust code
        //   need have done so. But the executable segment is memory that the loader has mapped, and
        //   is disjoint from the stack, the heap and all statics; std documents such memory,
        //   outside of the abstract machine, as always exposed. A call accesses no memory through
        //   the pointer.
        Some(unsafe { std::mem::transmute::<*const (), JobFn>(trampoline) })
    }
}

impl Code<JobFn> {
    /// Returns the code of a session that maps a function over items, or `None` if it does not lie
    /// in the main executable.
    pub(crate) fn of_map<F, A, R>(_f: F) -> Option<Self>
    where
        F: Fn(A) -> R + Portable,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        Self::at(map_trampoline::<F, A, R> as JobFn as *const ())
    }
}

impl Code<InitFn> {
    /// Returns the code of an init closure, or `None` if it does not lie in the main executable.
    pub(crate) fn of_init<F, D>(_f: F) -> Option<Self>
    where
        F: Fn(&D) + Portable,
        D: Serialize + DeserializeOwned,
    {
        Self::at(init_trampoline::<F, D> as InitFn as *const ())
    }

    /// Returns the trampoline at an offset of this image, or `None` if there is no code.
    ///
    /// # Safety
    ///
    /// `offset` must have come from a `Code<InitFn>` of a process with the same image fingerprint.
    pub(crate) unsafe fn find(offset: u64) -> Option<InitFn> {
        let trampoline = find_code(offset)?;
        // SAFETY: each clause of `Code::<JobFn>::find` holds for `InitFn`: the caller promises that
        // the offset is that of a `Code<InitFn>`.
        Some(unsafe { std::mem::transmute::<*const (), InitFn>(trampoline) })
    }
}

impl Code<RetireFn> {
    /// Returns the code of a retire closure, or `None` if it does not lie in the main executable.
    pub(crate) fn of_retire<F, D>(_f: F) -> Option<Self>
    where
        F: Fn(&D, &WorkerStatus) -> bool + Portable,
        D: Serialize + DeserializeOwned + 'static,
    {
        Self::at(retire_trampoline::<F, D> as RetireFn as *const ())
    }

    /// Returns the trampoline at an offset of this image, or `None` if there is no code.
    ///
    /// # Safety
    ///
    /// `offset` must have come from a `Code<RetireFn>` of a process with the same image
    /// fingerprint.
    pub(crate) unsafe fn find(offset: u64) -> Option<RetireFn> {
        let trampoline = find_code(offset)?;
        // SAFETY: each clause of `Code::<JobFn>::find` holds for `RetireFn`: the caller promises
        // that the offset is that of a `Code<RetireFn>`.
        Some(unsafe { std::mem::transmute::<*const (), RetireFn>(trampoline) })
    }
}

/// Runs a job in this process: calls its function with an encoded argument, and returns the encoded
/// result, neither of which may have attachments.
#[cfg(test)]
pub(crate) fn run_here(code: Code<JobFn>, argument: &[u8]) -> Result<Vec<u8>, JobFailure> {
    use crate::sys::mapping_cache::MappingCache;

    let mut out = Vec::new();
    // SAFETY: the offset comes from a `Code<JobFn>` of this process.
    let trampoline = unsafe { Code::<JobFn>::find(code.offset()) }.expect("our own code");
    // SAFETY: no file is given to the cache in tests.
    let mut mappings = unsafe { MappingCache::new() };
    let argument = codec::locate_argument(argument, Vec::new(), &mut mappings);
    let attached = trampoline(argument.unwrap(), &mut out)?;
    assert!(attached.fds.is_empty());
    Ok(out)
}

/// Returns a pointer to the code at an offset of this image; `None` if the offset does not lie in
/// an executable segment.
fn find_code(offset: u64) -> Option<*const ()> {
    let address = Image::of_this_process().address_of_code(offset)?;
    Some(std::ptr::with_exposed_provenance(address))
}

fn job_trampoline<F, A, R>(
    argument: Incoming<'_>,
    out: &mut Vec<u8>,
) -> Result<Attachments, JobFailure>
where
    F: Fn(A) -> R + Portable,
    A: Serialize + DeserializeOwned,
    R: Serialize + Send + 'static,
{
    let argument = codec::decode_payload(argument).map_err(JobFailure::BadArgument)?;
    let result = zero_sized::<F>()(argument);
    let encoded = codec::encode_with_attachments(&result, out);
    codec::drop_encoded(result, &encoded);
    encoded.map_err(JobFailure::BadResult)
}

/// The trampoline of a map's session. The message has the session's memory and eventfd as its first
/// descriptors, and says whether items have a time limit. The result is that of the last item, if
/// it is large.
fn map_trampoline<F, A, R>(
    mut session: Incoming<'_>,
    out: &mut Vec<u8>,
) -> Result<Attachments, JobFailure>
where
    F: Fn(A) -> R + Portable,
    A: Serialize + DeserializeOwned,
    R: Serialize + Send + 'static,
{
    let lost = || JobFailure::BadArgument(CodecError::lost_descriptors());
    let (waker, memory) = (session.fds.pop(), session.fds.pop());
    let (Some(memory), Some(waker)) = (memory, waker) else {
        return Err(lost());
    };
    let is_timed = codec::decode_payload(session).map_err(JobFailure::BadArgument)?;
    let server = Server::new(memory, waker, is_timed)
        .map_err(|error| JobFailure::BadArgument(CodecError::of_shared_memory(&error)))?;
    let f = zero_sized::<F>();
    let mut large = None;
    server.serve(|item, out| {
        let argument = match codec::decode_record(item) {
            Ok(argument) => argument,
            Err(error) => return text(ItemEnd::BadArgument, &error, out),
        };
        let value = match catch_within(|| f(argument)) {
            Ok(value) => value,
            Err(report) => {
                let report = report.cut_to(MAP_TEXT_BYTES);
                codec::encode_onto(&report, out).expect("a report can be encoded");
                return ItemEnd::Panicked;
            }
        };
        let encoded = codec::encode_record(&value, out);
        match encoded {
            Ok(true) => ItemEnd::Value,
            Ok(false) => {
                large = Some(value);
                ItemEnd::Large
            }
            Err(error) => {
                let end = text(ItemEnd::BadResult, &error, out);
                codec::drop_encoded(value, &Err::<(), _>(error));
                end
            }
        }
    });
    let encoded = codec::encode_with_attachments(&large, out);
    codec::drop_encoded(large, &encoded);
    encoded.map_err(JobFailure::BadResult)
}

/// Writes the text of an error, as far as a record has room for it.
fn text(end: ItemEnd, error: &CodecError, out: &mut Vec<u8>) -> ItemEnd {
    let text = error.to_string();
    out.clear();
    out.extend_from_slice(&text.as_bytes()[..text.len().min(MAP_TEXT_BYTES)]);
    end
}

fn init_trampoline<F, D>(data: &[u8]) -> Result<(), CodecError>
where
    F: Fn(&D) + Portable,
    D: Serialize + DeserializeOwned,
{
    zero_sized::<F>()(&codec::decode(data)?);
    Ok(())
}

fn retire_trampoline<F, D>(data: &[u8]) -> Result<Retire, CodecError>
where
    F: Fn(&D, &WorkerStatus) -> bool + Portable,
    D: Serialize + DeserializeOwned + 'static,
{
    let data = codec::decode(data)?;
    Ok(Box::new(move |status| zero_sized::<F>()(&data, status)))
}

/// Refuses a function with captured variables. Called in a constant of the function that the
/// program calls, so that the compiler names the place in the program.
pub(crate) const fn assert_captures_nothing<F>() {
    assert!(
        size_of::<F>() == 0,
        "a function that runs in a worker process must capture nothing: pass a plain `fn` item or a closure without \
         captured variables, and give it its data as the argument (a `fn` pointer variable does not name one function \
         at compile time and is refused, too)"
    );
}

/// Returns a reference to a value of a zero-sized function type.
fn zero_sized<F: Portable>() -> &'static F {
    // Checked at compile time already. This check is not, because its error would name this file.
    assert!(size_of::<F>() == 0, "a job has no size");
    // SAFETY:
    // * The pointer is aligned and not null, as `NonNull::dangling` is, and `F` is zero-sized
    //   (checked above). So the pointer is valid for reads of its zero bytes.
    // * Zero bytes are a valid `F`, because `F` has a value: only `Code::of_*`, which takes an `F`,
    //   instantiates a trampoline for it.
    // * Another `F` may be made out of nothing, because `F: Copy`. It borrows nothing (`F:
    //   'static`) and may be used on any thread (`F: Send + Sync`).
    // * A closure may capture a zero-sized token with which a library proves that something was
    //   done *in this process*. No bound excludes that, so `run_sync` documents it: in a worker,
    //   such a token proves only what the code before the hook or an init closure has done.
    unsafe { NonNull::<F>::dangling().as_ref() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(n: u32) -> u32 {
        2 * n
    }

    #[test]
    fn a_function_is_found_by_its_offset() {
        let code = Code::of_job(double).unwrap();
        let mut argument = Vec::new();
        codec::encode_with_attachments(&21u32, &mut argument).unwrap();
        let out = run_here(code, &argument).unwrap();
        assert_eq!(codec::decode_received::<u32>(&out, Vec::new()).unwrap(), 42);
    }

    #[test]
    fn closures_of_one_signature_have_different_offsets() {
        let (one, two) = (
            Code::of_job(|n: u32| n + 1).unwrap(),
            Code::of_job(|n: u32| n + 2).unwrap(),
        );
        assert_ne!(one.offset(), two.offset());
    }

    #[test]
    fn an_argument_that_does_not_decode_is_a_failure() {
        let failure = run_here(Code::of_job(double).unwrap(), b"\0x").unwrap_err();
        assert!(matches!(failure, JobFailure::BadArgument(_)));
    }

    #[test]
    fn an_offset_without_code_is_not_found() {
        // SAFETY: the lookup fails before any function pointer is made.
        assert!(unsafe { Code::<JobFn>::find(u64::MAX) }.is_none());
    }
}
