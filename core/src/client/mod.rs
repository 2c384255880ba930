//! The client's half of the protocol, without I/O: times and bytes in, frames and outcomes out.
//!
//! One door in, one door out, as the shard: `step(now, input, &mut effects)`. It finds each log's
//! leader, numbers and seals appends, resends what was lost under the same number, and ends every
//! append in exactly one outcome; `produce` argues why no record is doubled, skipped or moved.
//! Knows no socket and no clock.
//!
//! ```text
//!             records            questions        status
//!                |                   |               |
//!   log:      produce             fetch           survey
//!                 \      retry      /               |
//!                  who leads the log?               |
//!                          |                        |
//!                         post  ---- requests, answers due
//!                          |
//!                       session ---- addresses, connections, welcomes
//! ```

mod asks;
mod effects;
mod input;
mod log;
mod outcome;
mod post;
mod produce;
mod records;
mod retry;
mod sealed;
mod session;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use asks::{AskError, FetchRequest, Fetched, Record};
pub use effects::{Effect, Effects};
pub use input::{Config, Input};
pub use outcome::Outcome;
pub use produce::{AGE_SPREAD_MAX, Identity, SEALED_SIZE_SOFT_MAX};
pub use records::{RecordTooLarge, Records, RecordsBuilder};
pub use session::{ADDRESS_COUNT_MAX, Cluster, LinkFault, LogInfo, NodeInfo};
pub use survey::{NodeReport, Wish};

use crate::frame::Frame;
use crate::frame::assembler::TagPolicy;
use crate::frame::client::{ArchivedAppendReply, ArchivedFetchReply, Status};
use crate::frame::code::FetchOutcome;
use crate::frame::greeting::{Refused, Welcome};
use crate::frame::header::ClusterTag;
use crate::frame::message::{Body, Message};
use crate::frame::payload::Payload;
use crate::id::{ConnectionId, GroupId, Nanos, NodeId, RequestId, Term};
use asks::{AskAdvice, Asks, Question};
use log::{Context, Log};
use post::{Asked, Post};
use records::Waiting;
use retry::{Jitter, Word};
use sealed::Reply;
use session::{SILENCE_MAX, Session, read_refused};
use survey::Survey;

/// A timer that finds nothing to do goes off this much later at the earliest.
const TIMER_STEP: Nanos = Nanos::from_micros(50);

/// A client of one cluster.
#[derive(Debug)]
pub struct Client {
    config: Config,
    now: Nanos,
    session: Session,
    post: Post,
    jitter: Jitter,
    logs: BTreeMap<GroupId, Log>,
    /// Each log's `armed`, in order.
    timers: BTreeSet<(Nanos, GroupId)>,
    surveys: Vec<Survey>,
    stopped: bool,
}

impl Client {
    /// A client that knows nothing but addresses. It dials them at the first step.
    ///
    /// # Panics
    ///
    /// If there is no address, more than [`ADDRESS_COUNT_MAX`], or `epoch` above `epoch_max`.
    #[must_use]
    pub fn new(config: Config) -> Self {
        assert!(config.identity.epoch <= config.identity.epoch_max);
        let mut jitter = Jitter::new(config.seed);
        let session = Session::new(config.addresses.clone(), Jitter::new(jitter.next()));
        Self {
            config,
            now: Nanos(0),
            session,
            post: Post::new(),
            jitter,
            logs: BTreeMap::new(),
            timers: BTreeSet::new(),
            surveys: Vec::new(),
            stopped: false,
        }
    }

