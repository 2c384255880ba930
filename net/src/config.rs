//! A node's identity, as `init` writes it and every start reads it: text in, a `Config` that
//! cannot be wrong out. It stands in two files, and whichever is sound is believed: without it nobody
//! knows whose files the others are.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use ringwood_core::frame::sum::crc32c;
use ringwood_core::id::{ClusterId, GroupId, Incarnation, NodeId};
use ringwood_core::limits::{GROUP_COUNT_MAX, NAME_SIZE_MAX, VOTER_COUNT_MAX};
use ringwood_core::shard::{LogName, Voter};
use serde::{Deserialize, Serialize};

use crate::clock;

/// The identity's file in a data directory.
pub const IDENTITY_FILE: &str = "node.toml";

/// The same once more.
pub const IDENTITY_COPY_FILE: &str = "node.toml.copy";

/// What `init` is told; the same on every node but for `node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of this node; one of the voters.
    pub node: String,
    /// All voters.
    pub voters: Vec<VoterAddress>,
    /// Names of the logs; the first is kept by group 1, and so on.
    pub logs: Vec<String>,
}

/// A voter and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoterAddress {
    /// Its name.
    pub name: String,
    /// `HOST:PORT`.
    pub address: String,
}

/// Why an identity cannot be made or read. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A name that could be mistaken, in a list or on a screen.
    #[error("{what} {name:?} is not a name: 1 to {NAME_SIZE_MAX} letters, digits, '.', '_' or '-'")]
    Name {
        /// What was to be named.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A name that stands twice.
    #[error("{what} {name:?} is named twice")]
    Twice {
        /// What it names.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The node is none of the voters.
    #[error("node {node:?} is not among the voters ({voters})")]
    NotVoter {
        /// The node.
        node: String,
        /// The voters' names.
        voters: String,
    },
    /// An address without a port.
    #[error("address {address:?} of node {node:?} is not HOST:PORT")]
    Address {
        /// Whose.
        node: String,
        /// What was given.
        address: String,
    },
    /// None, or more than the bound.
    #[error("{count} {what}: there must be 1 to {count_max}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many at most.
        count_max: usize,
    },
    /// The directory holds something already.
    #[error("{path} is not empty; a node's directory must be new")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The directory was never made by `init`.
    #[error("{path} holds no node: run `ringwood init` first")]
    NotInitialised {
        /// The directory.
        path: PathBuf,
    },
    /// The identity's file is not what `init` wrote.
    #[error("{path} is damaged or was edited: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// The file system said no.
    #[error("{path}: {error}")]
    Io {
        /// On what.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// The identity's file, field by field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    format: u32,
    cluster: String,
    cluster_id: String,
    node: String,
    node_id: String,
    incarnation: String,
    /// Digest of all but the addresses, which may be edited.
    sum: String,
    logs: Vec<String>,
    voters: Vec<VoterAddress>,
}

impl IdentityFile {
    fn digest(&self) -> String {
        let mut words = vec![&self.cluster, &self.cluster_id, &self.node, &self.node_id];
        words.push(&self.incarnation);
        words.extend(&self.logs);
        words.extend(self.voters.iter().map(|voter| &voter.name));
        let words: Vec<&str> = words.into_iter().map(String::as_str).collect();
        format!("{:016x}", digest(&words, 4))
    }
}

/// A node's identity, sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// This directory's life.
    pub incarnation: Incarnation,
    /// All voters.
    pub voters: Vec<Voter>,
    /// All logs.
    pub logs: Vec<LogName>,
}

impl Layout {
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_name("cluster", &self.cluster)?;
        check_names(
            "voter",
            self.voters.iter().map(|voter| &voter.name),
            VOTER_COUNT_MAX,
        )?;
        check_names("log", self.logs.iter(), GROUP_COUNT_MAX)?;
        for voter in &self.voters {
            let port = voter
                .address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                return Err(ConfigError::Address {
                    node: voter.name.clone(),
                    address: voter.address.clone(),
                });
            }
        }
        if !self.voters.iter().any(|voter| voter.name == self.node) {
            let voters: Vec<&str> = self
                .voters
                .iter()
                .map(|voter| voter.name.as_str())
                .collect();
            return Err(ConfigError::NotVoter {
                node: self.node.clone(),
                voters: voters.join(", "),
            });
        }
        Ok(())
    }

    /// The cluster these voters found together: the same on every node that is told the same.
    fn cluster_id(&self) -> ClusterId {
        let mut words = vec![self.cluster.as_str()];
        words.extend(self.voters.iter().map(|voter| voter.name.as_str()));
        words[1..].sort_unstable();
        ClusterId(u128::from(digest(&words, 1)) << 64 | u128::from(digest(&words, 2)))
    }

    fn node_id(&self, name: &str) -> NodeId {
        NodeId(digest(&[&self.cluster, name], 3).max(1))
    }
}

