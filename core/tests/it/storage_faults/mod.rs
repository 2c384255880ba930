//! Everything that a disk can do to a file, at every sector of every file of a node: at rest and
//! under a running process, on one node, on two, on all three at places that have nothing in common.
//!
//! Each case begins with the same three disks. What must come of it stands in one place, in
//! [`expected`]; whatever comes of it, nobody is given anything wrong, nothing acknowledged is missing
//! where a majority runs, and no damage is left that nobody spoke of.

mod cluster;
mod damage;
mod disk;

use std::collections::BTreeMap;

use ringwood_core::log::offline::{Audit, End, SegmentPieces};
use ringwood_core::log::segment::SegmentHeader;

use crate::environment::number;
use crate::log_disk::Rng;
use cluster::{Base, CLUSTER, Cluster, GROUP, NODE_COUNT, Reading};
use damage::{Damage, next};
use disk::{Disk, FileName, SECTOR, is_damaged, recovered, tag_of};

/// What `status` says of what cannot be had again. Here others have all that is lost on one disk.
const LOST: [&str; 2] = ["the state in the head", "are lost in segment"];

/// Cases of the plain test command.
const SAMPLE_COUNT: usize = 250;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Journal,
    Segment,
    Pins,
    Persist,
}

impl Kind {
    fn of(name: FileName) -> Self {
        match name {
            FileName::Journal(_) => Self::Journal,
            FileName::Segment(_) => Self::Segment,
            FileName::Pins => Self::Pins,
            FileName::Persist => Self::Persist,
        }
    }
}

/// Whose disks are hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Leader,
    Follower,
    Two,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// Before the processes start.
    AtRest,
    /// While they run; then they end, and start again.
    InUse,
}

/// One place: whose, which file, which sector.
type Hit = (usize, FileName, usize);

#[derive(Clone, Debug)]
struct Case {
    kind: Kind,
    damage: Damage,
    whose: Whose,
    moment: Moment,
    hits: Vec<Hit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// What was hit is needed by nobody, or was written anew.
    Unharmed,
    /// It was found and healed, and everything is whole.
    Repaired,
    /// A quorum may have forgotten its votes: nobody is elected, and `status` says so.
    Unsure,
    /// A node does not start, or is not taken, and says why.
    Refused,
}

/// What may come of a case.
fn expected(case: &Case) -> &'static [Outcome] {
    use Outcome::{Refused, Repaired, Unharmed, Unsure};
    let is_at_rest = case.moment == Moment::AtRest;
    let is_quorum = case.hits.len() > NODE_COUNT / 2;
    match (case.kind, case.damage) {
        // It only ever says less.
        (Kind::Persist, _) => &[Unharmed],
        // A node without its last start may be taken for another one.
        (Kind::Pins, _) => &[Unharmed, Refused],
        // What a running node writes may make the file as long as it was.
        (Kind::Journal, Damage::Truncated | Damage::Deleted) if is_at_rest => &[Refused],
        (Kind::Journal, Damage::Truncated | Damage::Deleted) => &[Repaired, Refused],
        (Kind::Journal, _) if is_quorum => &[Unharmed, Repaired, Unsure],
        (Kind::Journal, _) => &[Unharmed, Repaired],
        (Kind::Segment, _) => &[Unharmed, Repaired],
    }
}

/// Three nodes' disks with some hundred blocks, and the same disks when it was half of them.
fn make_base(seed: u64) -> (Base, Vec<Disk>) {
    let mut rng = Rng::new(seed);
    let mut cluster = Cluster::new();
    cluster.start();
    let count = 70 + rng.below(60);
    let mut old = Vec::new();
    for number in 0..count {
        let size = *rng.pick(&[20, 700, 4_000, 9_000]);
        let record = vec![rng.below(256) as u8; size];
        assert!(cluster.append(&record), "nothing is wrong yet");
        if number == count / 2 {
            old = cluster.disks();
        }
    }
    cluster.run(400);
    // Every other log has lost its beginning.
    if seed % 2 == 1 {
        cluster.trim(count / 2);
        cluster.run(400);
    }
    (cluster.end(), old)
}

