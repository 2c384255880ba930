//! The one binary: node, client and operator's tool.
//!
//! Reads the command line, runs the verb, and turns what came of it into an exit code; nothing
//! else exits. stdout carries data, stderr messages: a cause on one line, a fix on the next.

mod children;
mod command;
mod connect;
mod exit;
mod flags;
mod offline;
mod output;
mod panics;
mod records;
mod refusal;
mod signals;
mod survey;
mod tally;
mod units;

use std::process::ExitCode;

use crate::command::{
    append, bench, dev, doctor, dump, init, inspect, log, read, scrub, serve, sim, status, tail,
    unpin, verify,
};
use crate::exit::{Exit, Failure};
use crate::flags::{Cli, Verb};

fn main() -> ExitCode {
    panics::end_the_process();
    let cli = match flags::parse() {
        Ok(cli) => cli,
        Err(stopped) => return stopped_at_the_command_line(&stopped).into(),
    };
    let exit = run(cli).unwrap_or_else(|failure| {
        output::message(&failure);
        failure.exit()
    });
    exit.into()
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    // One thread: this side of the program waits for sockets, signals and children. The nodes
    // that `serve` and `dev` run have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot start: {error}")))?;
    let global = cli.global;
    let ended = runtime.block_on(async {
        match cli.verb {
            Verb::Dev(args) => dev::run(args).await,
            Verb::Append(args) => append::run(args, &global).await,
            Verb::Read(args) => read::run(args, &global).await,
            Verb::Tail(args) => tail::run(args, &global).await,
            Verb::Log(args) => log::run(args, &global).await,
            Verb::Status(args) => status::run(args, &global).await,
            Verb::Scrub(args) => scrub::run(args, &global).await,
            Verb::Bench(args) => bench::run(args, &global).await,
            Verb::Doctor(args) => doctor::run(&args, &global),
            Verb::Init(args) => init::run(args),
            Verb::Serve(args) => serve::run(args).await,
            Verb::Inspect(args) => inspect::run(&args, &global),
            Verb::Verify(args) => verify::run(&args, &global),
            Verb::Dump(args) => dump::run(&args, &global),
            Verb::Unpin(args) => unpin::run(&args),
            Verb::Sim(args) => sim::run(&args, &global),
        }
    });
    // A read of stdin that nobody answers must not hold up the exit.
    runtime.shutdown_background();
    ended
}

/// `--help` and `--version` are data; anything else is a command line that makes no sense.
fn stopped_at_the_command_line(stopped: &clap::Error) -> Exit {
    if stopped.use_stderr() {
        output::message(stopped.to_string().trim_end());
        return Exit::Usage;
    }
    match output::print(&stopped.to_string()) {
        Ok(_) => Exit::Ok,
        Err(failure) => {
            output::message(&failure);
            failure.exit()
        }
    }
}
