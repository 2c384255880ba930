//! `init`: a node's data directory, made once.
//!
//! Judges the whole layout before a byte is written. Knows no journal: what a directory holds is
//! the node's.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ringwood_net::cluster::default_logs;
use ringwood_net::{Layout, VoterAddress};

use crate::exit::{Exit, Failure};
use crate::flags::{parse_address, parse_name};
use crate::output;
use crate::refusal;

/// Make a node's data directory
///
/// Run it on every node with the same --cluster, --voters and --logs, and its own --node; then
/// 'serve' there. What makes the node itself is fixed from then on: the directory of one node is
/// refused as that of another.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood init d1 --cluster orders --node node-1 --voters node-1=a:7401,node-2=b:7401,node-3=c:7401
  ringwood init d1 --cluster solo --node node-1 --voters node-1=127.0.0.1:7401 --logs a,b"
)]
pub(crate) struct Args {
    /// Directory to make; refused if it holds anything
    dir: PathBuf,

    /// Name of the cluster
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    cluster: String,

    /// Name of this node, one of the voters
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    node: String,

    /// All nodes that keep the logs, with their addresses; one, three or five: an even number tolerates no more
    #[arg(
        long,
        required = true,
        value_name = "NAME=HOST:PORT,..",
        value_delimiter = ','
    )]
    #[arg(value_parser = parse_voter)]
    voters: Vec<VoterAddress>,

    /// Logs to begin with [default: log-0 to log-15]
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', value_parser = parse_name)]
    logs: Vec<String>,
}

/// Checks the layout, then makes the directory.
pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let logs = if args.logs.is_empty() {
        default_logs()
    } else {
        args.logs
    };
    let layout = Layout {
        cluster: args.cluster,
        node: args.node,
        voters: args.voters,
        logs,
    };
    check(&layout)?;
    ringwood_net::init(&args.dir, &layout).map_err(|error| refusal::of_config(&error))?;
    let (node, dir) = (&layout.node, args.dir.display());
    let (voters, logs) = (layout.voters.len(), layout.logs.len());
    let _ = output::print(&format!(
        "{dir}: {node} of cluster {}, {voters} voters, {logs} logs\n",
        layout.cluster
    ))?;
    output::message(format!("next: ringwood serve {dir}"));
    Ok(Exit::Ok)
}

/// Refuses what cannot work, and notes what does not help.
fn check(layout: &Layout) -> Result<(), Failure> {
    layout
        .check()
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let mut addresses = BTreeSet::new();
    if let Some(voter) = layout
        .voters
        .iter()
        .find(|voter| !addresses.insert(&voter.address))
    {
        let cause = format!("{} is the address of two voters", voter.address);
        return Err(Failure::new(Exit::Usage, cause).fix("an address for each"));
    }
    let count = layout.voters.len();
    if count.is_multiple_of(2) {
        let (fewer, spare) = (count - 1, (count - 1) / 2);
        output::message(format!(
            "note: {count} voters survive {spare} failures, as {fewer} do"
        ));
    }
    Ok(())
}

/// Reads NAME=HOST:PORT.
pub(crate) fn parse_voter(text: &str) -> Result<VoterAddress, String> {
    let (name, address) = text
        .split_once('=')
        .ok_or_else(|| format!("'{text}' is not NAME=HOST:PORT"))?;
    Ok(VoterAddress {
        name: parse_name(name)?,
        address: parse_address(address)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(voters: &[&str], node: &str, logs: &[&str]) -> Layout {
        Layout {
            cluster: "c".into(),
            node: node.into(),
            voters: voters
                .iter()
                .map(|voter| parse_voter(voter).expect("well formed"))
                .collect(),
            logs: logs.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_layout_that_cannot_work_is_a_usage_error() {
        check(&layout(&["a=h:1", "b=h:2", "c=h:3"], "b", &["l"])).expect("a good one");
        let eight: Vec<String> = (1..=8).map(|n| format!("n{n}=h:{n}")).collect();
        let eight: Vec<&str> = eight.iter().map(String::as_str).collect();
        for (wrong, cause) in [
            (layout(&["a=h:1", "a=h:2"], "a", &["l"]), "named twice"),
            (
                layout(&["a=h:1", "b=h:1"], "a", &["l"]),
                "h:1 is the address of two voters",
            ),
            (layout(&["a=h:1"], "a", &["l", "l"]), "named twice"),
            (layout(&["a=h:1"], "b", &["l"]), "not among the voters"),
            (layout(&eight, "n1", &["l"]), "8 voter"),
        ] {
            let failure = check(&wrong).expect_err(cause);
            assert_eq!(failure.exit(), Exit::Usage);
            assert!(failure.to_string().contains(cause), "{failure}");
        }
    }

    #[test]
    fn a_voter_is_a_name_and_an_address() {
        let voter = parse_voter("node-1=127.0.0.1:7401").expect("well formed");
        assert_eq!(
            (voter.name.as_str(), voter.address.as_str()),
            ("node-1", "127.0.0.1:7401")
        );
        for text in ["", "node-1", "=h:1", "a=h", "a=h:0", "a b=h:1"] {
            assert!(parse_voter(text).is_err(), "{text:?} was taken");
        }
    }
}
