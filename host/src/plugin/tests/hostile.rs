//! Components that do what a plugin must not do.

use super::*;

/// What a deadline may be late by: a tick for each spinning neighbour, and the noise of a busy machine.
const LATE: Duration = Duration::from_secs(5);

/// `host/tests/guests/transform.wat` with its marks filled in.
#[derive(Default)]
pub(super) struct Hostile {
    pub(super) memory: &'static str,
    pub(super) start: &'static str,
    pub(super) process: &'static str,
    pub(super) import: &'static str,
    pub(super) work: Option<&'static str>,
}

const SPIN: &str = "(loop $forever (br $forever))";

impl Hostile {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let work = self.work.unwrap_or("tidemill:plugin/transforming@0.1.0");
        let text = include_str!("../../../tests/guests/transform.wat")
            .replace("(;MEMORY;)", self.memory)
            .replace("(;START;)", self.start)
            .replace("(;PROCESS;)", self.process)
            .replace("(;IMPORT;)", self.import)
            .replace("(;WORK;)", work);
        wat::parse_str(text).expect("the fixture should be valid text")
    }

    async fn load(&self, engine: &PluginEngine) -> Plugin {
        engine.load(self.bytes(), PluginKind::Transform).await.unwrap()
    }
}

async fn instance(engine: &PluginEngine, hostile: Hostile, limits: &Limits) -> Result<Instance, CallError> {
    hostile.load(engine).await.instantiate("hostile", &Json::Null, limits).await
}

fn deadline(millis: u64) -> Limits {
    Limits { deadline: Duration::from_millis(millis), ..Limits::default() }
}

fn memory(mebibytes: u64) -> Limits {
    Limits { memory: mebibytes << 20, ..Limits::default() }
}

#[tokio::test]
async fn a_spinning_plugin_ends_at_its_deadline_and_a_fresh_instance_works() {
    let engine = engine();
    let limits = deadline(200);
    let spin_once = Hostile {
        process: "(if (local.get $count) (then (loop $forever (br $forever))))",
        ..Hostile::default()
    };
    let plugin = spin_once.load(&engine).await;
    let mut instance = plugin.instantiate("spin", &Json::Null, &limits).await.unwrap();
    let began = Instant::now();
    let error = instance.process(vec![message(0, "x")]).await.unwrap_err();
    let took = began.elapsed();
    assert_eq!(error, CallError::Deadline { after: limits.deadline });
    assert!(took >= limits.deadline && took < limits.deadline + LATE, "{took:?}");
    assert!(error.to_string().contains("stopped after 200ms"), "{error}");
    assert!(instance.poisoned());
    assert_eq!(instance.process(vec![]).await, Err(CallError::Poisoned));
    assert_eq!(engine.live_instances(), 0);

    let mut fresh = plugin.instantiate("spin", &Json::Null, &limits).await.unwrap();
    assert!(fresh.process(vec![]).await.is_ok());
    assert!(!fresh.poisoned());
}

#[tokio::test]
async fn a_plugin_that_spins_when_started_ends_at_its_deadline() {
    let hostile = Hostile { start: SPIN, ..Hostile::default() };
    let error = instance(&engine(), hostile, &deadline(50)).await.err();
    assert_eq!(error, Some(CallError::Deadline { after: Duration::from_millis(50) }));
}

#[tokio::test]
async fn eight_spinning_plugins_do_not_delay_the_main_runtime() {
    let engine = engine();
    let limits = deadline(3_000);
    let plugin = Hostile { process: SPIN, ..Hostile::default() }.load(&engine).await;
    let mut spinning = Vec::new();
    for index in 0..8 {
        let mut instance = plugin.instantiate(&format!("spin-{index}"), &Json::Null, &limits).await.unwrap();
        spinning.push(tokio::spawn(async move {
            let began = Instant::now();
            let error = instance.process(vec![]).await.unwrap_err();
            (error, began.elapsed())
        }));
    }

    // Timers of this runtime fire while all eight spin: nothing here waits for one of them to end.
    let pause = Duration::from_millis(5);
    let mut late = Vec::new();
    for _ in 0..50 {
        let before = Instant::now();
        tokio::time::sleep(pause).await;
        late.push(before.elapsed() - pause);
    }
    late.sort_unstable();
    let (median, worst) = (late[late.len() / 2], late[late.len() - 1]);
    println!("eight spinning plugins: a timer was late by {median:?} (median), {worst:?} (worst)");
    assert!(spinning.iter().all(|spin| !spin.is_finished()), "the timers waited for a spinning plugin");

    for spin in spinning {
        let (error, took) = spin.await.unwrap();
        assert_eq!(error, CallError::Deadline { after: limits.deadline });
        assert!(took < limits.deadline + 2 * LATE, "{took:?}");
    }
}

