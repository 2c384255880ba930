//! Where in a log's segments a reader may enter, and how far each of them is synced.
//!
//! Keeps a few dozen bytes for each file, the points of the one that grows, and of a few sealed ones
//! what their footers say. Knows no bytes: footers are read by whoever looks for blocks. All but the
//! files' heads is a cache; where nothing is known, a reader walks.

use std::collections::VecDeque;

use crate::id::{Index, Offset, Term, UnixSeconds};
use crate::limits::SEGMENT_INDEX_COUNT_MAX;
use crate::log::footer::{FooterBuilder, SegmentPoint};
use crate::log::segment::SegmentHeader;

use super::chain::Stretch;
use super::trim::Retention;

/// Places where readers ended that are remembered: each reads on from there.
const CURSOR_COUNT_MAX: usize = 8;

/// Places behind damage that are remembered. A disk with more of it is to be replaced.
const DETOUR_COUNT_MAX: usize = 256;

/// A place in a segment at which a block begins, and what comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) number: u32,
    pub(super) position: u64,
    pub(super) prev_index: Index,
    /// 0 where nobody knows: a peer that is to go on from here is not brought further.
    pub(super) prev_term: Term,
    /// None where nobody knows.
    pub(super) prev_sum: Option<u32>,
    /// Offset of the first record at or after this place.
    pub(super) next_offset: Offset,
}

impl Point {
    /// A point of the segment with this number.
    pub(super) fn of(number: u32, point: &SegmentPoint) -> Self {
        Self {
            number,
            position: point.position,
            prev_index: Index(point.index.0 - 1),
            prev_term: point.previous_term,
            prev_sum: None,
            next_offset: point.first_offset,
        }
    }

    /// The beginning of a stretch that is proven.
    pub(super) fn behind(number: u32, stretch: &Stretch) -> Self {
        Self {
            number,
            position: stretch.position,
            prev_index: stretch.before.index,
            prev_term: Term(0),
            prev_sum: Some(stretch.before.sum),
            next_offset: stretch.first_offset,
        }
    }
}

/// One file.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentFile {
    /// What its first sector says.
    pub(super) header: SegmentHeader,
    /// Synced bytes, the footer not counted; 0 while nothing names them, for what did is lost.
    pub(super) size: u64,
    /// How often it was written anew since the start: what is known of the places in it, or comes of
    /// a read that is under way, is of one of these files only.
    pub(super) layout: u32,
}

impl SegmentFile {
    /// Where its first block stands.
    fn begin(&self) -> Point {
        Point {
            number: self.header.segment,
            position: u64::from(self.header.state.head_size),
            prev_index: Index(self.header.first_index.0 - 1),
            prev_term: self.header.previous_term,
            prev_sum: Some(self.header.previous_sum),
            next_offset: self.header.first_offset,
        }
    }
}

/// The points of one sealed segment.
#[derive(Debug)]
struct SegmentIndex {
    number: u32,
    points: Vec<Point>,
}

/// One log's segments, as far as they are synced.
#[derive(Debug)]
pub(super) struct SegmentMap {
    /// By number, dense; the last is the one that grows.
    files: VecDeque<SegmentFile>,
    /// Number of the file that is begun next.
    next_number: u32,
    /// Of the one that grows.
    growing: FooterBuilder,
    /// Of sealed ones; the one used last stands last.
    indexes: VecDeque<SegmentIndex>,
    /// Where readers ended, the latest last.
    cursors: VecDeque<Point>,
    /// Behind damage that nobody repairs: the only way past it.
    detours: Vec<Point>,
}

impl SegmentMap {
    /// As a checkpoint left them: the headers of all files in order, how far the last is synced, and
    /// the sum over its blocks' sums; and the number that the next one gets.
    pub(super) fn recovered(
        headers: &[SegmentHeader],
        growing_size: u64,
        blocks_sum: u32,
        next_number: u32,
    ) -> Self {
        let sizes = headers.iter().skip(1).map(|header| header.previous_size);
        let files = headers.iter().zip(sizes.chain([growing_size]));
        Self {
            files: files
                .map(|(header, size)| SegmentFile {
                    header: *header,
                    size,
                    layout: 0,
                })
                .collect(),
            next_number,
            growing: FooterBuilder::resumed(blocks_sum, growing_size),
            indexes: VecDeque::new(),
            cursors: VecDeque::new(),
            detours: Vec::new(),
        }
    }

