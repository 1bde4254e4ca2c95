//! The main executable in memory: its base, its segments, and a fingerprint of their layout.
//!
//! The code of a job is identified by its offset from the base of the image, because a worker has
//! the same image at another base. This file converts addresses to offsets and back. In both
//! directions it refuses values outside of the executable segments of the main image; this is the
//! only check between a received number and a jump.
//!
//! `unsafe` is needed to call `dl_iterate_phdr`, to read the program headers, and to read the
//! image's own read-only memory. The image of a running program is never unmapped.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::sync::OnceLock;

use super::fnv::Fnv;

/// The main executable image of this process.
#[derive(Debug)]
pub(crate) struct Image {
    /// Added to a virtual address of the file to get an address of this process.
    base: usize,
    segments: Vec<Segment>,
    /// The address of the program headers.
    headers: usize,
    /// The linker's note that identifies the build, or empty.
    build_id: Vec<u8>,
}

/// A loadable segment, as a range of file addresses (offsets from the base).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    range: Range<usize>,
    readable: bool,
    writable: bool,
    executable: bool,
}

impl Image {
    /// Returns the image of this process, which is read once.
    pub(crate) fn of_this_process() -> &'static Image {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        IMAGE.get_or_init(read_main_image)
    }

    /// Returns the offset of code at `address`, or `None` if no executable segment of the main
    /// image holds it.
    pub(crate) fn offset_of_code(&self, address: usize) -> Option<u64> {
        let offset = address.checked_sub(self.base)?;
        self.is_code(offset).then_some(offset as u64)
    }

    /// Returns the address of code at `offset`, or `None` if no executable segment of the main
    /// image holds it.
    pub(crate) fn address_of_code(&self, offset: u64) -> Option<usize> {
        let offset = usize::try_from(offset).ok()?; // larger than the address space: no code
        self.is_code(offset).then(|| self.base + offset)
    }

    fn is_code(&self, offset: usize) -> bool {
        self.segments
            .iter()
            .any(|segment| segment.executable && segment.range.contains(&offset))
    }

    /// Returns the linker's build identifier, empty if there is none.
    pub(crate) fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    /// Returns a hash of the layout of the segments, which differs, in all likelihood, between two
    /// builds.
    pub(crate) fn layout(&self) -> u64 {
        let mut hash = Fnv::new();
        for segment in &self.segments {
            let rights = u64::from(segment.readable)
                | u64::from(segment.writable) << 1
                | u64::from(segment.executable) << 2;
            let Range { start, end } = segment.range;
            for number in [start as u64, end as u64, rights] {
                hash.add(&number.to_le_bytes());
            }
        }
        hash.finish()
    }

    /// Returns whether the kernel executed this image, which `/proc/self/exe` then leads to. If a
    /// user executed the dynamic loader with the program as its argument, the kernel executed the
    /// loader. Also true if the kernel does not tell.
    pub(crate) fn was_executed(&self) -> bool {
        static FOUND: OnceLock<bool> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let vector = std::fs::read("/proc/self/auxv").unwrap_or_default();
            auxiliary(&vector, libc::AT_PHDR).is_none_or(|headers| headers == self.headers as u64)
        })
    }

    /// Returns whether the image's read-only memory contains `needle`.
    pub(crate) fn contains(&self, needle: &[u8]) -> bool {
        self.segments
            .iter()
            .filter(|segment| segment.readable && !segment.writable)
            .any(|segment| self.segment_contains(segment, needle))
    }

    fn segment_contains(&self, segment: &Segment, needle: &[u8]) -> bool {
        let start = (self.base + segment.range.start) as *const c_void;
        // SAFETY: `memmem` needs both ranges readable for their lengths. The first is a loaded,
        // readable segment of the running executable, which stays mapped until the process ends;
        // the second is a slice. The function only reads, and the segment is not writable, so the
        // bytes do not change.
        let found = unsafe {
            libc::memmem(
                start,
                segment.range.len(),
                needle.as_ptr().cast(),
                needle.len(),
            )
        };
        !found.is_null()
    }
}

fn read_main_image() -> Image {
    let mut image = Image {
        base: 0,
        segments: Vec::new(),
        headers: 0,
        build_id: Vec::new(),
    };
    // SAFETY: `dl_iterate_phdr` calls `on_object` only during this call, on this thread, with the
    // pointer to `image`, which is alive and not borrowed by other code until the call returns.
    unsafe { libc::dl_iterate_phdr(Some(on_object), (&raw mut image).cast()) };
    image
}

/// Takes the first object of the list, which is the main program, and ends the iteration.
///
/// # Safety
///
/// Only `dl_iterate_phdr` may call it, with `data` pointing to an [`Image`] that no other code
/// uses.
unsafe extern "C" fn on_object(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the caller passes a valid `info`, and `read_main_image` passed `data`: an exclusive
    // `Image`.
    let (info, image) = unsafe { (&*info, &mut *data.cast::<Image>()) };
    let headers = if info.dlpi_phdr.is_null() {
        &[][..]
    } else {
        // SAFETY: the loader describes `dlpi_phnum` headers at `dlpi_phdr`, aligned and not null
        // (checked). They stay mapped as long as the main program, until the process ends, and are
        // never written.
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) }
    };
    image.base = info.dlpi_addr as usize;
    image.headers = info.dlpi_phdr.addr();
    image.segments = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD)
        .map(segment)
        .collect();
    let notes = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_NOTE)
        .map(|header| segment(header).range);
    for range in notes {
        if let Some(id) = image.bytes(range).and_then(build_id) {
            image.build_id = id.to_vec();
        }
    }
    1 // not zero: the other objects are of no interest
}

