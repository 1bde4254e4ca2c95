//! The message that a thread encodes or decodes, and the one around it.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::thread::LocalKey;

/// The value of a thread-local that has no destructor, so that calls can be made in the destructors
/// of other thread-locals. Nothing leaks: [`MessageScope`] takes the message out.
pub(super) type Current<T> = RefCell<ManuallyDrop<CurrentMessage<T>>>;

/// The message that a thread encodes or decodes. Most messages have no memory, so it is boxed.
#[derive(Debug)]
pub(super) enum CurrentMessage<T> {
    None,
    /// An encoding that is not sent if it attaches something. References in it lead nowhere.
    Trial {
        attaches: bool,
    },
    WithoutMemory,
    WithMemory(Box<T>),
}

impl<T: Default> CurrentMessage<T> {
    /// Returns the memory of the message, or `None` if there is no message.
    pub(super) fn memory(&mut self) -> Option<&mut T> {
        if let Self::WithoutMemory = self {
            *self = Self::WithMemory(Box::default());
        }
        match self {
            Self::WithMemory(memory) => Some(memory),
            Self::None | Self::Trial { .. } | Self::WithoutMemory => None,
        }
    }

    /// Notes that a trial attaches something. Returns whether this is one.
    pub(super) fn note_in_trial(&mut self) -> bool {
        match self {
            Self::Trial { attaches } => {
                *attaches = true;
                true
            }
            Self::None | Self::WithoutMemory | Self::WithMemory(_) => false,
        }
    }
}

/// Sets the current message of this thread, and restores the one before when it is dropped.
pub(super) struct MessageScope<T: 'static> {
    current: &'static LocalKey<Current<T>>,
    outer: CurrentMessage<T>,
}

impl<T> MessageScope<T> {
    pub(super) fn enter(
        current: &'static LocalKey<Current<T>>,
        message: CurrentMessage<T>,
    ) -> Self {
        let outer = replace(current, message);
        Self { current, outer }
    }

    /// Returns the message. Dropping `self` then restores the one before.
    pub(super) fn leave(self) -> CurrentMessage<T> {
        replace(self.current, CurrentMessage::None)
    }
}

fn replace<T>(
    current: &'static LocalKey<Current<T>>,
    message: CurrentMessage<T>,
) -> CurrentMessage<T> {
    ManuallyDrop::into_inner(current.replace(ManuallyDrop::new(message)))
}

impl<T> Drop for MessageScope<T> {
    fn drop(&mut self) {
        let outer = std::mem::replace(&mut self.outer, CurrentMessage::None);
        drop(replace(self.current, outer));
    }
}