    /// The file that grows; none before the first.
    pub(super) fn last(&self) -> Option<&SegmentFile> {
        self.files.back()
    }

    /// What its footer will say.
    pub(super) fn growing(&self) -> &FooterBuilder {
        &self.growing
    }

    /// The first file that is kept.
    pub(super) fn first(&self) -> Option<&SegmentFile> {
        self.files.front()
    }

    /// Number of the first file that is kept, or of the one that is begun next.
    pub(super) fn first_number(&self) -> u32 {
        self.first()
            .map_or(self.next_number, |file| file.header.segment)
    }

    /// Number of the file that is begun next.
    pub(super) fn next_number(&self) -> u32 {
        self.next_number
    }

    /// Number of the file that a log which begins at `start` needs first: one whose state is known,
    /// for a replica may have to be brought up from it.
    pub(super) fn number_at(&self, start: Offset) -> u32 {
        let is_before = |file: &SegmentFile| file.header.first_offset <= start;
        let count = self.files.partition_point(is_before);
        let mut known = self.files.iter().take(count).rev();
        let known = known.find(|file| file.header.state.is_known());
        known.map_or(self.first_number(), |file| file.header.segment)
    }

    /// Whether a log that begins at `start` needs nothing of the first file.
    pub(super) fn is_above_first(&self, start: Offset) -> bool {
        self.number_at(start) > self.first_number()
    }

    /// Forgets the files below a number.
    pub(super) fn release_below(&mut self, number: u32) {
        while let Some(file) = self.files.front()
            && file.header.segment < number
        {
            assert!(self.files.len() > 1, "what grows is kept");
            self.files.pop_front();
        }
        self.indexes.retain(|index| index.number >= number);
        self.cursors.retain(|cursor| cursor.number >= number);
        self.detours.retain(|detour| detour.number >= number);
    }

    /// Where the log may begin by what is to be retained of it; none if all is.
    pub(super) fn kept_from(&self, retention: &Retention, date: UnixSeconds) -> Option<Offset> {
        let mut size: u64 = self.files.iter().map(|file| file.size).sum();
        let mut kept = None;
        for (file, next) in self.files.iter().zip(self.files.iter().skip(1)) {
            let made_at = next.header.made_at;
            let is_dated = made_at.0 > 0 && date.0 > 0;
            let age = date.0.saturating_sub(made_at.0);
            let is_old = retention.seconds.is_some_and(|max| is_dated && age >= max);
            let is_more = retention.bytes.is_some_and(|min| size - file.size >= min);
            if !is_old && !is_more {
                break;
            }
            size -= file.size;
            kept = Some(next.header.first_offset);
        }
        kept
    }

    /// Bytes of all files.
    pub(super) fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Whether the file with this number was written anew since it had this layout.
    pub(super) fn is_replaced(&self, number: u32, layout: u32) -> bool {
        self.file(number).is_some_and(|file| file.layout != layout)
    }

    /// The file with this number.
    pub(super) fn file(&self, number: u32) -> Option<&SegmentFile> {
        let first = self.files.front()?.header.segment;
        self.files.get(number.checked_sub(first)? as usize)
    }

    /// A segment was begun or has grown, and is synced.
    pub(super) fn grow(&mut self, file: SegmentFile, growing: FooterBuilder) {
        let number = file.header.segment;
        match self.files.back_mut() {
            Some(last) if last.header.segment == number => {
                assert!(file.size > last.size, "segments only grow");
                *last = file;
            }
            last => {
                assert!(
                    last.is_none_or(|last| last.header.segment + 1 == number),
                    "segments have no gaps"
                );
                // Readers of what grew until now go on by its points.
                let points = self.growing.points().iter();
                let points = points.map(|point| Point::of(number.saturating_sub(1), point));
                let points: Vec<Point> = points.collect();
                self.files.push_back(file);
                if !points.is_empty() {
                    self.put_index(number - 1, points);
                }
            }
        }
        self.growing = growing;
        self.next_number = number + 1;
    }

