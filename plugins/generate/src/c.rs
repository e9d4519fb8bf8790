//! The C side of the plugin interface: a header and a source file for each world.

use wit_bindgen_c::Opts;
use wit_bindgen_core::{Files, wit_parser::Resolve};

use crate::{Failure, Generated, plugins};

const WORLDS: [&str; 4] = ["transform", "producer", "materializer", "sink"];

/// From here on a source file only links the object file with the component's type.
const LINK: &str = "\n// Ensure that the *_component_type.o object is linked in";

/// The files of the SDK's folder `bindings`.
///
/// The object file with the component's type is left out: the SDK's `build.mjs` takes the type from the WIT itself.
///
/// # Errors
/// If the interface cannot be read.
pub fn bindings() -> Result<Vec<Generated>, Failure> {
    let mut all = Vec::new();
    for world in WORLDS {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_path(plugins().join("../wit/0.1.0"))?;
        let id = resolve.select_world(&[package], Some(world))?;
        let mut files = Files::default();
        Opts::default().build().generate(&mut resolve, id, &mut files)?;
        for (name, bytes) in files.iter() {
            if !name.ends_with(".o") {
                let contents = std::str::from_utf8(bytes)?;
                let contents = contents.split(LINK).next().unwrap_or_default();
                all.push(Generated { path: format!("sdk-c/bindings/{name}"), contents: contents.to_owned() });
            }
        }
    }
    Ok(all)
}
