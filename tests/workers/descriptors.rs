//! Files and sockets as arguments, results and messages.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Seek, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::common::stage::staged;
use seedbed::worker::{Described, Descriptor, Receiver, Sender, WorkerErrorKind, channel};
use seedbed::{WorkerConfig, open_nursery};
use serde::{Deserialize, Serialize};

fn append((Descriptor(mut file), text): (Descriptor<File>, String)) -> Descriptor<File> {
    file.write_all(text.as_bytes()).unwrap();
    Descriptor(file)
}

fn a_file_goes_to_a_worker_and_comes_back_with_its_position() {
    staged(WorkerConfig::new(), |workers| async move {
        let mut file = tempfile::tempfile().unwrap();
        for text in ["one ", "two ", "three"] {
            let call = workers.run_sync(append, (Descriptor(file), text.to_owned()));
            Descriptor(file) = call.await.unwrap();
            assert!(file.stream_position().unwrap() > 0);
        }
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two three");
    });
}

/// Answers connections with its process id, until one brings an empty message.
fn serve((Descriptor(listener), mut started): (Descriptor<TcpListener>, Sender<u32>)) {
    started.send_blocking(std::process::id()).unwrap();
    loop {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = String::new();
        connection.read_to_string(&mut request).unwrap();
        if request.is_empty() {
            return;
        }
        write!(connection, "{request} {}", std::process::id()).unwrap();
    }
}

fn ask(port: u16, request: &str) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

fn two_workers_accept_connections_of_one_listener() {
    staged(WorkerConfig::new(), |workers| async move {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        open_nursery(async |n| {
            let mut servers = BTreeSet::new();
            for _ in 0..2 {
                let (started, mut pid) = channel(1).unwrap();
                let listener = Descriptor(listener.try_clone().unwrap());
                n.spawn(workers.run_sync(serve, (listener, started)));
                servers.insert(pid.recv().await.unwrap());
            }
            drop(listener);
            assert_eq!(servers.len(), 2);
            for request in ["a", "b", "c"] {
                let answer = ask(port, request);
                let (echo, pid) = answer.split_once(' ').unwrap();
                assert!(echo == request && servers.contains(&pid.parse().unwrap()));
            }
            assert_eq!(
                (ask(port, ""), ask(port, "")),
                (String::new(), String::new())
            );
        })
        .await;
    });
}

fn pipes_go_through_a_channel_and_are_closed_with_their_values() {
    staged(WorkerConfig::new(), |workers| async move {
        let job = |writers: Receiver<Descriptor<PipeWriter>>| {
            for writer in writers {
                let Descriptor(mut writer) = writer.unwrap();
                writer.write_all(b"hello").unwrap();
            }
        };
        let (mut writers, receiver) = channel(8).unwrap();
        let mut readers: Vec<PipeReader> = Vec::new();
        open_nursery(async |n| {
            n.spawn(workers.run_sync(job, receiver));
            for _ in 0..20 {
                let (reader, writer) = pipe().unwrap();
                writers.send(Descriptor(writer)).await.unwrap();
                readers.push(reader);
            }
            drop(writers);
        })
        .await;
        for mut reader in readers {
            let mut text = String::new();
            // Ends, because no writer is left here or there.
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
    });
}

#[derive(Serialize, Deserialize)]
struct Ends {
    /// With an alias, the value is decoded twice.
    #[serde(alias = "one")]
    first: Descriptor<UnixStream>,
    second: Option<Descriptor<UnixStream>>,
}

fn descriptors_within_other_values_arrive_each_as_its_own() {
    staged(WorkerConfig::new(), |workers| async move {
        let job = |ends: Ends| {
            let (mut first, second) = (ends.first.0, ends.second.unwrap().0);
            first.write_all(b"first").unwrap();
            Descriptor(second)
        };
        let ((one, mut other), (second, mut peer)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let ends = Ends {
            first: Descriptor(one),
            second: Some(Descriptor(second)),
        };
        let Descriptor(mut second) = workers.run_sync(job, ends).await.unwrap();
        let mut text = String::new();
        other.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first");
        second.write_all(b"second").unwrap();
        let mut bytes = [0; 6];
        peer.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"second");
    });
}

fn a_descriptor_in_a_format_for_texts_is_an_error_that_says_so() {
    staged(WorkerConfig::new(), |workers| async move {
        let file = Descriptor(tempfile::tempfile().unwrap());
        let job = |_: Described<Descriptor<File>>| ();
        let error = workers.run_sync(job, Described(file)).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::EncodeArgument, "{error}");
        assert!(error.to_string().contains("can only be sent"), "{error}");
    });
}

fn a_job_that_sends_another_kind_of_descriptor_makes_operations_fail() {
    staged(WorkerConfig::new(), |workers| async move {
        let job = |()| {
            let file = tempfile::tempfile().unwrap();
            Descriptor(OwnedFd::from(file))
        };
        let Descriptor(fd): Descriptor<OwnedFd> = workers.run_sync(job, ()).await.unwrap();
        assert!(fd.as_fd().try_clone_to_owned().is_ok());
        assert!(TcpListener::from(fd).accept().is_err());
    });
}

suite! {
    a_file_goes_to_a_worker_and_comes_back_with_its_position,
    two_workers_accept_connections_of_one_listener,
    pipes_go_through_a_channel_and_are_closed_with_their_values,
    descriptors_within_other_values_arrive_each_as_its_own,
    a_descriptor_in_a_format_for_texts_is_an_error_that_says_so,
    a_job_that_sends_another_kind_of_descriptor_makes_operations_fail,
}
