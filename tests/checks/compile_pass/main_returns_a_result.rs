use std::error::Error;

#[seedbed::main]
async fn main() -> Result<(), Box<dyn Error>> {
    assert_eq!("5".parse::<u32>()?, 5);
    if std::env::args().len() > 9 {
        return main_again().await;
    }
    Ok(())
}

async fn main_again() -> Result<(), Box<dyn Error>> {
    Ok(())
}