    /// The cluster; `None` until a node has welcomed this client.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.session.cluster()
    }

    /// Why addresses could not be used, of those that have no connection and were tried.
    #[must_use]
    pub fn faults(&self) -> Vec<(String, LinkFault)> {
        self.session.faults()
    }

    /// Whether every address was tried and none has a connection.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.session.faults().len() == self.session.place_count()
    }

    /// Which frames the stream that is opened now may bring.
    #[must_use]
    pub fn tag_policy(&self) -> TagPolicy {
        self.session.tag_policy()
    }

    /// Whether records handed over now would be sealed at once, were the log's leader there. If
    /// not, they are better gathered outside until there is room.
    #[must_use]
    pub fn has_room(&self, group: GroupId) -> bool {
        let log = self.logs.get(&group);
        !self.stopped && log.is_none_or(|log| log.producer.has_room())
    }

    /// When to step again at the latest, whatever is heard.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        let timers = [
            self.timers.first().map(|(at, _)| *at),
            self.session.next_timer(),
            self.post.oldest_owing().map(|at| at.after(SILENCE_MAX)),
            self.surveys.iter().map(Survey::deadline).min(),
        ];
        timers.into_iter().flatten().min()
    }

    /// Takes one input, and does all that is due.
    ///
    /// # Panics
    ///
    /// If time goes backwards.
    pub fn step(&mut self, now: Nanos, input: Input<'_>, effects: &mut Effects) {
        assert!(now >= self.now, "time goes backwards");
        self.now = now;
        self.on_input(now, input, effects);
        if self.stopped {
            return;
        }
        if self.session.cluster().is_none() {
            self.session.want_any(now, effects);
        }
        while let Some(late) = self.session.take_late(now) {
            self.close(now, late, LinkFault::Silent, effects);
        }
        while let Some(silent) = self.post.silent(now, SILENCE_MAX) {
            self.close(now, silent, LinkFault::Silent, effects);
        }
        while let Some((at, group)) = self.timers.first().copied()
            && at <= now
        {
            self.drive(now, group, effects);
        }
        self.drive_surveys(now, effects);
    }

    fn on_input(&mut self, now: Nanos, input: Input<'_>, effects: &mut Effects) {
        match input {
            Input::Tick => {}
            Input::Connected { connection } => {
                self.session
                    .on_connected(connection, &mut self.post, effects);
            }
            Input::Received { connection, frame } => {
                if let Err(fault) = self.on_frame(now, connection, &frame, effects) {
                    self.close(now, connection, fault, effects);
                }
            }
            Input::Closed { connection, fault } => self.forget(now, connection, &fault, effects),
            Input::Append {
                group,
                token,
                since,
                records,
            } => {
                let waiting = Waiting {
                    token,
                    since,
                    records,
                };
                self.log(group).producer.push(waiting, effects);
                self.drive(now, group, effects);
            }
            Input::Fetch {
                group,
                token,
                request,
            } => self.on_question(now, group, token, Question::Fetch(request), effects),
            Input::Trim {
                group,
                token,
                before,
            } => {
                self.on_question(now, group, token, Question::Trim { before }, effects);
            }
            Input::Transfer { group, token, to } => {
                self.on_question(now, group, token, Question::Transfer { to }, effects);
            }
            Input::Survey {
                token,
                wish,
                timeout,
            } => {
                let session = &mut self.session;
                let survey = Survey::new(now, token, wish, timeout, session, effects);
                self.surveys.push(survey);
            }
            Input::Stop => self.stopped = true,
        }
        if self.stopped {
            self.stop(effects);
        }
    }

    fn on_question(
        &mut self,
        now: Nanos,
        group: GroupId,
        token: u64,
        question: Question,
        effects: &mut Effects,
    ) {
        let timeout = self.config.request_timeout;
        self.log(group).asks.push(now, token, question, timeout);
        self.drive(now, group, effects);
    }

    fn log(&mut self, group: GroupId) -> &mut Log {
        let identity = self.config.identity;
        let new = || Log::new(group, identity);
        self.logs.entry(group).or_insert_with(new)
    }

    // ---- logs and their timers

    fn drive(&mut self, now: Nanos, group: GroupId, effects: &mut Effects) {
        let Some(log) = self.logs.get_mut(&group) else {
            return;
        };
        log.drive(
            now,
            &mut Context {
                session: &mut self.session,
                post: &mut self.post,
                jitter: &mut self.jitter,
                append_timeout: self.config.append_timeout,
                effects,
            },
        );
        let next = log.next_timer(now, self.config.append_timeout, &self.session);
        let next = next.map(|at| at.max(now.after(TIMER_STEP)));
        // A timer only ever moves forward here: one that goes off too early does no harm, and most
        // steps then leave the set alone.
        let keep = match (log.armed, next) {
            (Some(armed), Some(next)) => armed > now && armed <= next,
            (Some(armed), None) => armed > now,
            (None, next) => next.is_none(),
        };
        if !keep {
            if let Some(armed) = log.armed.take() {
                self.timers.remove(&(armed, group));
            }
            if let Some(next) = next {
                log.armed = Some(next);
                self.timers.insert((next, group));
            }
        }
    }

    fn drive_busy(&mut self, now: Nanos, effects: &mut Effects) {
        let busy = self.logs.iter().filter(|(_, log)| !log.is_idle());
        let busy: Vec<GroupId> = busy.map(|(group, _)| *group).collect();
        for group in busy {
            self.drive(now, group, effects);
        }
    }

    fn drive_surveys(&mut self, now: Nanos, effects: &mut Effects) {
        let (session, post) = (&mut self.session, &mut self.post);
        self.surveys
            .retain_mut(|survey| !survey.drive(now, session, post, effects));
    }

    // ---- connections

    fn close(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        fault: LinkFault,
        effects: &mut Effects,
    ) {
        effects.push(Effect::Close { connection });
        self.forget(now, connection, &fault, effects);
    }

    fn forget(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        fault: &LinkFault,
        effects: &mut Effects,
    ) {
        if !self.session.on_closed(now, connection, fault.clone()) {
            return;
        }
        self.post.on_closed(connection);
        for log in self.logs.values_mut() {
            log.on_closed(now, connection);
        }
        for survey in &mut self.surveys {
            survey.on_closed(connection, fault);
        }
        self.drive_busy(now, effects);
    }

    fn stop(&mut self, effects: &mut Effects) {
        for log in self.logs.values_mut() {
            log.stop(effects);
            log.armed = None;
        }
        self.timers.clear();
        for mut survey in self.surveys.drain(..) {
            survey.end(&self.session, effects);
        }
        for connection in self.session.connections() {
            effects.push(Effect::Close { connection });
            self.post.on_closed(connection);
            let now = self.now;
            self.session.on_closed(now, connection, LinkFault::Stopped);
        }
    }

    // ---- frames

    fn on_frame(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> Result<(), LinkFault> {
        if !self.session.has(connection) {
            // It was closed here; what was under way on it counts as lost.
            return Ok(());
        }
        let message = frame.message().map_err(LinkFault::Garbled)?;
        match message {
            Message::Welcome(welcome) => {
                let welcome = Welcome::owned(welcome).map_err(LinkFault::Garbled)?;
                return self.on_welcome(now, connection, welcome, effects);
            }
            Message::Refused(refused) => {
                let refused = Refused::owned(refused).map_err(LinkFault::Garbled)?;
                return Err(read_refused(&refused));
            }
            _ => {}
        }
        let unexpected = LinkFault::Unexpected(frame.kind());
        let Some(from) = self.session.node_of(connection) else {
            return Err(unexpected);
        };
        let answer = Answer { connection, from };
        let sense = match message {
            Message::AppendReply(reply) => self.on_append_reply(now, answer, reply, effects),
            Message::FetchReply(reply) => {
                self.on_fetch_reply(now, answer, reply, frame.payload(), effects)
            }
            Message::TransferReply(reply) => {
                let request = RequestId(reply.request.to_native());
                let hint = hint(reply.leader.to_native());
                let read = |asks: &mut Asks, token, effects: &mut Effects| {
                    asks.on_transfer_reply(now, connection, token, reply, effects)
                };
                self.on_ask_reply(now, answer, request, hint, effects, read)
            }
            Message::TrimReply(reply) => {
                let request = RequestId(reply.request.to_native());
                let hint = hint(reply.leader.to_native());
                let read = |asks: &mut Asks, token, effects: &mut Effects| {
                    asks.on_trim_reply(now, connection, token, reply, effects)
                };
                self.on_ask_reply(now, answer, request, hint, effects, read)
            }
            Message::Status(status) => {
                let status = Status::owned(status).map_err(LinkFault::Garbled)?;
                self.on_status(now, connection, status);
                Some(())
            }
            _ => return Err(unexpected),
        };
        sense.ok_or(LinkFault::Senseless(frame.kind()))
    }

    fn on_welcome(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        welcome: Welcome,
        effects: &mut Effects,
    ) -> Result<(), LinkFault> {
        if self.session.on_welcome(now, connection, welcome)? {
            if let Some(cluster) = self.session.cluster() {
                self.post.on_cluster(ClusterTag::of(cluster.id));
            }
            effects.push(Effect::Welcomed);
        }
        for log in self.logs.values_mut() {
            log.on_opened(now);
        }
        self.drive_busy(now, effects);
        Ok(())
    }

    /// `None`, here and below, if the answer says what this version cannot make sense of.
    fn on_append_reply(
        &mut self,
        now: Nanos,
        answer: Answer,
        body: &ArchivedAppendReply,
        effects: &mut Effects,
    ) -> Option<()> {
        let reply = Reply::read(body)?;
        let request = RequestId(body.request.to_native());
        let asked = self.post.on_answer(now, answer.connection, request);
        let (group, name) = match asked {
            Some(Asked::Append(group, name)) => (group, name),
            Some(_) => return None,
            None => return Some(()),
        };
        let hint = hint(body.leader.to_native());
        let log = self.logs.get_mut(&group)?;
        let advice = log.producer.on_reply(now, request, name, reply, effects);
        let jitter = &mut self.jitter;
        log.on_advice(now, answer.from, reply.term, hint, advice, jitter);
        self.drive(now, group, effects);
        Some(())
    }

    fn on_fetch_reply(
        &mut self,
        now: Nanos,
        answer: Answer,
        body: &ArchivedFetchReply,
        payload: Payload<'_>,
        effects: &mut Effects,
    ) -> Option<()> {
        let request = RequestId(body.request.to_native());
        let term = Term(body.term.to_native());
        let hint = hint(body.leader.to_native());
        let Answer { connection, from } = answer;
        let group = match self.post.on_answer(now, connection, request) {
            Some(Asked::Probe(group)) => {
                let outcome = FetchOutcome::from_code(body.outcome)?;
                let word = match outcome {
                    FetchOutcome::NotLeader | FetchOutcome::UnknownLog => Word::Denies(hint),
                    FetchOutcome::Ok
                    | FetchOutcome::BeyondEnd
                    | FetchOutcome::Trimmed
                    | FetchOutcome::Busy
                    | FetchOutcome::Damaged => Word::Leads,
                };
                let log = self.logs.get_mut(&group)?;
                log.on_probe(now, connection, from, term, word);
                if outcome == FetchOutcome::UnknownLog {
                    log.on_unknown(effects);
                }
                group
            }
            Some(Asked::Ask(group, token)) => {
                let log = self.logs.get_mut(&group)?;
                let asks = &mut log.asks;
                let advice = asks.on_fetch_reply(now, connection, token, body, payload, effects)?;
                log.on_ask_advice(now, from, term, hint, advice);
                group
            }
            Some(_) => return None,
            None => return Some(()),
        };
        self.drive(now, group, effects);
        Some(())
    }

    /// An answer that names no term: its hint is taken for one of the term that is believed in.
    fn on_ask_reply(
        &mut self,
        now: Nanos,
        answer: Answer,
        request: RequestId,
        hint: Option<NodeId>,
        effects: &mut Effects,
        read: impl FnOnce(&mut Asks, u64, &mut Effects) -> Option<AskAdvice>,
    ) -> Option<()> {
        let (group, token) = match self.post.on_answer(now, answer.connection, request) {
            Some(Asked::Ask(group, token)) => (group, token),
            Some(_) => return None,
            None => return Some(()),
        };
        let log = self.logs.get_mut(&group)?;
        let advice = read(&mut log.asks, token, effects)?;
        let term = log.term();
        log.on_ask_advice(now, answer.from, term, hint, advice);
        self.drive(now, group, effects);
        Some(())
    }

    fn on_status(&mut self, now: Nanos, connection: ConnectionId, status: Status) {
        let request = RequestId(status.request);
        let asked = self.post.on_answer(now, connection, request);
        if let Some(Asked::Status(token)) = asked
            && let Some(survey) = self.surveys.iter_mut().find(|survey| survey.is(token))
        {
            survey.on_status(connection, status);
        }
    }
}

/// Where an answer came from.
#[derive(Clone, Copy)]
struct Answer {
    connection: ConnectionId,
    from: NodeId,
}

/// A leader hint as it stands on the wire: zero is unknown.
fn hint(leader: u64) -> Option<NodeId> {
    (leader != 0).then_some(NodeId(leader))
}