    /// Whether a footer should be asked before this sealed segment is walked.
    pub(super) fn lacks_index(&self, number: u32) -> bool {
        let is_sealed = self.last().is_some_and(|last| number < last.header.segment);
        is_sealed && self.indexes.iter().all(|index| index.number != number)
    }

    /// What a sealed segment's footer says, or nothing if it says nothing.
    pub(super) fn put_index(&mut self, number: u32, points: Vec<Point>) {
        self.indexes.retain(|index| index.number != number);
        if self.indexes.len() == SEGMENT_INDEX_COUNT_MAX {
            self.indexes.pop_front();
        }
        self.indexes.push_back(SegmentIndex { number, points });
    }

    /// Where a reader ended: most likely it goes on there.
    pub(super) fn learn(&mut self, point: Point) {
        // The end of a segment is the beginning of the next.
        let is_within = self
            .file(point.number)
            .is_some_and(|file| point.position < file.size);
        if !is_within || self.cursors.contains(&point) {
            return;
        }
        if self.cursors.len() == CURSOR_COUNT_MAX {
            self.cursors.pop_front();
        }
        self.cursors.push_back(point);
    }

    /// Whether a reader has ended at this place.
    pub(super) fn is_cursor(&self, at: &Point) -> bool {
        let place = |point: &Point| (point.number, point.position);
        self.cursors.iter().any(|cursor| place(cursor) == place(at))
    }

    /// Where readers enter behind damage that nobody repairs.
    pub(super) fn put_detour(&mut self, point: Point) {
        if !self.detours.contains(&point) && self.detours.len() < DETOUR_COUNT_MAX {
            self.detours.push(point);
        }
    }

    /// A segment was written anew: its blocks stand elsewhere in it.
    pub(super) fn replace(&mut self, new: SegmentFile, built: FooterBuilder) {
        let number = new.header.segment;
        self.cursors.retain(|point| point.number != number);
        self.detours.retain(|point| point.number != number);
        let first = self.first_number();
        let at = (number - first) as usize;
        let file = self.files.get_mut(at);
        let file = file.expect("only what is kept is written anew");
        let was = std::mem::replace(file, new);
        file.layout = was.layout + 1;
        assert!(was.size == new.size || was.size == 0, "others name it");
        if was.size == 0 {
            // The next one's header is not written yet.
            let next = self.files.get_mut(at + 1);
            next.expect("what grows has a size").header.previous_size = new.size;
        }
        if self
            .last()
            .is_some_and(|last| last.header.segment == number)
        {
            self.growing = built;
            return;
        }
        let points = built.points().iter();
        let points = points.map(|point| Point::of(number, point)).collect();
        self.put_index(number, points);
    }

    /// Where a reader enters a segment at its beginning; none beyond the last.
    pub(super) fn first_point(&self, number: u32) -> Option<Point> {
        self.file(number).map(SegmentFile::begin)
    }

    /// The last known place at or before the block with this index; none before the first.
    pub(super) fn point_of_index(&self, index: Index) -> Option<Point> {
        self.last_where(|point| point.prev_index < index)
    }

    /// The last known place at or before the record with this offset; none before the first.
    pub(super) fn point_of_offset(&self, offset: Offset) -> Option<Point> {
        self.last_where(|point| point.next_offset <= offset)
    }

