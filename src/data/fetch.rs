//! Downloads the public datasets: pinned, resumable, never over a good file.
//!
//! A download grows in `NAME.part` and is continued from there. Only when its decompressed content has the pinned
//! SHA-256 does it take the file's name. Another file of that name stays, and is an error.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use flate2::read::GzDecoder;
use ureq::Agent;

use crate::artifact;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::seed::sha256;

/// One file to download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its name in the folder.
    pub name: String,
    /// Where it lies; a name that ends in `.gz` is decompressed.
    pub url: String,
    /// SHA-256 of its decompressed content.
    pub sha256: String,
}

/// HumanEval and MBPP in the repositories of their authors.
pub fn public() -> Vec<Remote> {
    let remote =
        |name: &str, url: &str, sha256: &str| Remote { name: name.into(), url: url.into(), sha256: sha256.into() };
    vec![
        remote(
            "HumanEval.jsonl",
            "https://raw.githubusercontent.com/openai/human-eval/master/data/HumanEval.jsonl.gz",
            "1d49078ba3e2b196b9344535bef34a43021f038fad9561d6ee7c53450609a6a2",
        ),
        remote(
            "mbpp.jsonl",
            "https://raw.githubusercontent.com/google-research/google-research/master/mbpp/mbpp.jsonl",
            "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
        ),
    ]
}

/// How patient a download is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Tries before it gives up.
    pub tries: u32,
    /// Pause before the second try; it doubles with each further one.
    pub pause: Duration,
    /// Longest wait for a connection and for an answer; the body may take twenty times as long.
    pub timeout: Duration,
}

impl Default for Patience {
    /// Four tries, pauses of 1, 2 and 4 seconds, 30 seconds for an answer.
    fn default() -> Self {
        Self { tries: 4, pause: Duration::from_secs(1), timeout: Duration::from_secs(30) }
    }
}

/// Downloads HumanEval and MBPP into a folder; files that are there and right are left alone.
///
/// # Errors
/// [`Error::Invalid`] when there is no network, with what to do without; [`Error::Mismatch`] when a file, there or
/// downloaded, is not the one that was pinned.
pub fn fetch(folder: &Path) -> Result<()> {
    public().iter().try_for_each(|remote| fetch_file(folder, remote, Patience::default()))
}

/// Downloads one file into a folder, unless it is there with the right content.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_file(folder: &Path, remote: &Remote, patience: Patience) -> Result<()> {
    let path = folder.join(&remote.name);
    if fs::read(&path).is_ok_and(|bytes| sha256(bytes) == remote.sha256) {
        return Ok(());
    }
    if path.exists() {
        return Err(Error::Mismatch {
            what: format!("SHA-256 of {}", path.display()),
            expected: remote.sha256.clone(),
            found: fs::read(&path).map_or_else(|fault| fault.to_string(), sha256),
            remedy: "it is another edition: move it away and run again, and the pinned one is downloaded".into(),
        });
    }
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let part = folder.join(format!("{}.part", remote.name));
    let config = Agent::config_builder()
        .timeout_connect(Some(patience.timeout))
        .timeout_recv_response(Some(patience.timeout))
        .timeout_recv_body(Some(patience.timeout * 20))
        .http_status_as_error(false)
        .build();
    let agent = Agent::new_with_config(config);
    let mut last = String::new();
    let mut pause = patience.pause;
    for attempt in 0..patience.tries {
        if attempt > 0 {
            std::thread::sleep(pause);
            pause *= 2;
        }
        match download(&agent, remote, &part)? {
            Ok(()) => return accept(&part, &path, remote),
            Err(fault) => last = fault,
        }
    }
    Err(Error::invalid(
        format!("{} could not be downloaded from {} in {} tries: {last}", remote.name, remote.url, patience.tries),
        "check the network and run again (the download is resumed), or put HumanEval.jsonl and mbpp.jsonl into a folder \
         and name it with --external DIR",
    ))
}

/// One try. The inner result is the network's fault, in words, after which another try makes sense.
fn download(agent: &Agent, remote: &Remote, part: &Path) -> Result<std::result::Result<(), String>> {
    let have = fs::metadata(part).map_or(0, |meta| meta.len());
    let mut request = agent.get(&remote.url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let mut response = match request.call() {
        Ok(response) => response,
        Err(fault) => return Ok(Err(fault.to_string())),
    };
    let status = response.status().as_u16();
    let resumed = status == 206;
    if status == 416 {
        // Nothing is left to send: the part is whole, or it is not this file.
        return Ok(Ok(()));
    }
    if status != 200 && !resumed {
        return Ok(Err(format!("the server answers with status {status}")));
    }
    let length = response.headers().get("content-length");
    let length: Option<u64> = length.and_then(|value| value.to_str().ok()?.parse().ok());
    let mut file: File = OpenOptions::new()
        .create(true)
        .write(true)
        .append(resumed)
        .truncate(!resumed)
        .open(part)
        .map_err(Error::io("write", part))?;
    let progress = Progress::new(format!("fetch {}", remote.name), length.unwrap_or(0) as usize);
    let mut body = response.body_mut().as_reader();
    let mut buffer = [0_u8; 1 << 16];
    let mut received = 0_u64;
    loop {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                file.write_all(&buffer[..count]).map_err(Error::io("write", part))?;
                received += count as u64;
                progress.add(count);
            }
            Err(fault) => return Ok(Err(fault.to_string())),
        }
    }
    progress.finish();
    if length.is_some_and(|length| received < length) {
        return Ok(Err(format!("the connection ended after {received} bytes")));
    }
    Ok(Ok(()))
}

/// Gives the download its name when its content is the pinned one. Otherwise the part goes and the file stays as it was.
fn accept(part: &Path, path: &Path, remote: &Remote) -> Result<()> {
    let bytes = fs::read(part).map_err(Error::io("read", part))?;
    let content = match remote.url.ends_with(".gz") {
        true => {
            let mut content = Vec::new();
            // What does not decompress cannot have the pinned content either.
            GzDecoder::new(bytes.as_slice()).read_to_end(&mut content).map_or(bytes, |_| content)
        }
        false => bytes,
    };
    let found = sha256(&content);
    fs::remove_file(part).map_err(Error::io("remove", part))?;
    if found != remote.sha256 {
        return Err(Error::Mismatch {
            what: format!("SHA-256 of {} as downloaded from {}", remote.name, remote.url),
            expected: remote.sha256.clone(),
            found,
            remedy: "run again; if it stays, the file has changed at its home: use a copy of the pinned one with --external DIR"
                .into(),
        });
    }
    artifact::write_atomic(path, |writer| writer.write_all(&content))
}
