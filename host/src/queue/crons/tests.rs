use anyhow::{Context, Result};

use super::*;
use crate::clock::Clock;
use crate::config;
use crate::log::{Log, LogOptions};
use crate::pg::notify::NotifyHub;
use crate::pg::testing::{TestDatabase, database};
use crate::queue::{Job, JobState};

fn queues(database: &TestDatabase) -> Queues {
    let hub = NotifyHub::start(database.pool.clone(), None);
    Queues::new(Log::new(database.pool.clone(), hub, Clock::system(), LogOptions::default()))
}

fn plan(crons: &str) -> Result<Plan> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("p.toml");
    std::fs::write(&file, format!("[pipeline]\nname = \"p\"\n[queues.reports]\n{crons}"))?;
    Ok(config::load(&[file])?)
}

const NIGHTLY: &str = "[queues.reports.cron.nightly]\nschedule = \"0 3 * * *\"\npayload = { kind = \"nightly\" }\n\
                       key = \"all\"\npriority = 4\n";

async fn bring(queues: &Queues, plan: &Plan) -> Result<QueueName> {
    let name = QueueName::parse("reports")?;
    queues.bring_in_line(plan.queue(&name).context("the plan has the queue")?).await?;
    Ok(name)
}

/// Puts the next fire of all crons so far into the past.
async fn late(database: &TestDatabase, interval: &str) -> Result<()> {
    let sql = "UPDATE tidemill.queue_crons SET next_at = date_trunc('minute', clock_timestamp()) - $1::text::interval";
    sqlx::query(sql).bind(interval).execute(&database.pool).await?;
    Ok(())
}

async fn waiting(queues: &Queues, queue: &QueueName) -> Result<Vec<Job>> {
    Ok(queues.list(queue, JobState::Waiting, 100).await?)
}

#[tokio::test]
async fn each_fire_makes_one_job_over_all_hosts_and_missed_ones_make_one_together() -> Result<()> {
    let database = database().await;
    let hosts: Vec<Queues> = (0..4).map(|_| queues(&database)).collect();
    let plan = plan(NIGHTLY)?;
    let queue = bring(&hosts[0], &plan).await?;
    let crons = Crons::of(&plan);
    assert_eq!(hosts[0].fire_due(&crons).await?, 0, "it is not due yet");
    for (round, missed) in ["1 minute", "10 days"].into_iter().enumerate() {
        late(&database, missed).await?;
        let tries = futures::future::join_all(hosts.iter().map(|host| host.fire_due(&crons))).await;
        let fired: usize = tries.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().sum();
        assert_eq!(fired, 1, "after {missed}");
        assert_eq!(waiting(&hosts[0], &queue).await?.len(), round + 1);
    }
    let jobs = waiting(&hosts[0], &queue).await?;
    let job = jobs.first().context("there is a job")?;
    assert_eq!((job.payload.as_slice(), job.priority), (&b"{\"kind\":\"nightly\"}"[..], 4));
    assert_eq!(job.key.as_deref(), Some(&b"all"[..]));
    assert!(job.headers.iter().any(|header| header.name == CRON && &header.value[..] == b"nightly"));
    let states = hosts[0].crons(Some(&queue)).await?;
    let state = states.first().context("there is a cron")?;
    let now: Micros = sqlx::query_scalar("SELECT tidemill.micros(now())").fetch_one(&database.pool).await?;
    assert!(state.next_at > now && state.fired_at.is_some_and(|at| at <= now), "{state:?}");
    assert_eq!(state.job, jobs.iter().map(|job| job.id).max());
    Ok(())
}

#[tokio::test]
async fn a_cron_keeps_its_time_over_a_restart_and_gets_a_new_one_with_a_new_schedule() -> Result<()> {
    let database = database().await;
    let queues = queues(&database);
    let nightly = plan(NIGHTLY)?;
    let queue = bring(&queues, &nightly).await?;
    late(&database, "1 hour").await?;
    bring(&queues, &nightly).await?;
    assert_eq!(queues.fire_due(&Crons::of(&nightly)).await?, 1, "what was missed while no host ran is made");

    late(&database, "1 hour").await?;
    let hourly = plan(&NIGHTLY.replace("0 3 * * *", "@hourly"))?;
    bring(&queues, &hourly).await?;
    assert_eq!(queues.fire_due(&Crons::of(&hourly)).await?, 0, "its next time is in the new schedule");
    late(&database, "1 hour").await?;
    assert_eq!(queues.fire_due(&Crons::of(&nightly)).await?, 0, "an old host does not fire by the old one");
    assert_eq!(queues.fire_due(&Crons::of(&hourly)).await?, 1);

    bring(&queues, &plan("")?).await?;
    assert_eq!(queues.crons(Some(&queue)).await?, []);
    Ok(())
}

#[tokio::test]
async fn a_fire_that_does_not_commit_is_made_later() -> Result<()> {
    let database = database().await;
    let queues = queues(&database);
    let plan = plan(NIGHTLY)?;
    let queue = bring(&queues, &plan).await?;
    late(&database, "1 minute").await?;
    // Nothing can be put while this stands, so the transaction of the fire fails after it moved the cron on.
    sqlx::query("ALTER FUNCTION tidemill.enqueue_many RENAME TO enqueue_many_away")
        .execute(&database.pool)
        .await?;
    assert!(queues.fire_due(&Crons::of(&plan)).await.is_err());
    sqlx::query("ALTER FUNCTION tidemill.enqueue_many_away RENAME TO enqueue_many")
        .execute(&database.pool)
        .await?;
    assert_eq!(waiting(&queues, &queue).await?.len(), 0);
    assert_eq!(queues.fire_due(&Crons::of(&plan)).await?, 1);
    assert_eq!(waiting(&queues, &queue).await?.len(), 1);
    Ok(())
}
