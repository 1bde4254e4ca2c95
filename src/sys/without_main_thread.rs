//! On systems other than Linux, a thread has the properties that the system gives it.

/// Starts a thread that runs `body`.
pub(crate) fn spawn_like_main(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_string());
    thread.spawn(body).map(drop)
}
