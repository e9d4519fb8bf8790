//! Components that do what a plugin must not do.

use super::*;

/// `host/tests/guests/transform.wat` with its marks filled in.
#[derive(Default)]
struct Hostile {
    memory: &'static str,
    start: &'static str,
    process: &'static str,
    import: &'static str,
    work: Option<&'static str>,
}

impl Hostile {
    fn bytes(&self) -> Vec<u8> {
        let text = include_str!("../../../tests/guests/transform.wat")
            .replace("(;MEMORY;)", self.memory)
            .replace("(;START;)", self.start)
            .replace("(;PROCESS;)", self.process)
            .replace("(;IMPORT;)", self.import)
            .replace(
                "(;WORK;)",
                self.work.unwrap_or("tidemill:plugin/transforming@0.1.0"),
            );
        wat::parse_str(text).expect("the fixture should be valid text")
    }
}
#[tokio::test]
async fn smoke() {
    let engine = PluginEngine::new(EngineOptions::default()).unwrap();
    let plugin = engine.load(Hostile::default().bytes(), PluginKind::Transform).await.unwrap();
    let d = plugin.describe(&Limits::default()).await.unwrap();
    println!("{d:?}");
    let mut i = plugin.instantiate("x", &serde_json::Value::Null, &Limits::default()).await.unwrap();
    println!("{:?}", i.process(vec![]).await);
}