#[tokio::test]
async fn a_short_call_gets_through_between_spinning_plugins() {
    let engine = engine();
    let limits = deadline(4_000);
    let plugin = Hostile { process: SPIN, ..Hostile::default() }.load(&engine).await;
    let mut quick = instance(&engine, Hostile::default(), &limits).await.unwrap();
    let mut spinning = Vec::new();
    for index in 0..8 {
        let mut instance = plugin.instantiate(&format!("spin-{index}"), &Json::Null, &limits).await.unwrap();
        spinning.push(tokio::spawn(async move { instance.process(vec![]).await }));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    for _ in 0..5 {
        quick.process(vec![message(0, "x")]).await.unwrap();
    }
    let took = began.elapsed();
    println!("five short calls beside eight spinning plugins took {took:?}");
    assert!(spinning.iter().all(|spin| !spin.is_finished()), "the short calls waited for a spinning plugin");
}

#[tokio::test]
async fn an_abandoned_call_ends_at_its_deadline_and_poisons_the_instance() {
    let engine = engine();
    let hostile = Hostile { process: SPIN, ..Hostile::default() };
    let mut instance = instance(&engine, hostile, &deadline(150)).await.unwrap();
    let abandoned = tokio::time::timeout(Duration::from_millis(20), instance.process(vec![])).await;
    assert!(abandoned.is_err());
    assert!(instance.poisoned());
    assert_eq!(engine.live_instances(), 1);
    let began = Instant::now();
    while engine.live_instances() > 0 {
        assert!(began.elapsed() < Duration::from_secs(2), "the guest still runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn growth_of_several_memories_stops_at_the_one_limit() {
    let grow = "(loop $more
        (if (i32.ge_s (memory.grow $a (i32.const 16)) (i32.const 0)) (then (br $more))))
      (loop $more
        (if (i32.ge_s (memory.grow $b (i32.const 16)) (i32.const 0)) (then (br $more))))";
    let memories = "(memory $a 1) (memory $b 1)";
    let engine = engine();
    let hostile = Hostile { memory: memories, process: grow, ..Hostile::default() };
    let mut copes = instance(&engine, hostile, &memory(8)).await.unwrap();
    copes.process(vec![]).await.expect("a guest that copes with a refusal goes on");
    let used = copes.memory_used();
    assert!(used <= 8 << 20 && used > 6 << 20, "{used}");

    let hostile = Hostile {
        memory: memories,
        process: "(loop $more
            (if (i32.lt_s (memory.grow $a (i32.const 16)) (i32.const 0)) (then unreachable))
            (if (i32.lt_s (memory.grow $b (i32.const 16)) (i32.const 0)) (then unreachable))
            (br $more))",
        ..Hostile::default()
    };
    let mut bomb = instance(&engine, hostile, &memory(8)).await.unwrap();
    let error = bomb.process(vec![]).await.unwrap_err();
    assert_eq!(error, CallError::Memory { limit: 8 << 20 });
    assert!(error.to_string().contains("8.0 MiB"), "{error}");
    assert!(bomb.poisoned());
}

#[tokio::test]
async fn a_plugin_that_begins_with_a_gibibyte_is_refused() {
    let hostile = Hostile { memory: "(memory $a 16384)", ..Hostile::default() };
    let error = instance(&engine(), hostile, &Limits::default()).await.err();
    assert_eq!(error, Some(CallError::Memory { limit: 64 << 20 }));
}

#[tokio::test]
async fn a_growing_table_stops_at_the_limit() {
    let hostile = Hostile {
        memory: "(table $t 1 funcref)",
        process: "(loop $more
            (if (i32.lt_s (table.grow $t (ref.null func) (i32.const 10000)) (i32.const 0)) (then unreachable))
            (br $more))",
        ..Hostile::default()
    };
    let mut bomb = instance(&engine(), hostile, &memory(4)).await.unwrap();
    assert_eq!(bomb.process(vec![]).await, Err(CallError::Memory { limit: 4 << 20 }));
}

