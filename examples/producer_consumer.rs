//! How do several tasks hand work to several others, and how do all of them learn that there is no
//! more?
//!
//! ```text
//! cargo run --example producer_consumer
//! ```

use std::sync::Mutex;

use seedbed::sync::{Receiver, SendError, Sender, channel};
use seedbed::{checkpoint, open_nursery};

/// The capacity of the conveyor belt, in parcels.
const BELT: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Parcel {
    from: &'static str,
    number: u32,
}

#[seedbed::main]
async fn main() {
    everybody_goes_home_when_the_work_is_done().await;
    nobody_works_for_a_closed_counter().await;
}

/// The end travels along the channel: when the last sender is closed, the receivers get the
/// remaining parcels, and then the end. No "stop" value and no counting is needed.
async fn everybody_goes_home_when_the_work_is_done() {
    let delivered = &Mutex::new(Vec::new());
    let (belt, unloading) = channel(BELT);
    let statistics = open_nursery(|n| async move {
        for from in ["Ghent", "Turin", "Porto"] {
            // Each task has its own handle, which is closed when the task has ended.
            n.spawn(pack(from, belt.clone()));
        }
        for driver in ["Ada", "Bob"] {
            n.spawn(deliver(driver, unloading.clone(), delivered));
        }
        // This handle is a sender, too. If it were kept, the drivers would wait for parcels from
        // the body.
        drop(belt);
        unloading // an extra receiver, kept to read the statistics of the belt
    })
    .await
    .statistics();

    // The packers are faster than the drivers, but there were never more than two parcels on the
    // belt: a packer waits until there is room. This back-pressure is the reason why a channel has
    // a capacity, and why a small one is good.
    assert_eq!(statistics.peak_buffered, BELT);
    assert_eq!((statistics.buffered, statistics.open_senders), (0, 0));

    let mut delivered = delivered.lock().unwrap().clone();
    println!("{} parcels were delivered.", delivered.len());
    // Each parcel went to one driver. None was lost, and none arrived twice.
    delivered.sort();
    let all = ["Ghent", "Porto", "Turin"]
        .into_iter()
        .flat_map(|from| (1..=4).map(move |number| Parcel { from, number }));
    assert!(delivered.into_iter().eq(all));
}

/// Sends four parcels, and closes its handle when it ends.
async fn pack(from: &'static str, belt: Sender<Parcel>) {
    for number in 1..=4 {
        let parcel = Parcel { from, number };
        belt.send(parcel)
            .await
            .expect("the drivers stay to the end");
    }
    println!("{from} has packed everything.");
}

/// Receives until all senders are closed.
async fn deliver(driver: &str, belt: Receiver<Parcel>, delivered: &Mutex<Vec<Parcel>>) {
    let mut count = 0;
    while let Ok(parcel) = belt.recv().await {
        checkpoint().await; // the drive, during which other tasks get their turns
        delivered.lock().unwrap().push(parcel);
        count += 1;
    }
    println!("{driver} has delivered {count} parcels and goes home.");
}

/// The other direction works too: when the last receiver is closed, senders get an error that
/// contains the value they could not send.
async fn nobody_works_for_a_closed_counter() {
    let (belt, counter) = channel::<Parcel>(0); // nothing is buffered: a send waits for a receiver
    let returned = open_nursery(|n| async move {
        n.spawn(async move {
            let first = counter.recv().await.expect("there is one");
            println!("The counter takes parcel {} and closes.", first.number);
        });
        let mut number = 1;
        loop {
            let parcel = Parcel {
                from: "Ghent",
                number,
            };
            match belt.send(parcel).await {
                Ok(()) => number += 1,
                Err(SendError::Broken(parcel)) => break parcel,
                Err(SendError::Closed(_)) => unreachable!("nobody has closed this handle"),
            }
        }
    });
    let returned = returned.await;
    assert_eq!(returned.number, 2);
    println!("Parcel {} goes back to {}.", returned.number, returned.from);
}