    /// `is_before` holds up to some place in the log, and nowhere behind it.
    fn last_where(&self, is_before: impl Fn(&Point) -> bool) -> Option<Point> {
        let count = self.files.partition_point(|file| is_before(&file.begin()));
        let file = &self.files[count.checked_sub(1)?];
        let number = file.header.segment;
        let last = |points: &[Point]| {
            let count = points.partition_point(&is_before);
            count.checked_sub(1).map(|at| points[at])
        };
        let growing = self.growing.points();
        let in_growing = || {
            let count = growing.partition_point(|point| is_before(&Point::of(number, point)));
            count
                .checked_sub(1)
                .map(|at| Point::of(number, &growing[at]))
        };
        let index = self.indexes.iter().find(|index| index.number == number);
        let indexed = match index {
            Some(index) => last(&index.points),
            None if count == self.files.len() => in_growing(),
            None => None,
        };
        let cursors = self.cursors.iter().copied();
        let cursors = cursors.filter(|point| point.number == number && is_before(point));
        let detours = self.detours.iter().copied();
        let detours = detours.filter(|point| point.number == number && is_before(point));
        let known = cursors.chain(detours).chain(indexed).chain([file.begin()]);
        known.max_by_key(|point| (point.prev_index, point.position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClusterId, GroupId, Term, UnixSeconds};
    use crate::log::segment::StatePlace;

    /// Of a head whose state is known.
    const STATE: StatePlace = StatePlace {
        voter_count: 3,
        ..StatePlace::NONE
    };
    const HEAD_SIZE: u64 = STATE.head_size as u64;
    const FILE_SIZE: u64 = HEAD_SIZE + 8_192;

    /// Blocks of 1000 bytes and two records each, eight to a file, which has a point before its
    /// fifth once it is sealed.
    fn file(number: u32) -> SegmentFile {
        let before = u64::from(number) * 8;
        SegmentFile {
            header: SegmentHeader {
                cluster: ClusterId(1),
                node_tag: 2,
                group: GroupId(3),
                segment: number,
                first_index: Index(before + 1),
                first_offset: Offset(before * 2),
                previous_term: Term(4),
                previous_sum: 5,
                previous_size: FILE_SIZE,
                made_at: UnixSeconds(0),
                state: STATE,
            },
            size: FILE_SIZE,
            layout: 0,
        }
    }

    fn point(number: u32, block: u64) -> Point {
        let before = u64::from(number) * 8 + block;
        Point {
            number,
            position: HEAD_SIZE + 1000 * block,
            prev_index: Index(before),
            prev_term: Term(4),
            prev_sum: (block == 0).then_some(5),
            next_offset: Offset(before * 2),
        }
    }

    fn map(count: u32) -> SegmentMap {
        let headers: Vec<SegmentHeader> = (0..count).map(|number| file(number).header).collect();
        SegmentMap::recovered(&headers, FILE_SIZE, 0, count)
    }

    #[test]
    fn the_last_place_before_what_is_wanted_is_found() {
        let mut map = map(3);
        assert!(map.lacks_index(0) && map.lacks_index(1) && !map.lacks_index(2));
        map.put_index(1, vec![point(1, 4)]);
        assert!(!map.lacks_index(1));
        map.learn(point(1, 6));
        map.learn(point(1, 2));
        let known = [(1, 0), (1, 2), (1, 4), (1, 6), (2, 0)].map(|(number, at)| point(number, at));
        for before in 8..18 {
            let wanted = known.iter().rfind(|point| point.prev_index.0 <= before);
            let index = Index(before + 1);
            assert_eq!(map.point_of_index(index).as_ref(), wanted, "{index}");
            for offset in [Offset(before * 2), Offset(before * 2 + 1)] {
                assert_eq!(map.point_of_offset(offset).as_ref(), wanted, "{offset}");
            }
        }
        assert_eq!(map.point_of_index(Index(0)), None);
        assert_eq!(map.first_point(3), None);
    }

    #[test]
    fn a_log_lets_go_of_whole_files_below_its_start() {
        let mut map = map(4);
        for (start, number) in [(0, 0), (15, 0), (16, 1), (47, 2), (48, 3), (999, 3)] {
            assert_eq!(map.number_at(Offset(start)), number, "{start}");
            assert_eq!(map.is_above_first(Offset(start)), number > 0, "{start}");
        }
        map.put_index(0, vec![point(0, 4)]);
        map.learn(point(1, 3));
        map.release_below(2);
        assert_eq!((map.first_number(), map.next_number()), (2, 4));
        assert_eq!(map.point_of_index(Index(16)), None);
        assert_eq!(map.point_of_index(Index(17)), Some(point(2, 0)));
        assert!(map.file(1).is_none() && map.file(2).is_some());
        assert!(map.indexes.is_empty() && map.cursors.is_empty());
        // One that began anew has none, and goes on with its numbers.
        let empty = SegmentMap::recovered(&[], 0, 0, 7);
        assert_eq!((empty.first_number(), empty.number_at(Offset(5))), (7, 7));
    }

    #[test]
    fn what_is_kept_is_enough_by_size_and_young_enough() {
        let mut map = map(4);
        for (file, made_at) in map.files.iter_mut().zip([100, 200, 300, 0]) {
            file.header.made_at = UnixSeconds(made_at);
        }
        let kept = |bytes, seconds, date| {
            let kept = map.kept_from(&Retention { bytes, seconds }, UnixSeconds(date));
            kept.map(|offset| offset.0)
        };
        let size = FILE_SIZE;
        assert_eq!(kept(None, None, 999), None);
        assert_eq!(kept(Some(3 * size), None, 0), Some(16));
        assert_eq!(kept(Some(3 * size + 1), None, 0), None);
        assert_eq!(kept(Some(0), None, 0), Some(48), "what grows is kept");
        // All of a file is as old as the next one's beginning.
        assert_eq!(kept(None, Some(50), 249), None);
        assert_eq!(kept(None, Some(50), 250), Some(16));
        // Without a date nothing is known to be old.
        assert_eq!(kept(None, Some(50), 999), Some(32));
        assert_eq!(kept(None, Some(50), 0), None);
        assert_eq!(
            kept(Some(2 * size), Some(50), 250),
            Some(32),
            "either lets go"
        );
    }

    #[test]
    fn what_is_remembered_of_sealed_segments_is_bounded() {
        let count = 3 * CURSOR_COUNT_MAX as u32;
        let mut map = map(count);
        for number in 0..count {
            map.put_index(number, vec![point(number, 4)]);
            map.learn(point(number, 6));
            assert_eq!(
                map.point_of_index(Index(u64::from(number) * 8 + 8)),
                Some(point(number, 6))
            );
        }
        assert_eq!(map.indexes.len(), SEGMENT_INDEX_COUNT_MAX);
        assert_eq!(map.cursors.len(), CURSOR_COUNT_MAX);
        assert!(map.lacks_index(0), "the one used longest ago is forgotten");
        assert_eq!(map.point_of_index(Index(8)), Some(point(0, 0)));
        // The end of a file is no place to begin.
        map.learn(Point {
            position: FILE_SIZE,
            ..point(5, 8)
        });
        assert_eq!(map.point_of_index(Index(48)), Some(point(5, 0)));
    }

    #[test]
    fn a_sealed_segment_keeps_the_points_it_grew_with() {
        let mut map = SegmentMap::recovered(&[], 0, 0, 0);
        let mut growing = FooterBuilder::new(HEAD_SIZE);
        let entry = crate::log::Entry {
            term: Term(4),
            size: 600_000,
            sum: 1,
            place: crate::log::Place::default(),
            first_offset: Offset(0),
            record_count: 1,
        };
        growing.push(&entry, Index(1), HEAD_SIZE, Term(4));
        growing.push(&entry, Index(2), HEAD_SIZE + 600_000, Term(4));
        let mut first = file(0);
        first.size = 1 << 21;
        map.grow(first, growing);
        let inner = map.point_of_index(Index(2)).expect("a point");
        assert_eq!((inner.number, inner.position), (0, HEAD_SIZE + 600_000));
        map.grow(file(1), FooterBuilder::new(HEAD_SIZE));
        assert!(!map.lacks_index(0));
        assert_eq!(map.point_of_index(Index(2)), Some(inner));
        assert_eq!(map.point_of_index(Index(9)), Some(point(1, 0)));
    }
}