/// Every sector of every file of a kind, those behind its last content left out.
fn places(disk: &Disk, kind: Kind) -> Vec<(FileName, usize)> {
    let files = disk
        .files
        .iter()
        .filter(|(name, _)| Kind::of(**name) == kind);
    let sectors = files.flat_map(|(name, file)| {
        let used = file
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last / SECTOR + 1);
        (0..used).map(|sector| (*name, sector))
    });
    sectors.collect()
}

/// All cases of three disks.
fn cases(base: &Base) -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kind::Segment, Kind::Journal, Kind::Pins, Kind::Persist] {
        let places: Vec<_> = base.disks.iter().map(|disk| places(disk, kind)).collect();
        let nodes = [0, 1, 2].map(|step| (base.leader + step) % NODE_COUNT);
        for at in 0..places[nodes[0]].len() {
            for damage in Damage::ALL {
                for whose in [Whose::Leader, Whose::Follower, Whose::Two, Whose::All] {
                    let (hit, part) = match whose {
                        Whose::Leader => (&nodes[..1], 1),
                        Whose::Follower => (&nodes[1..2], 1),
                        Whose::Two => (&nodes[..2], 2),
                        Whose::All => (&nodes[..], 3),
                    };
                    let place = |(step, node): (usize, &usize)| {
                        let all = &places[*node];
                        let (name, sector) = all[(at + step * all.len() / part) % all.len()];
                        (*node, name, sector)
                    };
                    let hits: Vec<Hit> = hit.iter().enumerate().map(place).collect();
                    if !is_disjoint(kind, damage, &hits) || !is_there(base, damage, &hits) {
                        continue;
                    }
                    for moment in [Moment::AtRest, Moment::InUse] {
                        cases.push(Case {
                            kind,
                            damage,
                            whose,
                            moment,
                            hits: hits.clone(),
                        });
                    }
                }
            }
        }
    }
    cases
}

/// Whether what is to be taken with the file is there.
fn is_there(base: &Base, damage: Damage, hits: &[Hit]) -> bool {
    let is_pair = |(node, name, _): &Hit| {
        let behind = next(*name);
        behind != *name && base.disks[*node].files.contains_key(&behind)
    };
    damage != Damage::DeletedPair || hits.iter().all(is_pair)
}

/// Whether some disk has an intact copy of each thing that is hit, and each file is taken away once.
fn is_disjoint(kind: Kind, damage: Damage, hits: &[Hit]) -> bool {
    let takes_rest = damage.is_of_file() || damage == Damage::Truncated;
    if damage.is_of_file() && hits[0].2 > 0 {
        return false;
    }
    let is_pair = damage == Damage::DeletedPair;
    let touches = |one: FileName, other: FileName| {
        one == other || is_pair && (next(one) == other || next(other) == one)
    };
    let is_other =
        |(at, hit): (usize, &Hit)| hits[..at].iter().all(|before| !touches(before.1, hit.1));
    match hits.len() {
        1 => true,
        // Nobody has another's.
        _ if matches!(kind, Kind::Pins | Kind::Persist) => true,
        // One file of three has nearly all of a small journal.
        3 if takes_rest && kind == Kind::Journal => false,
        _ => !takes_rest || hits.iter().enumerate().all(is_other),
    }
}

/// How a case ends, and why nodes did not start, or were turned away.
fn play(base: &Base, old: &[Disk], case: &Case) -> (Outcome, Vec<String>) {
    let mut cluster = Cluster::on(base);
    if case.moment == Moment::InUse {
        cluster.start();
        assert!(cluster.append(b"before"), "nothing is wrong yet");
    }
    let mut is_hit = false;
    for (node, name, sector) in &case.hits {
        is_hit |= case
            .damage
            .harm(cluster.disk(*node), &old[*node], *name, *sector);
    }
    if !is_hit {
        return (Outcome::Unharmed, Vec::new());
    }
    if case.moment == Moment::AtRest {
        for (node, ..) in &case.hits {
            judge_start(&base.disks[*node], cluster.disk(*node), *node);
        }
        cluster.start();
    }
    let mut outcome = heal(&mut cluster);
    if case.moment == Moment::InUse {
        let left = cluster.end();
        cluster = Cluster::on(&left);
        cluster.start();
        outcome = outcome.max(heal(&mut cluster));
    }
    (outcome, cluster.refusals().cloned().collect())
}

