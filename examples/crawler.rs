//! How do I write a crawler?
//!
//! Each page is a child that spawns a child for every link that it finds. A limiter bounds the
//! number of open connections, each attempt has a time limit, and an attempt that fails is repeated
//! after a pause. When the nursery ends, the whole site has been visited. The site is a small
//! server in the same program.
//!
//! ```text
//! cargo run --example crawler
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use seedbed::{CapacityLimiter, Nursery, fail_after, open_nursery, sleep};
use smol::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use smol::net::{TcpListener, TcpStream};

const CONNECTIONS: usize = 4;
const ATTEMPTS: u32 = 3;
const TIME_LIMIT: Duration = Duration::from_millis(500);

/// The crawler's knowledge, which all children share.
struct Crawler {
    site: SocketAddr,
    connections: CapacityLimiter,
    seen: Mutex<BTreeSet<String>>,
    /// The number of links of each page, or why there is none.
    pages: Mutex<BTreeMap<String, Result<usize, String>>>,
}

impl Crawler {
    /// Spawns a child that visits a page, and visits each new link from there. (A plain function:
    /// an `async fn` cannot spawn itself.)
    fn visit<'env>(&'env self, n: &Nursery<'env>, path: String) {
        let pages = n.clone();
        n.spawn(async move {
            let links = self.links_of(&path).await;
            for link in links.iter().flatten() {
                if self.seen.lock().unwrap().insert(link.clone()) {
                    self.visit(&pages, link.clone());
                }
            }
            let result = links.map(|links| links.len());
            let result = result.map_err(|error| error.to_string());
            self.pages.lock().unwrap().insert(path, result);
        });
    }

    /// Fetches a page, in several attempts if necessary.
    async fn links_of(&self, path: &str) -> io::Result<Vec<String>> {
        let mut attempt = 1;
        loop {
            let outcome = {
                let _token = self.connections.acquire().await;
                // Inside of the token, so the time in the queue does not count.
                fail_after(TIME_LIMIT, fetch(self.site, path)).await
            };
            let error = match outcome {
                Ok(Ok(page)) => return Ok(page.lines().map(str::to_owned).collect()),
                Ok(Err(error)) => error,
                Err(too_slow) => io::Error::new(io::ErrorKind::TimedOut, too_slow),
            };
            if attempt == ATTEMPTS {
                return Err(error);
            }
            sleep(Duration::from_millis(10) * attempt).await;
            attempt += 1;
        }
    }
}

/// Fetches the lines of a page, which are links.
async fn fetch(site: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(site).await?;
    stream.write_all(format!("{path}\n").as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    match page.strip_prefix("ok\n") {
        Some(links) => Ok(links.to_owned()),
        None => Err(io::Error::other("the server has no such page")),
    }
}

#[seedbed::main]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let crawler = Crawler {
        site: listener.local_addr()?,
        connections: CapacityLimiter::new(CONNECTIONS),
        seen: Mutex::new(BTreeSet::from(["/".to_owned()])),
        pages: Mutex::default(),
    };
    open_nursery(async |n| {
        let server = n.spawn(serve(listener));
        open_nursery(async |pages| {
            crawler.visit(&pages, "/".to_owned());
        })
        .await;
        server.cancel().await;
    })
    .await;

    let pages = crawler.pages.into_inner().unwrap();
    for (path, result) in &pages {
        match result {
            Ok(links) => println!("{path}: {links} links"),
            Err(error) => println!("{path}: {error}"),
        }
    }
    assert_eq!(pages.len(), 7);
    assert_eq!(pages["/"], Ok(3));
    assert_eq!(pages["/flaky"], Ok(1), "the second attempt succeeds");
    assert!(pages["/missing"].is_err());
    assert!(pages["/slow"].is_err());
    Ok(())
}

/// Serves the site until it is cancelled.
async fn serve(listener: TcpListener) {
    let attempts = &Mutex::new(BTreeMap::new());
    open_nursery(async |n| {
        loop {
            // A connection that fails is the crawler's affair.
            if let Ok((stream, _)) = listener.accept().await {
                n.spawn(async move { _ = answer(stream, attempts).await });
            }
        }
    })
    .await
}

async fn answer(mut stream: TcpStream, attempts: &Mutex<BTreeMap<String, u32>>) -> io::Result<()> {
    let mut path = String::new();
    BufReader::new(stream.clone()).read_line(&mut path).await?;
    let path = path.trim_end();
    let attempt = {
        let mut attempts = attempts.lock().unwrap();
        let attempt = attempts.entry(path.to_owned()).or_insert(0);
        *attempt += 1;
        *attempt
    };
    let links: &[&str] = match path {
        "/" => &["/a", "/b", "/flaky"],
        "/a" => &["/", "/b", "/a/1", "/slow"],
        "/b" => &["/a", "/missing"],
        "/a/1" => &[],
        "/flaky" if attempt > 1 => &["/"],
        "/flaky" => return Ok(()), // closes the connection
        "/slow" => {
            sleep(Duration::from_secs(3600)).await;
            &[]
        }
        _ => return stream.write_all(b"no\n").await,
    };
    stream
        .write_all(format!("ok\n{}", links.join("\n")).as_bytes())
        .await
}
