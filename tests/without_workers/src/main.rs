//! Nurseries, scopes, channels, threads and the virtual clock in a build without workers.

use std::time::Duration;

use seedbed::sync::{Event, channel};
use seedbed::testing::MockClock;
use seedbed::{CancelScope, RunBuilder, move_on_after, on_cancel, open_nursery, sleep, thread};

#[seedbed::main]
async fn main() {
    let sum = open_nursery(async |n| {
        let (sender, receiver) = channel(1);
        n.spawn(async move {
            for number in [1, 2, 3] {
                sender.send(number).await.unwrap();
            }
        });
        let mut sum = thread::run_sync(|| 36).await;
        while let Ok(number) = receiver.recv().await {
            sum += number;
        }
        sum
    })
    .await;
    assert_eq!(sum, 42);

    let hour = Duration::from_secs(3600);
    std::thread::spawn(move || on_a_virtual_clock(hour))
        .join()
        .unwrap();
    println!("a build without workers works");
}

fn on_a_virtual_clock(hour: Duration) {
    RunBuilder::new().clock(MockClock::autojump()).run(async {
        let cleaned = Event::new();
        let clean_up = cleaned.clone();
        let waiting = on_cancel(sleep(2 * hour), async move { clean_up.set() });
        assert_eq!(move_on_after(hour, waiting).await, None);
        assert!(cleaned.is_set());

        let scope = CancelScope::new();
        scope.cancel();
        assert_eq!(scope.run(sleep(hour)).await, None);
    });
}
