//! Generates the Rust bindings of the plugin interface into `OUT_DIR`, one file for each world.
//!
//! A build script and not `wit_bindgen::generate!`: the five worlds all export `lifecycle`, and the macro that
//! exports an interface is named after the interface alone, so five public ones collide in one crate. Here the name
//! gets the world in front.

use std::{env, error::Error, fs, path::Path};

use wit_bindgen_core::{Files, WorldGenerator, wit_parser::Resolve};
use wit_bindgen_rust::{Opts, WithOption};

/// In a project of `tidemill plugin new` the interface lies beside the SDK, in Tidemill itself two folders up.
const WIT: [&str; 2] = ["../wit", "../../wit/0.1.0"];

/// The world that is generated first holds the interfaces that all share; the others refer to it.
const FIRST: &str = "transform";
const OTHERS: [&str; 4] = ["producer", "materializer", "sink", "worker"];
const SHARED: [&str; 2] = ["types", "log"];

/// What a plugin may import beside `log`, each by a grant of its stage. A component imports only what its code calls.
const IMPORTS: &str = "imports";
const IMPORTS_WORLD: &str = "
    package tidemill:sdk;

    world imports {
        import tidemill:plugin/clock@0.1.0;
        import tidemill:plugin/http@0.1.0;
        import tidemill:plugin/metrics@0.1.0;
        import tidemill:plugin/random@0.1.0;
        import tidemill:plugin/state@0.1.0;
    }
";

fn main() -> Result<(), Box<dyn Error>> {
    let wit =
        WIT.into_iter().find(|folder| Path::new(folder).exists()).ok_or("the folder `wit` is missing")?;
    println!("cargo::rerun-if-changed={wit}");
    println!("cargo::rerun-if-changed=build.rs");
    let out_dir = env::var("OUT_DIR")?;
    for world in [FIRST].into_iter().chain(OTHERS).chain([IMPORTS]) {
        let code = bindings(wit, world)?;
        fs::write(Path::new(&out_dir).join(format!("{world}.rs")), code)?;
    }
    Ok(())
}

fn bindings(wit: &str, world: &str) -> Result<String, Box<dyn Error>> {
    let mut resolve = Resolve::default();
    let (mut package, _) = resolve.push_path(wit)?;
    if world == IMPORTS {
        package = resolve.push_source("imports.wit", IMPORTS_WORLD)?;
    }
    let id = resolve.select_world(&[package], Some(world))?;
    let mut files = Files::default();
    options(world).build().generate(&mut resolve, id, &mut files)?;
    let (_, code) = files.iter().next().ok_or("no bindings were generated")?;
    let code = std::str::from_utf8(code)?;
    Ok(code.replace("__export_tidemill_plugin_", &format!("__export_{world}_")))
}

fn options(world: &str) -> Opts {
    let shared = |interface: &&str| {
        (
            format!("tidemill:plugin/{interface}@0.1.0"),
            WithOption::Path(format!("super::{FIRST}::tidemill::plugin::{interface}")),
        )
    };
    Opts {
        with: match world {
            FIRST => Vec::new(),
            IMPORTS => SHARED[..1].iter().map(shared).collect(),
            _ => SHARED.iter().map(shared).collect(),
        },
        generate_all: world == IMPORTS,
        additional_derive_attributes: vec!["PartialEq".to_owned()],
        pub_export_macro: true,
        export_macro_name: Some(format!("export_{world}_world")),
        default_bindings_module: Some(format!("::tidemill_plugin::bindings::{world}")),
        type_section_suffix: Some(world.to_owned()),
        runtime_path: Some("::tidemill_plugin::wit_bindgen::rt".to_owned()),
        ..Opts::default()
    }
}
