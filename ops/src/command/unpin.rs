//! `unpin`: another directory may come under a voter's name.
//!
//! Works on the directory of a stopped node. Knows no other node: whether they are well is for
//! whoever types it to look at first.

use std::path::PathBuf;

use crate::exit::{Exit, Failure};
use crate::flags::parse_name;
use crate::output;
use crate::refusal;

/// Let another directory come under a voter's name
///
/// Nodes remember which directory each of the others has, and refuse any other: one that was emptied,
/// copied or restored has forgotten what it acknowledged. Where the old one is lost for good, this
/// makes the node of DIR forget it, and take the next that comes.
///
/// It is safe only if the other nodes hold all that was ever acknowledged. So look first: 'status'
/// must find all of them well and every log's replicas on them complete, with the lost voter absent.
/// Then stop one of them, unpin, start it, wait until 'status' finds it well again, and go on to the
/// next. The new directory comes last.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood unpin /var/lib/ringwood --node node-3"
)]
pub(crate) struct Args {
    /// Directory of a node that is stopped
    dir: PathBuf,

    /// The voter whose directory is lost
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    node: String,
}

/// Forgets the pin, if there is one.
pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let (dir, node) = (&args.dir, &args.node);
    let was_pinned = ringwood_net::unpin(dir, node).map_err(refusal::of_start)?;
    let dir = dir.display();
    let said = match was_pinned {
        true => format!("{dir}: takes the next directory of {node}\n"),
        false => format!("{dir}: knew no directory of {node}\n"),
    };
    let _ = output::print(&said)?;
    Ok(Exit::Ok)
}
