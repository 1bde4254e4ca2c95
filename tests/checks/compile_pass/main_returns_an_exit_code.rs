use std::process::ExitCode;

/// Docs and lints stay on the function.
#[seedbed::main(ctrl_c = seedbed::run::CtrlC::Leave)]
#[allow(clippy::unused_async)]
pub async fn main() -> ExitCode {
    let worker = seedbed::run_sync(|()| std::process::id(), ()).await;
    ExitCode::from(u8::from(worker.unwrap() == std::process::id()))
}
