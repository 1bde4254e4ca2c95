//! Nurseries in every form: these programs must compile.

use seedbed::nursery::{LocalNursery, Spawner, open_local_nursery};
use seedbed::{Nursery, Task, open_nursery, try_open_nursery};

async fn fill<'env, R>(n: &Nursery<'env, R>, data: &'env [u8]) -> Vec<Task<u8>> {
    data.iter().map(|byte| n.spawn(async move { *byte })).collect()
}

fn add<'env>(spawner: &Spawner<'env>, data: &'env [u8]) {
    spawner.spawn(async move { data.len() });
}

fn local<'env>(n: &LocalNursery<'env, usize>, data: &'env std::cell::Cell<u8>) {
    n.spawn(async move { data.set(1) });
}

async fn server(n: Nursery<'_, Result<(), String>>) {
    n.try_spawn(async { Err::<(), _>("stop".to_string()) });
}

async fn everything(data: &[u8]) -> usize {
    let text = String::from("outlives the block");
    let (text, mut count) = (&text, 0);
    open_nursery(|n| async move {
        for task in fill(&n, data).await {
            task.await;
        }
        add(&n.spawner(), data);
        n.spawn(async move { text.len() });
        let inner = open_nursery(async |inner| {
            inner.spawn(async { text.len() + data.len() });
            n.spawn(async { text.len() });
            5
        });
        inner.await
    })
    .await;
    open_nursery(async |n| {
        n.spawn(async { count += data.len() });
    })
    .await;
    let failed = try_open_nursery(|n| async move {
        server(n.clone()).await;
        seedbed::time::sleep_forever().await;
        Ok(())
    });
    assert_eq!(failed.await, Err("stop".to_string()));
    count
}

fn main() {
    assert_eq!(seedbed::run(everything(&[1, 2, 3])), 3);
    // `Send`, inside of an executor's task.
    let task = smol::spawn(async { everything(&[1, 2]).await });
    assert_eq!(smol::block_on(task), 2);
    let cell = std::cell::Cell::new(0);
    seedbed::run(open_local_nursery(async |n| {
        local(&n, &cell);
        1
    }));
    assert_eq!(cell.get(), 1);
}
