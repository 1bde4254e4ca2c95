//! How do I process files that may be broken or hostile?
//!
//! This program makes thumbnails of pictures in the PPM format. The decoder trusts the header, as
//! many do: one picture claims a size that no machine has memory for, and one makes the decoder
//! run forever. Each is an error of its own, and the others get their thumbnails.
//!
//! ```text
//! cargo run --example thumbnails
//! ```

use std::time::Duration;

use seedbed::{WorkerConfig, open_nursery, open_worker_context};

/// The longer side of a thumbnail, in pixels.
const SIDE: usize = 16;

/// A picture with 24 bits per pixel.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

/// Decodes a picture in the binary PPM format. Its faults stand for those of real decoders.
fn decode(file: &[u8]) -> Result<Picture, String> {
    let mut words = file.splitn(5, |byte| byte.is_ascii_whitespace());
    let mut word = || words.next().and_then(|word| std::str::from_utf8(word).ok());
    if word() != Some("P6") {
        return Err("it is not in the PPM format".into());
    }
    let mut number = || word()?.parse().ok();
    let (Some(width), Some(height), Some(_)) = (number(), number(), number()) else {
        return Err("its header is incomplete".into());
    };
    let colours: usize = width * height;
    let mut pixels = vec![[1; 3]; colours]; // before it is known how many there are
    let mut data = words.next().unwrap_or_default().chunks_exact(3);
    let mut filled = 0;
    while filled < colours {
        // Does not notice the end of the file.
        if let Some(&[red, green, blue]) = data.next() {
            pixels[filled] = [red, green, blue];
            filled += 1;
        }
    }
    Ok(Picture {
        width,
        height,
        pixels,
    })
}

/// Makes a smaller picture, of one pixel in each square of the file. This is the job.
fn thumbnail(file: Vec<u8>) -> Result<Vec<u8>, String> {
    let picture = decode(&file)?;
    let step = picture.width.max(picture.height).div_ceil(SIDE).max(1);
    let (width, height) = (picture.width.div_ceil(step), picture.height.div_ceil(step));
    let mut small = format!("P6\n{width} {height}\n255\n").into_bytes();
    for row in picture.pixels.chunks(picture.width).step_by(step) {
        small.extend(row.iter().step_by(step).flatten());
    }
    Ok(small)
}

/// Makes a picture of one colour.
fn picture(width: usize, height: usize, colour: [u8; 3]) -> Vec<u8> {
    let mut file = format!("P6\n{width} {height}\n255\n").into_bytes();
    file.extend(colour.iter().cycle().take(3 * width * height));
    file
}

#[seedbed::main]
async fn main() {
    let files = [
        ("meadow.ppm", picture(640, 480, [40, 160, 60])),
        ("notes.txt", b"Buy seeds.".to_vec()),
        ("bomb.ppm", b"P6\n90000 90000\n255\n".to_vec()),
        ("torn.ppm", picture(64, 64, [9; 3])[..5000].to_vec()),
        ("sky.ppm", picture(100, 300, [90, 140, 240])),
    ];
    let count = files.len();
    let config = WorkerConfig::new()
        .memory_limit(256 << 20)
        .capture_stderr(true);
    let failures = open_worker_context(config, async |workers| {
        open_nursery(async |n| {
            let jobs = files.map(|(name, file)| {
                let job = workers
                    .run_sync(thumbnail, file)
                    .time_limit(Duration::from_secs(1))
                    .flatten();
                (name, n.spawn(job))
            });
            let mut failures = Vec::new();
            for (done, (name, job)) in (1..).zip(jobs) {
                match job.await {
                    Ok(small) => println!("{done}/{count} {name}: {} bytes", small.len()),
                    Err(error) => {
                        println!("{done}/{count} {name}: {error}");
                        failures.push(name);
                    }
                }
            }
            failures
        })
        .await
    })
    .await;
    assert_eq!(failures, ["notes.txt", "bomb.ppm", "torn.ppm"]);
}