#[cfg(target_pointer_width = "64")]
fn segment(header: &libc::Elf64_Phdr) -> Segment {
    let start = header.p_vaddr as usize;
    Segment {
        range: start..start.saturating_add(header.p_memsz as usize),
        readable: header.p_flags & libc::PF_R != 0,
        writable: header.p_flags & libc::PF_W != 0,
        executable: header.p_flags & libc::PF_X != 0,
    }
}

impl Image {
    /// Returns the bytes of `range`, if they lie within a read-only segment.
    fn bytes(&self, range: Range<usize>) -> Option<&'static [u8]> {
        let holder = self.segments.iter().find(|segment| {
            segment.readable
                && !segment.writable
                && segment.range.start <= range.start
                && range.end <= segment.range.end
        })?;
        debug_assert!(holder.range.len() >= range.len());
        let start = (self.base + range.start) as *const u8;
        // SAFETY: the range lies in a loaded, readable segment of the main program (just checked):
        // not null, one allocation, initialised by the loader, shorter than `isize::MAX`, and never
        // unmapped. The segment is not writable, so the bytes do not change. Bytes need no
        // alignment.
        Some(unsafe { std::slice::from_raw_parts(start, range.len()) })
    }
}

/// Returns a value of the auxiliary vector: pairs of words, a key and its value.
fn auxiliary(vector: &[u8], key: libc::c_ulong) -> Option<u64> {
    const WORD: usize = size_of::<libc::c_ulong>();
    let word = |bytes: &[u8]| Some(libc::c_ulong::from_ne_bytes(bytes.try_into().ok()?));
    let mut pairs = vector.chunks_exact(2 * WORD);
    let found = pairs.find(|pair| word(&pair[..WORD]) == Some(key))?;
    word(&found[WORD..])
}

/// Finds the GNU build identifier among ELF notes. Each note is a header of three numbers, a name
/// and a description; the last two are padded to four bytes.
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    loop {
        let name_len = number(notes, 0)? as usize;
        let id_len = number(notes, 4)? as usize;
        let kind = number(notes, 8)?;
        let name = notes.get(12..12usize.checked_add(name_len)?)?;
        let start = 12usize.checked_add(name_len.checked_next_multiple_of(4)?)?;
        let id = notes.get(start..start.checked_add(id_len)?)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return Some(id);
        }
        notes = notes.get(start.checked_add(id_len.checked_next_multiple_of(4)?)?..)?;
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_code() {}

    #[test]
    fn code_of_this_program_has_an_offset_and_leads_back() {
        let image = Image::of_this_process();
        let address = some_code as fn() as usize;
        let offset = image
            .offset_of_code(address)
            .expect("a function of ours lies in our image");
        assert_eq!(image.address_of_code(offset), Some(address));
    }

    #[test]
    fn data_and_foreign_addresses_are_no_code() {
        static DATA: u64 = 7;
        let image = Image::of_this_process();
        let local = 7;
        assert_eq!(image.offset_of_code(&raw const DATA as usize), None);
        assert_eq!(image.offset_of_code(&raw const local as usize), None);
        assert_eq!(image.offset_of_code(0), None);
        assert_eq!(image.address_of_code(u64::MAX), None);
        // The C library is another shared object, unless the target links it statically.
        if !cfg!(target_feature = "crt-static") {
            assert_eq!(
                image.offset_of_code(libc::getpid as *const () as usize),
                None
            );
        }
    }

    #[test]
    fn strings_of_the_program_are_found_and_others_not() {
        let image = Image::of_this_process();
        std::hint::black_box("a sentence that only this test holds");
        assert!(image.contains(b"a sentence that only this test holds"));
        let absent: Vec<u8> = b"egassap hcus on"
            .iter()
            .rev()
            .chain(&[1, 2, 3, 250, 251])
            .copied()
            .collect();
        assert!(!image.contains(&absent));
    }

    #[test]
    fn the_kernel_executed_this_program_and_the_auxiliary_vector_is_read_in_pairs() {
        assert!(Image::of_this_process().was_executed());
        let vector: Vec<u8> = [3u64, 6, 6, 7]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        assert_eq!(auxiliary(&vector, 6), Some(7));
        assert_eq!(auxiliary(&vector, 7), None);
        assert_eq!(auxiliary(&vector[..24], 6), None);
    }

    #[test]
    fn a_build_id_is_found_behind_other_notes_and_malformed_notes_give_none() {
        let mut notes = Vec::new();
        for (name, kind, id) in [
            (&b"Go\0"[..], 4, &b"x"[..]),
            (b"GNU\0", 1, b"abi"),
            (b"GNU\0", 3, b"0123456789"),
        ] {
            notes.extend((name.len() as u32).to_ne_bytes());
            notes.extend((id.len() as u32).to_ne_bytes());
            notes.extend(u32::to_ne_bytes(kind));
            for part in [name, id] {
                notes.extend(part);
                notes.resize(notes.len().next_multiple_of(4), 0);
            }
        }
        assert_eq!(build_id(&notes), Some(&b"0123456789"[..]));
        assert_eq!(build_id(&[255; 64]), None);
        for cut in 0..notes.len() {
            build_id(&notes[..cut]); // must not panic
        }
    }
}
