//! Files that are not the plugin they are taken for.

use super::hostile::Hostile;
use super::*;

async fn refusal(bytes: impl Into<Vec<u8>>, kind: PluginKind) -> String {
    let bytes: Vec<u8> = bytes.into();
    engine().load(bytes, kind).await.expect_err("the file should be refused").to_string()
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn a_core_module_is_named_with_the_way_out() {
    let message = refusal(wat("(module (func (export \"process\")))"), PluginKind::Transform).await;
    assert!(message.contains("a core WebAssembly module, not a component"), "{message}");
    assert!(message.contains("wasm32-wasip2"), "{message}");
}

#[tokio::test]
async fn other_files_are_named_for_what_they_are() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "the file is empty"),
        (b"\x7fELF\x02\x01\x01\0rest", "precompiled .cwasm"),
        (b"\0asm", "ends within its header"),
        (b"\0asm\x0a\0\x01\0", "binary version [0a, 00, 01, 00] is not known"),
        (b"(component)", "WebAssembly text"),
        (b"fn main() {}\n", "a text file"),
        (b"PK\x03\x04zip", "an archive"),
        (b"\xff\xfe\0\x01", "something else"),
    ];
    for (bytes, expected) in cases {
        let message = refusal(bytes, PluginKind::Sink).await;
        assert!(message.contains(expected), "`{message}` should have `{expected}`");
    }
}

#[tokio::test]
async fn too_large_a_file_is_not_compiled() {
    let mut bytes = Hostile::default().bytes();
    bytes.resize(MAX_COMPONENT_BYTES + 1, 0);
    let message = refusal(bytes, PluginKind::Transform).await;
    assert!(message.contains("larger than the 64.0 MiB"), "{message}");
}

#[tokio::test]
async fn a_component_cut_short_is_refused_wherever_it_is_cut() {
    let engine = engine();
    let whole = built("test-identity");
    let mut loaded = 0;
    for percent in 0..100 {
        let part = &whole[..whole.len() * percent / 100];
        match engine.load(part, PluginKind::Transform).await {
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
            // A cut just before a trailing section of names leaves a whole component.
            Ok(plugin) => {
                loaded += 1;
                assert!(plugin.describe(&Limits::default()).await.is_ok(), "{percent} %");
            }
        }
    }
    assert!(loaded <= 1, "{loaded}");
}

#[tokio::test]
async fn missing_imports_are_all_listed_with_what_there_is() {
    let hostile = Hostile {
        import: "(import \"wasi:sockets/tcp@0.2.0\" (instance (export \"f\" (func))))
            (import \"tidemill:plugin/log@9.0.0\" (instance (export \"write\" (func))))
            (import \"env\" (func))",
        ..Hostile::default()
    };
    let message = refusal(hostile.bytes(), PluginKind::Transform).await;
    let listed =
        "wasi:sockets/tcp@0.2.0, tidemill:plugin/log@9.0.0, env; offered are tidemill:plugin/log@0.1.0";
    assert!(message.contains(listed), "{message}");
}

#[tokio::test]
async fn an_import_with_another_type_is_refused() {
    let hostile = Hostile {
        import: "(import \"tidemill:plugin/log@0.1.0\" (instance (export \"write\" (func (param \"x\" u32)))))",
        ..Hostile::default()
    };
    let message = refusal(hostile.bytes(), PluginKind::Transform).await;
    assert!(message.contains("does not match world tidemill:plugin/transform@0.1.0"), "{message}");
}

#[tokio::test]
async fn a_component_of_another_world_is_told_what_it_is() {
    let message = refusal(Hostile::default().bytes(), PluginKind::Producer).await;
    assert_eq!(
        message,
        "stage kind producer needs a component of world tidemill:plugin/producer@0.1.0, this one is a transform \
         (it exports tidemill:plugin/lifecycle@0.1.0, tidemill:plugin/transforming@0.1.0)"
    );
    let later = Hostile { work: Some("tidemill:plugin/transforming@0.2.0"), ..Hostile::default() };
    let message = refusal(later.bytes(), PluginKind::Transform).await;
    assert!(message.contains("is of another version of the interface"), "{message}");
    let message = refusal(wat("(component)"), PluginKind::Transform).await;
    assert!(message.contains("this one exports nothing"), "{message}");
    let foreign = "(component (instance $i) (export \"wasi:http/incoming-handler@0.2.0\" (instance $i)))";
    let message = refusal(wat(foreign), PluginKind::Transform).await;
    assert!(message.contains("is no Tidemill plugin (it exports wasi:http"), "{message}");
}

#[tokio::test]
async fn the_right_names_with_other_types_are_refused() {
    let text = include_str!("../../../tests/guests/transform.wat")
        .replace("(;WORK;)", "tidemill:plugin/transforming@0.1.0")
        .replace("(field \"attempt\" u32)", "(field \"attempt\" u64)");
    let message = refusal(wat(&text), PluginKind::Transform).await;
    assert!(message.contains("its `process` has another type: "), "{message}");
}

#[tokio::test]
async fn compiled_code_is_kept_in_the_cache_folder() {
    let dir = tempfile::tempdir().unwrap();
    let cache_dir = dir.path().join("compiled");
    let options = EngineOptions { cache_dir: Some(cache_dir.clone()), ..EngineOptions::default() };
    for _ in 0..2 {
        let engine = PluginEngine::new(options.clone()).unwrap();
        let plugin = engine.load(built("test-identity"), PluginKind::Transform).await.unwrap();
        assert!(plugin.describe(&Limits::default()).await.is_ok());
    }
    assert!(std::fs::read_dir(&cache_dir).unwrap().next().is_some());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&cache_dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}

#[tokio::test]
async fn a_cache_folder_that_cannot_be_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = EngineOptions { cache_dir: Some(file.path().join("below")), ..EngineOptions::default() };
    let error = PluginEngine::new(options).err().unwrap().to_string();
    assert!(error.contains("as the folder for compiled plugins"), "{error}");
}

#[test]
fn a_digest_is_read_as_it_is_written() {
    let digest = PluginDigest::of(b"abc");
    assert_eq!(digest.as_str(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(digest.as_str().parse(), Ok(digest.clone()));
    assert_eq!(digest.short(), "ba7816bf8f01");
    assert!("sha256:BA78".parse::<PluginDigest>().is_err());
    assert!("ba7816bf".parse::<PluginDigest>().is_err());
}
