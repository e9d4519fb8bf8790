//! What wit-bindgen generates from `wit/0.1.0` (see `build.rs`), once for all plugins: one module for each world.
//!
//! The interfaces that the worlds share (`types`, `log`) are generated with the first world and reused by the others,
//! so that a `Message` is one type everywhere.
#![allow(
    unsafe_code,
    missing_docs,
    unused_imports,
    clippy::all,
    clippy::unwrap_used,
    reason = "generated code: it lifts and lowers values through the component's linear memory"
)]

pub mod transform {
    include!(concat!(env!("OUT_DIR"), "/transform.rs"));
}

pub mod producer {
    include!(concat!(env!("OUT_DIR"), "/producer.rs"));
}

pub mod materializer {
    include!(concat!(env!("OUT_DIR"), "/materializer.rs"));
}

pub mod sink {
    include!(concat!(env!("OUT_DIR"), "/sink.rs"));
}

pub mod worker {
    include!(concat!(env!("OUT_DIR"), "/worker.rs"));
}

pub mod imports {
    include!(concat!(env!("OUT_DIR"), "/imports.rs"));
}
