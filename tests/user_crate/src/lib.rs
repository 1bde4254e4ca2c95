//! A user's library: jobs, and a function that has them done. Its tests show each way in which a
//! test can enter.

/// A job. Returns the length of the word, and the id of the process that counted it.
pub fn count_letters(word: String) -> (usize, u32) {
    (word.chars().count(), std::process::id())
}

/// Counts letters in workers. A library need not know how the program has entered its run.
pub async fn letters_of_all(words: &[&str]) -> usize {
    let mut letters = 0;
    for word in words {
        let (count, worker) = seedbed::run_sync(count_letters, (*word).to_owned())
            .await
            .expect("counting letters does not fail");
        assert_ne!(worker, std::process::id(), "it ran in another process");
        letters += count;
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entered_with_run() {
        assert_eq!(seedbed::run(letters_of_all(&["seed", "bed"])), 7);
    }

    #[test]
    fn entered_with_init_and_an_executor_of_ones_own() {
        seedbed::init();
        assert_eq!(smol::block_on(letters_of_all(&["seed", "bed"])), 7);
    }

    #[seedbed::test]
    async fn entered_with_the_attribute() {
        assert_eq!(letters_of_all(&["seed", "bed"]).await, 7);
    }

    #[seedbed::test]
    async fn entered_with_the_attribute_and_a_result() -> Result<(), seedbed::WorkerError> {
        let (letters, _) = seedbed::run_sync(count_letters, "seed".to_owned()).await?;
        assert_eq!(letters, 4);
        Ok(())
    }

    #[should_panic = "from within the test"]
    #[seedbed::test]
    async fn a_test_that_should_panic_may_have_jobs_done() {
        assert_eq!(letters_of_all(&["seed"]).await, 4);
        panic!("from within the test");
    }

    mod nested {
        mod twice {
            use super::super::*;

            #[test]
            fn in_a_module() {
                assert_eq!(seedbed::run(letters_of_all(&["bed"])), 3);
            }
        }
    }

    #[test]
    #[ignore = "a test that is run only when asked for finds its workers too"]
    fn ignored_unless_asked_for() {
        assert_eq!(seedbed::run(letters_of_all(&["bed"])), 3);
    }

    /// Its name is a prefix of another test's name; a worker must not run that test.
    #[test]
    fn entered_with() {
        assert_eq!(seedbed::run(letters_of_all(&["b"])), 1);
    }

    #[test]
    fn a_job_that_panics_is_an_error_and_not_a_failed_test() {
        fn fail(_: ()) {
            panic!("out of paint")
        }
        let error = seedbed::run(seedbed::run_sync(fail, ())).unwrap_err();
        assert_eq!(error.panic().unwrap().message(), "out of paint");
    }
}
