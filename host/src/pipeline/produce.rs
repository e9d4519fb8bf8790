//! The loop of a producer: ask the plugin for records, append them and store its position in one commit.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::commit::{Step, commit};
use super::consume::Turn;
use super::current::{Current, is_of_the_host};
use super::effects::{DeadKind, Effects, route};
use super::stage::{Services, Stage, StageError};
use super::status::State;
use super::version::Version;
use crate::ids::Micros;
use crate::log::offsets::SourceLease;
use crate::plugin::{CallError, Context, Poll, Production, Seed};

/// A producer cannot ask to be left alone for longer than this, so that a wrong clock in it does not silence it for ever.
const LONGEST_PAUSE: Micros = 3_600_000_000;

/// Runs the producer, while it is in this host's share, until the token is cancelled or something ends it.
pub async fn run(stage: Arc<Stage>, token: CancellationToken) -> Result<(), StageError> {
    let Services { groups, shares, host, .. } = &stage.services;
    let mut turn = Turn::new(&stage, 0);
    while turn.comes(&token).await {
        let _taken = turn.share.take();
        let acquired = groups.acquire_source(&stage.cell.pipeline, &stage.plan.name, host).await;
        let Some(mut lease) = acquired.map_err(|error| StageError::Again(error.to_string()))? else {
            turn.wait(&token).await;
            continue;
        };
        let held = token.child_token();
        let ended = turn.share.during(&held, poll(&stage, &mut lease, &held)).await;
        match groups.release_source(&lease).await {
            Ok(()) => shares.released().await,
            Err(error) => {
                tracing::debug!(stage = stage.label(), %error, "the lease was not given back; a later look does it")
            }
        }
        ended?;
    }
    Ok(())
}

async fn poll(stage: &Stage, lease: &mut SourceLease, token: &CancellationToken) -> Result<(), StageError> {
    let clock = stage.services.log.clock();
    let mut current = Current::start(stage, 0).await?;
    let mut backoff = Backoff::default();
    stage.cell.set(0, State::Running, None);
    while !token.is_cancelled() {
        current.follow().await?;
        let request = Poll {
            position: lease.position.clone(),
            now: clock.now(),
            max_records: stage.plan.batch.records,
        };
        let (production, effects) = match ask(stage, &mut current, request).await {
            Ok(answer) => answer,
            Err(error) => {
                let wait = after_failure(stage, &mut current, error, &mut backoff).await?;
                pause(&mut current, token, wait).await;
                continue;
            }
        };
        let next = production.next;
        let version = current.version().clone();
        match store(stage, &version, lease, production.position, effects, token).await {
            Err(StageError::Fatal(reason)) if version.probation().is_some() => {
                current.give_up(&reason).await?;
                continue;
            }
            stored => stored?,
        }
        backoff.reset();
        let wait = next.saturating_sub(clock.now()).clamp(0, LONGEST_PAUSE);
        if wait > 0 {
            pause(&mut current, token, Duration::from_micros(wait as u64)).await;
        }
    }
    Ok(())
}

/// What the plugin produced, with its emissions on their way.
async fn ask(
    stage: &Stage,
    current: &mut Current<'_>,
    request: Poll,
) -> Result<(Production, Effects), CallError> {
    let mut instance = current.take().await?;
    instance.set_context(context(stage, &request));
    let answer = instance.produce(request).await;
    current.keep(instance);
    let mut production = answer?;
    let routed = route(&stage.outlets, std::mem::take(&mut production.emissions), &[])?;
    Ok((production, routed.into()))
}

/// Waits, unless the host stops or another version comes.
async fn pause(current: &mut Current<'_>, token: &CancellationToken, wait: Duration) {
    tokio::select! {
        () = token.cancelled() => {}
        () = current.pause(wait) => {}
    }
}

/// Time and chance of a call: from the poll, which the position makes the same again after a restart, but for its time.
fn context(stage: &Stage, poll: &Poll) -> Context {
    let position = poll.position.as_deref().unwrap_or_default();
    let seed = Seed::of(&[stage.label().as_bytes(), position]);
    Context { now: poll.now, seed, state: None }
}

async fn store(
    stage: &Stage,
    version: &Version,
    lease: &mut SourceLease,
    position: Vec<u8>,
    effects: Effects,
    token: &CancellationToken,
) -> Result<(), StageError> {
    if effects.records_out() == 0 && lease.position.as_ref() == Some(&position) {
        return Ok(());
    }
    commit(stage, version, Step::Source { lease, position: &position }, &effects, token).await?;
    lease.position = Some(position);
    lease.commits += 1;
    stage.cell.count(0, effects.records_out(), 0);
    stage.passed(version, effects.records_out()).await;
    stage.cell.set(0, State::Running, None);
    Ok(())
}

/// How long to wait after a call that failed. A version on probation is given up at once: the one before goes on from the
/// position that is stored.
async fn after_failure(
    stage: &Stage,
    current: &mut Current<'_>,
    error: CallError,
    backoff: &mut Backoff,
) -> Result<Duration, StageError> {
    let words = stage.words(&error);
    if current.probation().is_some() && !is_of_the_host(&error) && !matches!(error, CallError::Retry { .. }) {
        current.give_up(&words).await?;
        backoff.reset();
        return Ok(Duration::ZERO);
    }
    let wait = match &error {
        CallError::Fatal(_) | CallError::Configure(_) | CallError::BadDescriptor { .. } => {
            return Err(StageError::Fatal(words));
        }
        CallError::Retry { after, .. } => after.unwrap_or_else(|| backoff.pause()),
        error => {
            if let Some(kind) = DeadKind::of(error) {
                stage.cell.failed(kind.as_str());
            }
            backoff.pause()
        }
    };
    tracing::warn!(stage = stage.label(), error = words, "the producer failed");
    stage.cell.set(0, State::Backoff, Some(words));
    Ok(wait)
}
