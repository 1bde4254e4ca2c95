//! The status at the end of a call.

use http::HeaderMap;
use seedbed::sync::ProducerError;
use tonic::Status;

/// Returns the status of a stream whose producer did not succeed.
pub fn status_of(error: ProducerError<Status>) -> Status {
    match error {
        ProducerError::Failed(status) => status,
        ProducerError::Cancelled => Status::cancelled("the stream is incomplete"),
    }
}

/// Returns the status of a call that is refused or cancelled because the server ends.
pub fn server_ends() -> Status {
    Status::unavailable("the server ends")
}

/// Returns the trailers that end a stream with this status.
pub fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // The code is added first. An error means that the text or the details cannot be sent.
    _ = status.add_header(&mut trailers);
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_that_was_cancelled_has_no_good_status() {
        let failed = ProducerError::Failed(Status::not_found("nothing"));
        assert_eq!(status_of(failed).code(), tonic::Code::NotFound);
        let cancelled = status_of(ProducerError::Cancelled);
        assert_eq!(cancelled.code(), tonic::Code::Cancelled);
    }

    #[test]
    fn trailers_have_the_code_and_the_text() {
        let trailers = trailers(&Status::aborted("all\nis lost"));
        assert_eq!(trailers["grpc-status"], "10");
        assert_eq!(trailers["grpc-message"], "all%0Ais%20lost");
    }
}
