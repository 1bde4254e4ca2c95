//! Watches how files of a folder get their names.

#![allow(dead_code)] // each test program uses its own part of this

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;

/// The changes that programs make to the files of a folder, as the kernel records them.
pub struct Renames(OwnedFd);

impl Renames {
    /// Begins to watch a folder, which is made.
    pub fn watch(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let events = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        let changes = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::MOVED_TO;
        add_watch(&events, folder, changes).unwrap();
        Self(events)
    }

    /// Returns how many files have got a name with this ending since the last call. Panics if one
    /// was made or written under that name, so that a reader could have seen a part of it.
    pub fn only_whole_files(&self, ending: &str) -> usize {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut buffer);
        let mut renamed = 0;
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return renamed,
                Err(error) => panic!("{error}"),
            };
            assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW));
            let name = event.file_name().unwrap().to_str().unwrap();
            if name.ends_with(ending) {
                assert_eq!(event.events(), ReadFlags::MOVED_TO, "{name}");
                renamed += 1;
            }
        }
    }
}