/// A stable 64-bit digest of words: identity, not security. Two CRCs over differently salted bytes.
fn digest(words: &[&str], salt: u8) -> u64 {
    let mut bytes = vec![salt];
    for word in words {
        bytes.extend_from_slice(&(word.len() as u32).to_le_bytes());
        bytes.extend_from_slice(word.as_bytes());
    }
    let low = crc32c(&bytes);
    bytes.reverse();
    bytes.push(salt ^ 0xa5);
    u64::from(crc32c(&bytes)) << 32 | u64::from(low)
}

fn check_name(what: &'static str, name: &str) -> Result<(), ConfigError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > NAME_SIZE_MAX || !name.bytes().all(is_plain) {
        return Err(ConfigError::Name {
            what,
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn check_names<'a>(
    what: &'static str,
    names: impl ExactSizeIterator<Item = &'a String>,
    count_max: usize,
) -> Result<(), ConfigError> {
    if names.len() == 0 || names.len() > count_max {
        return Err(ConfigError::Count {
            what,
            count: names.len(),
            count_max,
        });
    }
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        check_name(what, name)?;
        if !seen.insert(name) {
            return Err(ConfigError::Twice {
                what,
                name: name.clone(),
            });
        }
    }
    Ok(())
}

/// Makes a node's directory with its identity. Refuses one that holds anything.
///
/// # Errors
/// What is wrong with the layout or the directory; then nothing is left behind but, at most, an
/// empty directory.
pub fn init(dir: &Path, layout: &Layout) -> Result<(), ConfigError> {
    layout.check()?;
    let io = |error| ConfigError::Io {
        path: dir.to_owned(),
        error,
    };
    make_durably(dir).map_err(io)?;
    if fs::read_dir(dir).map_err(io)?.next().is_some() {
        return Err(ConfigError::NotEmpty {
            path: dir.to_owned(),
        });
    }
    let mut file = IdentityFile {
        format: 1,
        cluster: layout.cluster.clone(),
        cluster_id: format!("{:032x}", layout.cluster_id().0),
        node: layout.node.clone(),
        node_id: format!("{:016x}", layout.node_id(&layout.node).0),
        incarnation: format!("{:016x}", clock::random_u64().max(1)),
        sum: String::new(),
        logs: layout.logs.clone(),
        voters: layout.voters.clone(),
    };
    file.sum = file.digest();
    let mut text = String::from(
        "# Who this node is. Written once by `ringwood init`; addresses may be edited while the\n\
         # node is stopped, nothing else may.\n",
    );
    let body = toml::to_string(&file).expect("plain strings have a TOML form");
    write!(text, "{body}").expect("writing to memory does not fail");
    write_durably(dir, IDENTITY_COPY_FILE, text.as_bytes()).map_err(io)?;
    write_durably(dir, IDENTITY_FILE, text.as_bytes()).map_err(io)
}

/// Puts back whichever of the identity's two files is not sound, or not what the other one says, and
/// says so. What was edited in `node.toml` goes to its copy.
///
/// # Errors
/// Neither is sound, or the file system said no.
pub fn restore(dir: &Path) -> Result<Option<String>, ConfigError> {
    let copy = Identity::read_file(dir, IDENTITY_COPY_FILE);
    let read = Identity::read_file(dir, IDENTITY_FILE).map(|own| {
        let is_same = |copy: &Identity| {
            (copy.cluster, copy.node, copy.incarnation) == (own.cluster, own.node, own.incarnation)
        };
        copy.as_ref().is_ok_and(|copy| !is_same(copy))
    });
    if matches!(read, Ok(true)) {
        return Err(ConfigError::Damaged {
            path: dir.join(IDENTITY_FILE),
            why: "node.toml.copy is another directory's; put back the one that was here".into(),
        });
    }
    let Err(error) = read else {
        let io = |error| ConfigError::Io {
            path: dir.to_owned(),
            error,
        };
        let text = fs::read(dir.join(IDENTITY_FILE)).map_err(io)?;
        if fs::read(dir.join(IDENTITY_COPY_FILE)).is_ok_and(|copy| copy == text) {
            return Ok(None);
        }
        replace_durably(dir, IDENTITY_COPY_FILE, &text).map_err(io)?;
        let notice = "node.toml.copy was damaged, or addresses in node.toml were edited: it is \
                      written anew";
        return Ok(Some(notice.into()));
    };
    copy?;
    let put_back = || -> std::io::Result<()> {
        let text = fs::read(dir.join(IDENTITY_COPY_FILE))?;
        replace_durably(dir, IDENTITY_FILE, &text)
    };
    put_back().map_err(|error| ConfigError::Io {
        path: dir.to_owned(),
        error,
    })?;
    Ok(Some(format!("{error}; it is put back from its copy")))
}

fn replace_durably(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    // Left over where a process was killed.
    match fs::remove_file(dir.join(format!("{name}.new"))) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_durably(dir, name, bytes)
}

/// Makes a directory, and what is missing above it, with names that a power cut does not take back.
fn make_durably(dir: &Path) -> std::io::Result<()> {
    let missing = dir.ancestors();
    let missing = missing.take_while(|at| !at.as_os_str().is_empty() && !at.exists());
    let made_count = missing.count();
    fs::create_dir_all(dir)?;
    // One that was there may be so since an `init` that was killed just here.
    for at in dir.ancestors().take(made_count.max(1)) {
        let parent = match at.parent() {
            None => continue,
            Some(parent) if parent == Path::new("") => Path::new("."),
            Some(parent) => parent,
        };
        match File::open(parent) {
            // Whoever made it there may do what we may not.
            Err(error) if made_count == 0 && error.kind() == ErrorKind::PermissionDenied => {}
            opened => opened?.sync_all()?,
        }
    }
    Ok(())
}

/// Writes a small file so that it is there whole or not at all.
fn write_durably(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}

impl Identity {
    /// Reads a directory's identity from whichever of its two files is what `init` wrote.
    ///
    /// # Errors
    /// Why `node.toml` is none, if its copy is none either.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        Self::read_file(dir, IDENTITY_FILE)
            .or_else(|error| Self::read_file(dir, IDENTITY_COPY_FILE).map_err(|_| error))
    }

    /// Reads one of the identity's two files and checks that it is what `init` wrote.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read_file(dir: &Path, name: &str) -> Result<Self, ConfigError> {
        let path = dir.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ConfigError::NotInitialised {
                    path: dir.to_owned(),
                });
            }
            Err(error) => return Err(ConfigError::Io { path, error }),
        };
        let damaged = |why: String| ConfigError::Damaged {
            path: path.clone(),
            why,
        };
        let text = String::from_utf8(bytes).map_err(|_| damaged("it is not text".into()))?;
        let file: IdentityFile =
            toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
        if file.format != 1 {
            return Err(damaged(format!(
                "format {} is not known to this version",
                file.format
            )));
        }
        let sum = file.digest();
        let layout = Layout {
            cluster: file.cluster,
            node: file.node,
            voters: file.voters,
            logs: file.logs,
        };
        layout.check()?;
        // Ids are derived, so a name edited by hand shows here.
        if file.cluster_id != format!("{:032x}", layout.cluster_id().0) {
            return Err(damaged(
                "cluster_id does not fit the names of cluster and voters".into(),
            ));
        }
        if file.node_id != format!("{:016x}", layout.node_id(&layout.node).0) {
            return Err(damaged("node_id does not fit the node's name".into()));
        }
        if file.sum != sum {
            return Err(damaged("its sum does not fit".into()));
        }
        let Ok(incarnation @ 1..) = u64::from_str_radix(&file.incarnation, 16) else {
            return Err(damaged(
                "incarnation is not a 64-bit number in hexadecimal".into(),
            ));
        };
        let voters = layout.voters.iter().map(|voter| Voter {
            id: layout.node_id(&voter.name),
            name: voter.name.clone(),
            address: voter.address.clone(),
        });
        let logs = layout.logs.iter().zip(1..).map(|(name, group)| LogName {
            group: GroupId(group),
            name: name.clone(),
        });
        Ok(Self {
            cluster: layout.cluster_id(),
            node: layout.node_id(&layout.node),
            incarnation: Incarnation(incarnation),
            voters: voters.collect(),
            logs: logs.collect(),
            cluster_name: layout.cluster,
            node_name: layout.node,
        })
    }

    /// Where this node listens, as its voters' list says.
    #[must_use]
    pub fn address(&self) -> &str {
        let me = self.voters.iter().find(|voter| voter.id == self.node);
        &me.expect("a sound identity is one of its voters").address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let voter = |number: u16| VoterAddress {
            name: format!("node-{number}"),
            address: format!("127.0.0.1:{}", 7400 + number),
        };
        Layout {
            cluster: "harbour".into(),
            node: "node-2".into(),
            voters: (1..=3).map(voter).collect(),
            logs: vec!["log-0".into(), "log-1".into()],
        }
    }

    #[test]
    fn what_init_writes_reads_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("node-2");
        init(&home, &layout()).expect("a new directory");
        let identity = Identity::read(&home).expect("just written");
        assert_eq!(identity.node_name, "node-2");
        assert_eq!(identity.address(), "127.0.0.1:7402");
        assert_eq!(identity.logs[1].group, GroupId(2));
        assert!(matches!(
            init(&home, &layout()),
            Err(ConfigError::NotEmpty { .. })
        ));
    }

    #[test]
    fn nodes_agree_on_the_cluster_whatever_the_order_of_voters() {
        let mut other = layout();
        other.node = "node-1".into();
        other.voters.reverse();
        assert_eq!(layout().cluster_id(), other.cluster_id());
        other.cluster = "harbor".into();
        assert_ne!(layout().cluster_id(), other.cluster_id());
        assert_ne!(layout().node_id("node-1"), layout().node_id("node-2"));
    }

    #[test]
    fn an_edited_name_is_found_and_an_edited_address_is_not_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("n");
        init(&home, &layout()).expect("a new directory");
        let path = home.join(IDENTITY_FILE);
        let text = fs::read_to_string(&path).expect("it is there");
        fs::write(&path, text.replace("127.0.0.1:7401", "10.0.0.1:9000")).expect("writable");
        let identity = Identity::read(&home).expect("addresses may change");
        assert!(
            identity
                .voters
                .iter()
                .any(|voter| voter.address == "10.0.0.1:9000")
        );
        fs::remove_file(home.join(IDENTITY_COPY_FILE)).expect("it is there");
        fs::write(&path, text.replace("harbour", "seaport")).expect("writable");
        assert!(matches!(
            Identity::read(&home),
            Err(ConfigError::Damaged { .. })
        ));
        fs::write(&path, "format = 1").expect("writable");
        assert!(matches!(
            Identity::read(&home),
            Err(ConfigError::Damaged { .. })
        ));
        fs::remove_file(&path).expect("it is there");
        assert!(matches!(
            Identity::read(&home),
            Err(ConfigError::NotInitialised { .. })
        ));
    }

    #[test]
    fn whichever_of_the_two_files_is_damaged_the_other_one_tells() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("n");
        init(&home, &layout()).expect("a new directory");
        let identity = Identity::read(&home).expect("just written");
        let whole = fs::read(home.join(IDENTITY_FILE)).expect("it is there");
        assert_eq!(restore(&home).expect("both are sound"), None);
        let names = [IDENTITY_FILE, IDENTITY_COPY_FILE];
        for (name, at) in names
            .iter()
            .flat_map(|name| (0..whole.len()).map(move |at| (name, at)))
        {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            // Of a flipped byte in an address nobody can say that it is not edited.
            let is_edit = *name == IDENTITY_FILE && {
                let text = String::from_utf8_lossy(&damaged);
                let file: Result<IdentityFile, _> = toml::from_str(&text);
                file.is_ok_and(|file| file.voters != layout().voters)
            };
            if is_edit {
                continue;
            }
            fs::write(home.join(name), &damaged).expect("writable");
            assert_eq!(Identity::read(&home).expect("the other tells"), identity);
            assert!(restore(&home).expect("the other tells").is_some());
            let [first, second] = names.map(|name| fs::read(home.join(name)).expect("there"));
            assert!(first == second, "{name} {at}");
            assert_eq!(Identity::read(&home).expect("sound"), identity);
            for name in names {
                fs::write(home.join(name), &whole).expect("writable");
            }
        }
        for name in names {
            fs::remove_file(home.join(name)).expect("it is there");
            assert_eq!(Identity::read(&home).expect("the other tells"), identity);
            assert!(restore(&home).expect("the other tells").is_some());
        }
        // Two that are sound, and of two directories.
        let other = dir.path().join("other");
        init(&other, &layout()).expect("a new directory");
        fs::copy(other.join(IDENTITY_FILE), home.join(IDENTITY_FILE)).expect("it is there");
        let error = restore(&home).expect_err("nobody knows which").to_string();
        assert!(error.contains("another directory's"), "{error}");
        for name in names {
            fs::write(home.join(name), "format = 1").expect("writable");
        }
        assert!(matches!(restore(&home), Err(ConfigError::Damaged { .. })));
    }

    #[test]
    fn each_bad_layout_is_named() {
        let bad = |change: fn(&mut Layout)| {
            let mut layout = layout();
            change(&mut layout);
            layout.check().expect_err("a bad layout").to_string()
        };
        assert!(bad(|layout| layout.cluster.clear()).contains("is not a name"));
        assert!(bad(|layout| layout.node = "node-9".into()).contains("not among the voters"));
        assert!(bad(|layout| layout.voters[0].address = "host".into()).contains("HOST:PORT"));
        assert!(bad(|layout| layout.logs.clear()).contains("there must be"));
        assert!(bad(|layout| layout.logs[0] = "log-1".into()).contains("named twice"));
        assert!(bad(|layout| layout.logs[0] = "a/b".into()).contains("is not a name"));
    }
}
