//! The identity of code: where a function lies in the executable image.
//!
//! A parent cannot send a function, but its workers are the same image, so a place in it names the same instructions on
//! both sides. For each use there is a *trampoline*, a plain function made by the compiler for one job type `F`, that
//! decodes, calls `F` and encodes. Its offset from the image's base is what travels.
//!
//! That a caller's `F` needs no data of its own is checked when the program is compiled: it must be zero-sized. The
//! trampoline makes its `F` out of nothing, therefore; see [`conjure`] for why it may.
//!
//! Looking up an offset is the one `unsafe` step that could be steered from outside, so it is fenced in three ways: the
//! two processes have compared image fingerprints; the offset must lie in an executable segment of the main image (on
//! both sides); and an offset is sent only in the frame whose kind says which type of trampoline it is.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::status::WorkerStatus;
use crate::sys::image::Image;
use crate::transport::codec;
use crate::transport::codec::CodecError;
use crate::transport::payload::body::{Arrived, Enclosures};

/// What a job's trampoline is: it takes the encoded argument with what came along, appends the encoded result, and gives what
/// goes with that.
pub(crate) type JobFn = fn(Arrived<'_>, &mut Vec<u8>) -> Result<Enclosures, JobFailure>;

/// What an init closure's trampoline is: it takes the encoded data.
pub(crate) type InitFn = fn(&[u8]) -> Result<(), CodecError>;

/// What a retire closure's trampoline is: it takes the encoded data, once, and gives what is asked after each job.
pub(crate) type RetireFn = fn(&[u8]) -> Result<Retire, CodecError>;

/// Asked after each job: is this worker to end?
pub(crate) type Retire = Box<dyn Fn(&WorkerStatus) -> bool>;

/// How a job fails without panicking.
#[derive(Debug)]
pub(crate) enum JobFailure {
    /// Its argument could not be decoded; it did not run.
    BadArgument(CodecError),
    /// Its result could not be encoded.
    BadResult(CodecError),
}

/// The place of a trampoline of type `P` in the main executable.
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
    /// Returns what travels.
    pub(crate) fn offset(self) -> u64 {
        self.offset
    }

    fn of_address(address: usize) -> Option<Self> {
        let offset = Image::of_this_process().offset_of_code(address)?;
        Some(Self {
            offset,
            trampoline: PhantomData,
        })
    }
}

/// The closures that users give: they capture nothing, may be copied, and may be called in any thread or process.
pub(crate) trait Portable: Copy + Send + Sync + 'static {}

impl<F: Copy + Send + Sync + 'static> Portable for F {}

impl Code<JobFn> {
    /// Names the code of a job; `None` if it does not lie in the main executable.
    pub(crate) fn of_job<F, A, R>(_f: F) -> Option<Self>
    where
        F: Fn(A) -> R + Portable,
        A: DeserializeOwned,
        R: Serialize,
    {
        const { assert_captures_nothing::<F>() };
        Self::of_address(job_trampoline::<F, A, R> as JobFn as usize)
    }

    /// Finds the trampoline in this image; `None` if there is no code at that place.
    ///
    /// # Safety
    ///
    /// `offset` must have come from a `Code<JobFn>` of a process with the same image fingerprint.
    pub(crate) unsafe fn find(offset: u64) -> Option<JobFn> {
        let address = Image::of_this_process().address_of_code(offset)?;
        // SAFETY: by the caller's promise this is where a `JobFn` lies in the same image, which is never unmapped. A
        // function pointer is as large as an address and not null, as the image's first page is no code of ours.
        Some(unsafe { std::mem::transmute::<usize, JobFn>(address) })
    }
}

impl Code<InitFn> {
    /// Names the code of an init closure; `None` if it does not lie in the main executable.
    pub(crate) fn of_init<F, D>(_f: F) -> Option<Self>
    where
        F: Fn(&D) + Portable,
        D: DeserializeOwned,
    {
        const { assert_captures_nothing::<F>() };
        Self::of_address(init_trampoline::<F, D> as InitFn as usize)
    }

    /// Finds the trampoline in this image; `None` if there is no code at that place.
    ///
    /// # Safety
    ///
    /// `offset` must have come from a `Code<InitFn>` of a process with the same image fingerprint.
    pub(crate) unsafe fn find(offset: u64) -> Option<InitFn> {
        let address = Image::of_this_process().address_of_code(offset)?;
        // SAFETY: as in `Code::<JobFn>::find`, with `InitFn` for `JobFn`.
        Some(unsafe { std::mem::transmute::<usize, InitFn>(address) })
    }
}

impl Code<RetireFn> {
    /// Names the code of a retire closure; `None` if it does not lie in the main executable.
    pub(crate) fn of_retire<F, D>(_f: F) -> Option<Self>
    where
        F: Fn(&D, &WorkerStatus) -> bool + Portable,
        D: DeserializeOwned + 'static,
    {
        const { assert_captures_nothing::<F>() };
        Self::of_address(retire_trampoline::<F, D> as RetireFn as usize)
    }

