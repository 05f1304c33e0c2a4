//! Downloads, against a server of our own on the loopback address that behaves as badly as it is told.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use codelora::Error;
use codelora::data::fetch::{Patience, Remote, fetch_file};
use codelora::seed::sha256;

/// What the server does with one request.
#[derive(Clone)]
enum Answer {
    /// The whole body, or from the byte asked for.
    Body(Vec<u8>),
    /// Only the first bytes of a longer body, then the end of the connection.
    Cut(Vec<u8>, usize),
    /// A status and nothing else.
    Status(u16),
}

/// Serves the answers in order, one a connection; returns the address and the `Range` headers it saw.
fn serve(answers: Vec<Answer>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let ranges = seen.clone();
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut range = String::new();
            for line in BufReader::new(stream.try_clone().expect("a second handle")).lines() {
                let line = line.unwrap_or_default();
                if line.to_lowercase().starts_with("range:") {
                    range = line["range:".len()..].trim().to_string();
                }
                if line.is_empty() {
                    break;
                }
            }
            let from = range.strip_prefix("bytes=").and_then(|rest| rest.strip_suffix('-')?.parse().ok()).unwrap_or(0);
            ranges.lock().expect("no test panics here").push(range);
            let (status, body, sent) = match &answer {
                Answer::Body(body) if from > 0 => (206, &body[from..], body.len() - from),
                Answer::Body(body) => (200, &body[..], body.len()),
                Answer::Cut(body, sent) => (200, &body[..], *sent),
                Answer::Status(status) => (*status, &[][..], 0),
            };
            let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..sent]));
        }
    });
    (address, seen)
}

fn patience(tries: u32) -> Patience {
    Patience { tries, pause: Duration::from_millis(5), timeout: Duration::from_secs(5) }
}

fn remote(address: &str, path: &str, content: &[u8]) -> Remote {
    Remote { name: "rows.jsonl".into(), url: format!("{address}/{path}"), sha256: sha256(content) }
}

fn content() -> Vec<u8> {
    (0..20_000).flat_map(|number| format!("{{\"row\": {number}}}\n").into_bytes()).collect()
}

#[test]
fn a_broken_download_is_resumed_where_it_ended() {
    let (folder, content) = (tempfile::tempdir().expect("a folder"), content());
    let (address, seen) =
        serve(vec![Answer::Status(503), Answer::Cut(content.clone(), 100_000), Answer::Body(content.clone())]);
    fetch_file(folder.path(), &remote(&address, "rows.jsonl", &content), patience(3)).expect("the third try succeeds");
    assert_eq!(fs::read(folder.path().join("rows.jsonl")).expect("the file is there"), content);
    assert_eq!(*seen.lock().expect("no test panics here"), ["", "", "bytes=100000-"]);
    assert!(!folder.path().join("rows.jsonl.part").exists());
    // A good file is left alone: nobody answers any more.
    fetch_file(folder.path(), &remote(&address, "rows.jsonl", &content), patience(1)).expect("nothing is to be done");
}

#[test]
fn gzip_is_decompressed_before_it_is_checked() {
    let (folder, content) = (tempfile::tempdir().expect("a folder"), content());
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&content).expect("memory is enough");
    let (address, _) = serve(vec![Answer::Body(encoder.finish().expect("memory is enough"))]);
    fetch_file(folder.path(), &remote(&address, "rows.jsonl.gz", &content), patience(1))
        .expect("it is the pinned file");
    assert_eq!(fs::read(folder.path().join("rows.jsonl")).expect("the file is there"), content);
}

#[test]
fn a_wrong_file_never_replaces_what_is_there() {
    let (folder, content) = (tempfile::tempdir().expect("a folder"), content());
    let rows = folder.path().join("rows.jsonl");
    // Neither the wrong file of a server …
    let (address, _) = serve(vec![Answer::Body(b"<html>moved</html>".to_vec())]);
    let error = fetch_file(folder.path(), &remote(&address, "rows.jsonl", &content), patience(1));
    assert!(matches!(error, Err(Error::Mismatch { .. })) && !rows.exists(), "{error:?}");
    // … nor the right one replaces somebody's own.
    fs::write(&rows, "an older edition").expect("a file can be written");
    let (address, _) = serve(vec![Answer::Body(content.clone())]);
    let error =
        fetch_file(folder.path(), &remote(&address, "rows.jsonl", &content), patience(1)).expect_err("it stays");
    assert!(error.to_string().contains("move it away"), "{error}");
    assert_eq!(fs::read_to_string(&rows).expect("it stays"), "an older edition");
}

#[test]
fn without_a_network_the_message_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
    let error = fetch_file(folder.path(), &remote(&format!("http://{closed}"), "rows.jsonl", b"x"), patience(2));
    let message = error.expect_err("nobody listens").to_string();
    assert!(message.contains("in 2 tries") && message.contains("--external DIR"), "{message}");
}
