//! A model reader: asks for blocks in every mode, judges what comes, and now and then asks for a
//! hand-over. As an auditor it reads one replica from its beginning to its end.
//!
//! Knows no node; where to turn is the line's.

use super::client::{Context, Line};
use super::history::{Audit, judge_blocks};
use super::node::node_id;
use super::trims;
use crate::frame::client::{ArchivedFetchReply, ArchivedTrimReply, Fetch, StatusRequest, Transfer};
use crate::frame::code::{FetchOutcome, ReadMode};
use crate::id::{GroupId, Nanos};

/// A read without its answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    request: u64,
    from: u64,
    mode: ReadMode,
    sent_at: Nanos,
    wait: Nanos,
    /// What was known to be committed when it was sent.
    known_end: u64,
    /// When that was, by the history's count.
    asked_at: u64,
    /// Nothing below was kept, as was known when it was sent.
    known_start: u64,
    /// It asks for the log to begin there.
    trim: Option<u64>,
}

/// One reader and its log.
#[derive(Debug)]
pub(super) struct Reader {
    group: GroupId,
    /// Position of the group among the logs.
    position: usize,
    cursor: u64,
    asked: Option<Asked>,
    /// The end as last told on this connection: no process forgets what it knows to be decided.
    end_seen: u64,
    /// The same for where the log begins.
    start_seen: u64,
    read_at: Nanos,
    audit: Option<Audit>,
    /// What it reads is damaged, and it may be told so.
    is_damaged: bool,
    is_done: bool,
}

impl Reader {
    pub(super) fn new(group: GroupId, position: usize) -> Self {
        Self {
            group,
            position,
            cursor: 0,
            asked: None,
            end_seen: 0,
            start_seen: 0,
            read_at: Nanos(0),
            audit: None,
            is_damaged: false,
            is_done: false,
        }
    }

    /// A reader of one whole replica, of which some segment is damaged or none.
    pub(super) fn auditor(group: GroupId, position: usize, is_damaged: bool) -> Self {
        Self {
            is_damaged,
            audit: Some(Audit::new(position)),
            ..Self::new(group, position)
        }
    }

    pub(super) fn is_audit(&self) -> bool {
        self.audit.is_some()
    }

    /// It has come to the end, or to damage.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// What it read, if it is an auditor that has come to the end.
    pub(super) fn finished(&self) -> Option<&Audit> {
        self.audit.as_ref().filter(|_| self.is_done)
    }

    /// Reads again.
    pub(super) fn resume(&mut self, now: Nanos) {
        self.is_done = false;
        self.read_at = now;
    }

    /// Reads no more.
    pub(super) fn stop(&mut self) {
        self.is_done = true;
    }

    pub(super) fn on_line_lost(&mut self, now: Nanos) {
        self.asked = None;
        (self.end_seen, self.start_seen) = (0, 0);
        self.read_at = now;
    }

    pub(super) fn on_time(&mut self, line: &mut Line, context: &mut Context<'_>) -> Nanos {
        let (now, patience) = (context.now, context.swarm.client_patience);
        if let Some(asked) = self.asked {
            let deadline = asked.sent_at.after(asked.wait).after(patience);
            if deadline <= now {
                line.turn_to(0);
            }
            return deadline.max(now.after(Nanos(1)));
        }
        if self.is_done {
            return now.after(Nanos::from_millis(60_000));
        }
        if self.read_at > now {
            return self.read_at;
        }
        self.ask(line, context);
        now.after(patience)
    }

    fn ask(&mut self, line: &mut Line, context: &mut Context<'_>) {
        let group = self.group.0;
        let mut asked = Asked {
            request: 0,
            from: self.cursor,
            mode: ReadMode::AnyReplica,
            sent_at: context.now,
            wait: Nanos(0),
            known_end: context.history.known_end(self.position),
            asked_at: context.history.moment(),
            known_start: context.history.known_start(self.position),
            trim: None,
        };
        let mut size_max = 512 << 10;
        if self.audit.is_none() {
            let trim_per_mille = context.swarm.trim_per_mille;
            if trim_per_mille > 0 && context.chance.per_mille(trim_per_mille) {
                let (request, before) = trims::ask(self.group, self.position, line, context);
                (asked.request, asked.trim) = (request, Some(before));
                self.asked = Some(asked);
                return;
            }
            let chance = &mut *context.chance;
            if chance.per_mille(context.swarm.transfer_per_mille) {
                context.marks.transfers += 1;
                let to = node_id(chance.below(context.swarm.node_count as u64) as usize).0;
                asked.request = line.ask(|request| Transfer { request, to, group });
                self.asked = Some(asked);
                return;
            }
            if chance.one_in(50) {
                asked.request = line.ask(|request| StatusRequest { request });
                self.asked = Some(asked);
                return;
            }
            asked.mode = chance.pick(&[
                ReadMode::Committed,
                ReadMode::Linearizable,
                ReadMode::Linearizable,
                ReadMode::AnyReplica,
            ]);
            if chance.one_in(4) {
                // Anywhere, and now and then beyond the end.
                asked.from = chance.below(asked.known_end + 3);
            }
            asked.wait = Nanos(chance.pick(&[0, 0, 2_000_000, 20_000_000]));
            size_max = chance.pick(&[0, 1_000, 20_000, 200_000]);
        }
        let Asked {
            from, mode, wait, ..
        } = asked;
        let wait_us = (wait.0 / 1000) as u32;
        let mode = mode.code();
        asked.request = line.ask(|request| Fetch {
            request,
            from,
            group,
            size_max,
            wait_us,
            mode,
        });
        self.asked = Some(asked);
    }

