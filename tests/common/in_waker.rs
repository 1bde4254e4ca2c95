//! Tasks of an executor that polls them right in their wakers.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};

pub type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Polls `wait` by hand, and again in the waker, until it has ended. Returns the end of a channel
/// that is closed then.
pub fn run_in_waker(wait: Wait) -> mpsc::Receiver<()> {
    struct Task {
        wait: Mutex<Option<Wait>>,
        woken: AtomicBool,
        ended: Mutex<Option<mpsc::Sender<()>>>,
    }
    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.woken.store(true, SeqCst);
            let waker = Waker::from(self.clone());
            // Locked if the task is being polled, which then polls it again.
            while let Ok(mut wait) = self.wait.try_lock()
                && self.woken.swap(false, SeqCst)
            {
                let Some(future) = &mut *wait else { return };
                if future
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_ready()
                {
                    *wait = None;
                    self.ended.lock().unwrap().take();
                }
            }
        }
    }
    let (sender, ended) = mpsc::channel();
    let task = Task {
        wait: Mutex::new(Some(wait)),
        woken: AtomicBool::new(false),
        ended: Mutex::new(Some(sender)),
    };
    Arc::new(task).wake();
    ended
}
