//! The command line: one verb per phase, the same functions that the notebooks call.

mod cli;
mod lab;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // clap ends with code 2 on a usage error; every other error ends with 1.
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes; many an error says its cause itself.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match () {
        () if said.is_empty() => cause,
        () if said.contains(&cause) => said,
        () => format!("{said}: {cause}"),
    })
}
