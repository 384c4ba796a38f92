//! The binary: one process, one command line.

mod cli;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Two providers are linked into the graph; the choice has to be made once, before the first handshake.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    cli::Cli::parse().run()
}