    /// Finds the trampoline in this image; `None` if there is no code at that place.
    ///
    /// # Safety
    ///
    /// `offset` must have come from a `Code<RetireFn>` of a process with the same image fingerprint.
    pub(crate) unsafe fn find(offset: u64) -> Option<RetireFn> {
        let address = Image::of_this_process().address_of_code(offset)?;
        // SAFETY: as in `Code::<JobFn>::find`, with `RetireFn` for `JobFn`.
        Some(unsafe { std::mem::transmute::<usize, RetireFn>(address) })
    }
}

fn job_trampoline<F, A, R>(
    argument: Arrived<'_>,
    out: &mut Vec<u8>,
) -> Result<Enclosures, JobFailure>
where
    F: Fn(A) -> R + Portable,
    A: DeserializeOwned,
    R: Serialize,
{
    let argument = codec::decode_arrived(argument).map_err(JobFailure::BadArgument)?;
    let result = conjure::<F>()(argument);
    codec::encode_enclosing(&result, out).map_err(JobFailure::BadResult)
}

fn init_trampoline<F, D>(data: &[u8]) -> Result<(), CodecError>
where
    F: Fn(&D) + Portable,
    D: DeserializeOwned,
{
    conjure::<F>()(&codec::decode(data)?);
    Ok(())
}

fn retire_trampoline<F, D>(data: &[u8]) -> Result<Retire, CodecError>
where
    F: Fn(&D, &WorkerStatus) -> bool + Portable,
    D: DeserializeOwned + 'static,
{
    let data = codec::decode(data)?;
    Ok(Box::new(move |status| conjure::<F>()(&data, status)))
}

const fn assert_captures_nothing<F>() {
    assert!(
        size_of::<F>() == 0,
        "a function that runs in a worker process must capture nothing: pass a plain `fn` item or a closure without \
         captured variables, and give it its data as the argument (a `fn` pointer variable does not name one function \
         at compile time and is refused, too)"
    );
}

/// Makes a zero-sized function value out of nothing.
fn conjure<F: Portable>() -> &'static F {
    const { assert_captures_nothing::<F>() };
    // SAFETY: `F` is zero-sized (checked above, at compile time), so a dangling pointer that is aligned and not null, as
    // `NonNull::dangling` is, is valid for reading its zero bytes, and no bytes can be invalid for a type that has
    // values. It has one: a trampoline for `F` is only ever named by `Code::of_*`, which takes an `F`. Its uniqueness is
    // no concern because `F: Copy`; it borrows nothing because `F: 'static`; being used on another thread than it was
    // made on is no concern because `F: Send + Sync`. What remains is a closure that captures a zero-sized token by
    // which some library proves that something was done *in this process*. No bound can exclude that, so `run_sync`
    // documents it: in a worker, such a token proves only what the code before the hook or an init closure has done.
    unsafe { NonNull::<F>::dangling().as_ref() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::arena::Views;

    fn double(n: u32) -> u32 {
        2 * n
    }

    fn call(code: Code<JobFn>, argument: &[u8]) -> Result<Vec<u8>, JobFailure> {
        let mut out = Vec::new();
        // SAFETY: the offset comes from this very process.
        let trampoline = unsafe { Code::<JobFn>::find(code.offset()) }.expect("our own code");
        // SAFETY: nothing is lent here.
        let mut views = unsafe { Views::new() };
        let argument = codec::arrived(argument, Vec::new(), &mut views);
        trampoline(argument.unwrap(), &mut out).map(|_| out)
    }

    #[test]
    fn a_function_is_found_again_by_its_offset() {
        let code = Code::of_job(double).unwrap();
        let mut argument = Vec::new();
        codec::encode_enclosing(&21u32, &mut argument).unwrap();
        let out = call(code, &argument).unwrap();
        assert_eq!(codec::decode_enclosed::<u32>(&out, Vec::new()).unwrap(), 42);
    }

    #[test]
    fn closures_of_one_type_signature_have_different_places() {
        let (one, two) = (
            Code::of_job(|n: u32| n + 1).unwrap(),
            Code::of_job(|n: u32| n + 2).unwrap(),
        );
        assert_ne!(one.offset(), two.offset());
    }

    #[test]
    fn an_argument_that_does_not_decode_is_a_failure() {
        let failure = call(Code::of_job(double).unwrap(), b"\0x").unwrap_err();
        assert!(matches!(failure, JobFailure::BadArgument(_)));
    }

    #[test]
    fn a_place_that_is_no_code_is_not_found() {
        // SAFETY: nothing is found, hence nothing called.
        assert!(unsafe { Code::<JobFn>::find(u64::MAX) }.is_none());
    }
}