/// A journal that lost something says so, or nothing that it said is missing.
fn judge_start(was: &Disk, disk: &Disk, node: usize) {
    let was = recovered(was, node).expect("nothing was wrong with it");
    assert!(!is_damaged(&was), "nothing was wrong with it");
    let Ok(found) = recovered(disk, node) else {
        return;
    };
    if !is_damaged(&found) {
        let (was, found) = (&was.groups[&GROUP], &found.groups[&GROUP]);
        assert_eq!(found.hard, was.hard, "a promise is gone");
        assert_eq!(found.tail, was.tail, "blocks are gone");
    }
}

/// What becomes of the cluster: every node that runs has everything, and its disk is whole.
fn heal(cluster: &mut Cluster) -> Outcome {
    let up: Vec<usize> = (0..NODE_COUNT)
        .filter(|node| cluster.is_up(*node))
        .collect();
    let has_refused = |cluster: &Cluster| cluster.refusals().next().is_some();
    assert!(up.len() == NODE_COUNT || has_refused(cluster), "loudly");
    if up.len() < 2 {
        return Outcome::Refused;
    }
    if !cluster.append(b"after") {
        return why_nobody_leads(cluster, &up);
    }
    let mut found = cluster.damaged_start_count;
    for node in up {
        // Whoever is taken by nobody gets nothing, and is told nothing.
        let is_whole = is_soon(cluster, |cluster| cluster.read(node) == Reading::Whole);
        assert!(
            is_whole || has_refused(cluster),
            "node {node} does not have everything"
        );
        let is_sure = is_soon(cluster, |cluster| !says(cluster, node, "is unsure"));
        assert!(
            is_sure || has_refused(cluster),
            "node {node} stays unsure: {:?}",
            cluster.alarms(node)
        );
        is_soon(cluster, |cluster| {
            let (found, healed) = cluster.scrub(node).expect("it is up");
            found == healed
        });
        // What a mend could not bring back is seen when what it wrote is read.
        let (found_count, healed_count) = cluster.scrub(node).expect("it is up");
        let alarms = cluster.alarms(node);
        assert_eq!(
            found_count, healed_count,
            "found and healed by node {node}: {alarms:?}"
        );
        let is_lost = |alarm: &String| LOST.iter().any(|words| alarm.contains(words));
        assert!(!alarms.iter().any(is_lost), "node {node}: {alarms:?}");
        found += found_count;
        audit(cluster.disk(node), node);
    }
    if has_refused(cluster) {
        Outcome::Refused
    } else if found > 0 {
        Outcome::Repaired
    } else {
        Outcome::Unharmed
    }
}

/// Within some time.
fn is_soon(cluster: &mut Cluster, mut is_so: impl FnMut(&mut Cluster) -> bool) -> bool {
    (0..40).any(|_| {
        let is_so = is_so(cluster);
        if !is_so {
            cluster.run(100);
        }
        is_so
    })
}

fn says(cluster: &mut Cluster, node: usize, words: &str) -> bool {
    let alarms = cluster.alarms(node);
    alarms.iter().any(|alarm| alarm.contains(words))
}

/// Nothing is taken: fewer than a majority are sure of themselves, and somebody says so. What is read
/// is right all the same.
fn why_nobody_leads(cluster: &mut Cluster, up: &[usize]) -> Outcome {
    for node in up {
        cluster.read(*node);
    }
    if cluster.refusals().next().is_some() {
        // Two of three may be too few, if one does not take the other any more, or is unsure.
        let is_explained = up
            .iter()
            .any(|node| says(cluster, *node, "is unsure") || says(cluster, *node, "refuses"));
        assert!(is_explained, "a majority does not go on");
        return Outcome::Refused;
    }
    let is_said = up
        .iter()
        .any(|node| says(cluster, *node, "nobody can be elected"));
    assert!(is_said, "a majority does not go on, and nobody says why");
    Outcome::Unsure
}

