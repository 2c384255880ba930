//! The command line as a whole: the verbs, what all of them share, and how shared words are read.
//!
//! Each verb's own flags stand in its file under `command/`. Nothing here touches a socket or a
//! file: what can be judged by reading is judged before anything is tried.

use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use ringwood_core::limits::NAME_SIZE_MAX;

use crate::command;
use crate::exit::EXIT_CODES_HELP;
use crate::output::Output;
use crate::units::parse_duration;

const EXAMPLES: &str = "\
Examples:
  ringwood dev                              three nodes here, to try things on
  seq 1000 | ringwood append log-0          a record per line, acknowledged when durable
  ringwood read log-0 --from 990            from an offset to the end
  ringwood tail log-0                       follow what is appended from now on
  ringwood status -o json | jq .logs[0]     who leads, who lags";

/// A replicated log: an append is acknowledged when a majority of nodes has it on disk.
#[derive(Debug, Parser)]
#[command(name = "ringwood", version, arg_required_else_help = true)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES_HELP}"))]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do. In the order in which a newcomer meets them.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Dev(command::dev::Args),
    Append(command::append::Args),
    Read(command::read::Args),
    Tail(command::tail::Args),
    Log(command::log::Args),
    Status(command::status::Args),
    Scrub(command::scrub::Args),
    Bench(command::bench::Args),
    Doctor(command::doctor::Args),
    Init(command::init::Args),
    Serve(command::serve::Args),
    Inspect(command::inspect::Args),
    Verify(command::verify::Args),
    Dump(command::dump::Args),
    Unpin(command::unpin::Args),
    Sim(command::sim::Args),
}

/// Flags that stand before or after any verb that talks to a cluster.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct Global {
    /// Nodes to ask; one is enough, it names the others [default: ports 7401 to 7403 here]
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,..",
        value_delimiter = ','
    )]
    #[arg(env = "RINGWOOD_ENDPOINTS", value_parser = parse_address)]
    #[arg(hide_env_values = true, hide_default_value = true)]
    #[arg(default_value = "127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403")]
    pub(crate) endpoints: Vec<String>,

    /// How long to wait for an answer [default: 5s; append: 30s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_timeout)]
    pub(crate) timeout: Option<Duration>,

    /// Facts as a table for people or as JSON for programs
    #[arg(
        long,
        short,
        global = true,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub(crate) output: Output,
}

impl Global {
    /// The given `--timeout`, or what suits a question that changes nothing.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(5))
    }

    /// The given `--timeout`, or what suits an append: giving up on one leaves its fate unknown,
    /// so it is worth an election or two.
    pub(crate) fn append_timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(30))
    }
}

/// Global flags that would mean nothing to a verb. They are kept out of its help, and refused
/// rather than ignored: a flag that does nothing is a lie a script believes for years.
const FOREIGN: [(&str, &[&str]); 10] = [
    ("dev", &["endpoints", "timeout", "output"]),
    ("init", &["endpoints", "timeout", "output"]),
    ("serve", &["endpoints", "timeout", "output"]),
    ("read", &["output"]),
    ("tail", &["output"]),
    ("doctor", &["endpoints", "timeout"]),
    ("inspect", &["endpoints", "timeout"]),
    ("verify", &["endpoints", "timeout"]),
    ("dump", &["endpoints", "timeout"]),
    ("sim", &["endpoints", "timeout"]),
];

/// Reads the command line of this process.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    parse_from(std::env::args_os())
}

fn parse_from(line: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(line)?;
    refuse_foreign(&mut command, &matches)?;
    Cli::from_arg_matches(&matches)
}

/// The derived command, with foreign flags hidden where they are foreign. A subcommand that
/// already has an argument of that name does not inherit the global one.
fn command() -> Command {
    let root = Cli::command();
    let globals: Vec<Arg> = root
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .cloned()
        .collect();
    FOREIGN.iter().fold(root, |root, (verb, foreign)| {
        let hidden = globals
            .iter()
            .filter(|arg| foreign.contains(&arg.get_id().as_str()))
            .map(|arg| arg.clone().hide(true));
        root.mut_subcommand(verb, |verb| verb.args(hidden))
    })
}

fn refuse_foreign(command: &mut Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    let Some((verb, matches)) = matches.subcommand() else {
        return Ok(());
    };
    let foreign = FOREIGN
        .iter()
        .find(|(name, _)| *name == verb)
        .map_or(&[][..], |(_, ids)| ids);
    for id in foreign {
        // The environment may well be set for other verbs: only what was typed is refused.
        if matches.value_source(id) == Some(ValueSource::CommandLine) {
            let text = format!("'{verb}' has no use for '--{id}'");
            return Err(command.error(ErrorKind::ArgumentConflict, text));
        }
    }
    Ok(())
}

/// Reads HOST:PORT. The host is not looked up here.
pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    let wrong = || format!("'{text}' is not HOST:PORT, such as 127.0.0.1:7401");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    // An IPv6 address without brackets would lose its last group to the port.
    let bare = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').ok_or_else(wrong)?,
        None if host.contains(':') => "",
        None => host,
    };
    if bare.is_empty() || bare.contains(|c: char| c.is_whitespace() || "[]".contains(c)) {
        return Err(wrong());
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(text.to_string()),
        _ => Err(format!("'{port}' is not a port, a number from 1 to 65535")),
    }
}

/// Reads the name of a cluster, node or log: what is safe as a file name and in a shell.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_SIZE_MAX {
        return Err(format!("a name has 1 to {NAME_SIZE_MAX} characters"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match text.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(format!(
            "{c:?} cannot be in a name; letters, digits, '-', '_' and '.' can"
        )),
        None if text.starts_with(['.', '-']) => Err("a name begins with a letter or digit".into()),
        None => Ok(text.to_string()),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("nothing answers in no time: give at least 1ms".into()),
        // A day is longer than anyone waits, and keeps clock arithmetic far from its end.
        duration => Ok(duration.min(Duration::from_secs(86_400))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        parse_from(line.split(' ').map(Into::into))
    }

    #[test]
    fn the_derived_command_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn a_global_flag_may_stand_before_or_after_the_verb() {
        for line in [
            "ringwood --endpoints h:1,h:2 status",
            "ringwood status --endpoints h:1,h:2",
        ] {
            assert_eq!(
                parsed(line).expect(line).global.endpoints,
                ["h:1", "h:2"],
                "{line}"
            );
        }
    }

    #[test]
    fn a_flag_without_use_is_refused() {
        for line in [
            "ringwood --endpoints h:1 dev",
            "ringwood dev -o json",
            "ringwood tail l -o json",
        ] {
            let error = parsed(line).expect_err(line);
            assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{line}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for text in ["127.0.0.1:7401", "[::1]:7401", "a.b-c:1", "localhost:65535"] {
            assert_eq!(parse_address(text).as_deref(), Ok(text));
        }
        for text in [
            "", ":", "h", "h:", ":1", "h:0", "h:65536", "h:x", "::1:7401", "a b:1", "[]:1",
        ] {
            assert!(parse_address(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_name_is_safe_in_a_shell_and_as_a_file() {
        for text in ["log-0", "a", "Orders_2.eu"] {
            assert_eq!(parse_name(text).as_deref(), Ok(text));
        }
        let long = "x".repeat(NAME_SIZE_MAX + 1);
        for text in [
            "",
            "..",
            "-x",
            "a/b",
            "a b",
            "ü",
            "a\n",
            "a,b",
            "a=b",
            long.as_str(),
        ] {
            assert!(parse_name(text).is_err(), "{text:?} was taken");
        }
    }
}
