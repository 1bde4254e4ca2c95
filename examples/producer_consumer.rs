//! How do several tasks hand work to several others, and how do the receivers learn the end?
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

seedbed::main! {
    async fn main() {
        everybody_goes_home_when_the_work_is_done().await;
        nobody_works_for_a_closed_counter().await;
    }
}

/// The channel carries the end: when the last sender is closed, the receivers get the rest of the
/// buffer and then the end. No "stop" value and no counter is needed.
async fn everybody_goes_home_when_the_work_is_done() {
    let delivered = &Mutex::new(Vec::new());
    let (belt, unloading) = channel(BELT);
    let statistics = open_nursery(|n| async move {
        for from in ["Ghent", "Turin", "Porto"] {
            // Each task has a handle of its own, which is closed when the task has ended.
            n.spawn(pack(from, belt.clone()));
        }
        for driver in ["Ada", "Bob"] {
            n.spawn(deliver(driver, unloading.clone(), delivered));
        }
        // This handle is a sender, too. If it were kept, the drivers would wait for values from the
        // body.
        drop(belt);
        unloading // one receiver more, kept to look at how the belt was used
    })
    .await
    .statistics();

    // The packers are faster than the drivers, but at most two parcels lay on the belt: a packer
    // waits while there is no room. This back-pressure is the reason for a channel's capacity, and
    // for a small one.
    assert_eq!(statistics.peak_buffered, BELT);
    assert_eq!((statistics.buffered, statistics.open_senders), (0, 0));

    let mut delivered = delivered.lock().unwrap().clone();
    println!("{} parcels were delivered.", delivered.len());
    // Each parcel went to one driver: none is lost or duplicated.
    delivered.sort();
    let all = ["Ghent", "Porto", "Turin"]
        .into_iter()
        .flat_map(|from| (1..=4).map(move |number| Parcel { from, number }));
    assert!(delivered.into_iter().eq(all));
}

/// Sends four parcels, and closes its handle by returning.
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
        checkpoint().await; // the drive, in which others have their turns
        delivered.lock().unwrap().push(parcel);
        count += 1;
    }
    println!("{driver} has delivered {count} parcels and goes home.");
}

/// The other direction works as well: when the last receiver is closed, senders get an error that
/// contains the value.
async fn nobody_works_for_a_closed_counter() {
    let (belt, counter) = channel::<Parcel>(0); // nothing is buffered: to send is to hand over
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