/// No segment that the journal vouches for has anything wrong.
fn audit(disk: &Disk, node: usize) {
    // A journal that has lost a file under a running process is refused at the next start.
    let Ok(found) = recovered(disk, node) else {
        return;
    };
    let Some(checkpoint) = found
        .groups
        .get(&GROUP)
        .and_then(|group| group.checkpoint.as_ref())
    else {
        return;
    };
    let mut audit = Audit::new(CLUSTER, tag_of(node), GROUP);
    // The checkpoint that had segments deleted may be what a journal lost under a running process.
    let first = match disk.first_segment() {
        Some(FileName::Segment(first)) if is_damaged(&found) => first,
        _ => checkpoint.first_segment,
    };
    for number in checkpoint.first_segment.max(first)..=checkpoint.segment {
        let next = disk.read(FileName::Segment(number + 1), 0, SECTOR);
        let end = match next.map(|bytes| SegmentHeader::check(&bytes)) {
            _ if number == checkpoint.segment => End::Grows(checkpoint.segment_size),
            Ok(Ok(header)) => End::Sealed(header.previous_size),
            _ => End::Unknown,
        };
        let size = disk
            .files
            .get(&FileName::Segment(number))
            .map_or(0, |file| file.len());
        let read = Box::new(move |position: u64, size: usize| {
            disk.read(FileName::Segment(number), position, size)
        });
        audit.segment(number, end, SegmentPieces::new(size as u64, read));
    }
    let faults = audit.finish(Some(checkpoint.base())).faults;
    assert!(faults.is_empty(), "node {node}: {faults:#?}");
}

#[test]
fn what_a_disk_does_is_repaired_or_refused() {
    let wanted = number("STORAGE_FAULTS").map_or(SAMPLE_COUNT, |count| count as usize);
    let first = number("STORAGE_FIRST").unwrap_or(0);
    let mut table: BTreeMap<(Kind, Damage, Whose, Moment), [usize; 4]> = BTreeMap::new();
    let (mut count, mut wrong, mut end) = (0, Vec::new(), first);
    while count < wanted || end % 2 == 1 {
        let seed = end;
        end += 1;
        let (base, old) = make_base(seed);
        let all = cases(&base);
        // A sample has some of everything, of a log that was trimmed and of one that was not: the step
        // has no factor of what is counted inside.
        let step = (all.len() * 2 / wanted.max(1)).max(1) | 1;
        for case in all.iter().step_by(step) {
            let ended = std::panic::catch_unwind(|| play(&base, &old, case));
            match ended {
                Ok((outcome, _)) if expected(case).contains(&outcome) => {
                    let key = (case.kind, case.damage, case.whose, case.moment);
                    table.entry(key).or_default()[outcome as usize] += 1;
                }
                Ok((outcome, why)) => {
                    wrong.push(format!("seed {seed}: {outcome:?} {why:?} {case:?}"));
                }
                Err(why) => {
                    // A panic's text is printed where it happens.
                    let why = why.downcast_ref::<String>().cloned();
                    wrong.push(format!("seed {seed}: {} {case:?}", why.unwrap_or_default()));
                }
            }
            count += 1;
        }
    }
    println!("unharmed, repaired, unsure, refused");
    for ((kind, damage, whose, moment), counts) in &table {
        println!("{kind:?} {damage:?} {whose:?} {moment:?}: {counts:?}");
    }
    let sum =
        |outcome: Outcome| -> usize { table.values().map(|counts| counts[outcome as usize]).sum() };
    let (repaired, refused) = (sum(Outcome::Repaired), sum(Outcome::Refused));
    let unsure = sum(Outcome::Unsure);
    println!(
        "{count} cases of seeds {first}..{end}: {} unharmed, {repaired} repaired, {unsure} unsure, {refused} refused",
        sum(Outcome::Unharmed)
    );
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(repaired > 0 && refused > 0, "a matrix that proves nothing");
}