#[tokio::test]
async fn a_plugin_of_many_memories_is_refused() {
    let hostile = Hostile {
        memory: "(memory 0) (memory 0) (memory 0) (memory 0) (memory 0) (memory 0) (memory 0) (memory 0)",
        ..Hostile::default()
    };
    let error = instance(&engine(), hostile, &Limits::default()).await.err().unwrap();
    assert!(error.to_string().contains("memory count too high"), "{error}");
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    let hostile =
        Hostile { memory: "(func $deeper (call $deeper))", process: "(call $deeper)", ..Hostile::default() };
    let mut instance = instance(&engine(), hostile, &Limits::default()).await.unwrap();
    let error = instance.process(vec![]).await.unwrap_err();
    assert!(matches!(&error, CallError::Trap { message } if message.contains("stack")), "{error}");
}

/// Each emission of 64 zero bytes is a valid one: no input, no port, no key, no headers, no time, no payload.
#[tokio::test]
async fn a_flood_of_records_is_refused() {
    let hostile = Hostile {
        process: "(drop (memory.grow (i32.const 256)))
            (i32.store (i32.const 8) (i32.const 131072))
            (i32.store (i32.const 12) (i32.const 200000))",
        ..Hostile::default()
    };
    let mut flood = instance(&engine(), hostile, &Limits::default()).await.unwrap();
    let error = flood.process(vec![]).await.unwrap_err();
    let excess = Excess::Records { got: 200_000, limit: 100_000 };
    assert_eq!(error, CallError::OutputTooLarge(excess));
    assert!(!flood.poisoned());
}

/// 10,000 emissions whose payloads are all the same 4 MiB: 40 GB for a host that copies what it is shown.
#[tokio::test]
async fn payloads_that_all_point_to_the_same_bytes_are_refused() {
    let hostile = Hostile {
        process: "(drop (memory.grow (i32.const 128)))
            (loop $next
              (i32.store offset=131128 (i32.mul (local.get $i) (i32.const 64)) (i32.const 1048576))
              (i32.store offset=131132 (i32.mul (local.get $i) (i32.const 64)) (i32.const 4194304))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if $next (i32.lt_u (local.get $i) (i32.const 10000))))
            (i32.store (i32.const 8) (i32.const 131072))
            (i32.store (i32.const 12) (i32.const 10000))",
        ..Hostile::default()
    };
    let mut flood = instance(&engine(), hostile, &Limits::default()).await.unwrap();
    let error = flood.process(vec![]).await.unwrap_err();
    assert_eq!(error, CallError::OutputTooLarge(Excess::Bytes { limit: 32 << 20 }));
}

#[tokio::test]
async fn a_call_of_another_kind_is_an_error_and_harms_nothing() {
    let mut instance = instance(&engine(), Hostile::default(), &Limits::default()).await.unwrap();
    let error = instance.materialize(vec![]).await.unwrap_err();
    assert_eq!(error.to_string(), "a transform has no `materialize`");
    assert!(instance.process(vec![]).await.is_ok());
}

#[tokio::test]
async fn a_full_process_says_so() {
    let engine = engine();
    let places = Vec::from_iter((0..MAX_LIVE_INSTANCES).map(|_| engine.admit().unwrap()));
    let error = instance(&engine, Hostile::default(), &Limits::default()).await.err();
    assert_eq!(error, Some(CallError::TooManyInstances { limit: MAX_LIVE_INSTANCES }));
    drop(places);
    assert!(instance(&engine, Hostile::default(), &Limits::default()).await.is_ok());
}

#[tokio::test]
async fn a_panic_of_the_host_ends_its_own_call_only() {
    let engine = engine();
    let error = engine.run::<()>(async { panic!("broken import") }).await.unwrap_err();
    let CallError::Internal { message } = error else { panic!("{error}") };
    assert!(message.contains("broken import"), "{message}");
    assert!(instance(&engine, Hostile::default(), &Limits::default()).await.is_ok());
}