    /// An answer to a trim.
    pub(super) fn on_trim_reply(
        &mut self,
        reply: &ArchivedTrimReply,
        line: &mut Line,
        context: &mut Context<'_>,
    ) {
        let request = reply.request.to_native();
        let Some(asked) = self.asked.filter(|asked| asked.request == request) else {
            return;
        };
        self.on_other_reply(context.now);
        let before = asked.trim.expect("it asked for a trim");
        line.note(context, || {
            let outcome = reply.outcome;
            format!("trim before {before}: outcome {outcome}")
        });
        if let Some(leader) = trims::judge_reply(self.position, before, reply, context) {
            line.turn_to(leader);
        }
    }

    /// An answer to anything but a read.
    pub(super) fn on_other_reply(&mut self, now: Nanos) {
        self.asked = None;
        self.read_at = now;
    }

    pub(super) fn on_reply(
        &mut self,
        reply: &ArchivedFetchReply,
        payload: &[u8],
        is_damaged: bool,
        line: &mut Line,
        context: &mut Context<'_>,
    ) {
        let Some(asked) = self
            .asked
            .filter(|asked| asked.request == reply.request.to_native())
        else {
            return;
        };
        self.asked = None;
        let every = if context.is_loaded {
            context.swarm.read_every
        } else {
            context.swarm.quiet_append_every
        };
        let pause = context.chance.about(every);
        self.read_at = context.now.after(pause);
        let end = reply.end_offset.to_native();
        let committed = context.oracle.committed(self.position);
        let outcome = FetchOutcome::from_code(reply.outcome).expect("a known outcome");
        line.note(context, || {
            let Asked { from, mode, .. } = asked;
            format!("{mode} read from {from}: {outcome}, the end is {end}")
        });
        match outcome {
            FetchOutcome::Ok => {
                let seen = match &mut self.audit {
                    // It judges every block by itself.
                    Some(audit) => {
                        audit.on_blocks(payload, context.oracle, context.history);
                        audit.next_offset()
                    }
                    None => judge_blocks(self.group.0, asked.from, payload, committed),
                };
                assert!(
                    seen <= end || payload.is_empty(),
                    "blocks behind the end are given"
                );
                assert!(
                    !payload.is_empty() || end == asked.from,
                    "nothing is given before the end"
                );
                assert!(
                    payload.is_empty() || asked.from >= self.start_seen,
                    "what was gone at {} is there again at {}",
                    self.start_seen,
                    asked.from
                );
                let is_current = asked.mode == ReadMode::Linearizable;
                assert!(
                    payload.is_empty() || !is_current || asked.from >= asked.known_start,
                    "a linearizable read is given what was gone before"
                );
                self.judge_end(&asked, end, context);
                context.marks.reads += 1;
                self.cursor = seen;
                if self.audit.is_some() {
                    self.is_done = self.cursor == context.oracle.end_offset(self.position);
                    self.read_at = context.now;
                }
            }
            FetchOutcome::BeyondEnd => {
                assert!(asked.from > end, "{} is not beyond {end}", asked.from);
                self.judge_end(&asked, end, context);
                self.cursor = self.cursor.min(end);
            }
            FetchOutcome::Trimmed => {
                let first = reply.first_offset.to_native();
                assert!(first > asked.from, "{} is not below {first}", asked.from);
                assert!(first >= self.start_seen, "a log's start goes back");
                let past = context.oracle.past(self.position);
                assert!(past.is_start(first), "nobody decided to begin at {first}");
                self.start_seen = first;
                self.cursor = first;
                context.marks.trims_told += 1;
                if let Some(audit) = &mut self.audit {
                    audit.on_start(first, context.oracle, context.history);
                    self.is_done = self.cursor == context.oracle.end_offset(self.position);
                    self.read_at = context.now;
                }
            }
            FetchOutcome::NotLeader => line.turn_to(reply.leader.to_native()),
            FetchOutcome::Busy => {}
            FetchOutcome::Damaged if self.is_damaged => {
                context.marks.damages_told += 1;
                self.audit = None;
                self.is_done = true;
            }
            // Who reads one replica waits until it is mended.
            FetchOutcome::Damaged if is_damaged => {
                context.marks.damages_told += 1;
                if self.audit.is_none() {
                    line.turn_to(0);
                }
            }
            outcome => panic!(
                "a read of {} from {} ends: {outcome}",
                self.group, asked.from
            ),
        }
    }

    fn judge_end(&mut self, asked: &Asked, end: u64, context: &mut Context<'_>) {
        let seen = std::mem::replace(&mut self.end_seen, end);
        assert!(
            end >= seen,
            "the end goes back for a reader: {end} after {seen}"
        );
        let committed = context.oracle.committed(self.position);
        context.history.on_end_seen(self.position, end, committed);
        if asked.mode == ReadMode::Linearizable {
            let asked_at = asked.asked_at;
            context.history.on_end(self.position, end, asked_at);
            context.marks.reads_linearizable += 1;
            let known = asked.known_end;
            assert!(
                end >= known,
                "a linearizable read sees {end}, and {known} was known before"
            );
        }
    }
}
