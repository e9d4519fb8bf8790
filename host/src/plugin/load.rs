//! From bytes to a [`Plugin`]: what they are, whether they compile, and whether their type is the one of their kind.
//!
//! The bytes are read once: the digest, the type and the code are all of the same bytes. Nothing here runs the guest.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytesize::ByteSize;
use wasmtime::Engine;
use wasmtime::component::types::{self, ComponentItem};
use wasmtime::component::{Component, ComponentNamedList, InstancePre, Lift, Lower};

use super::bindings::shared::tidemill::plugin::types::Failure;
use super::bindings::{materializer, producer, sink, transform, worker};
use super::engine::PluginEngine;
use super::grants::{self, Grant, Grants};
use super::guest::{self, Guest};
use super::log::printable;
use super::{
    Descriptor, Job, Message, Outcome, PluginDigest, PluginKind, Poll, Production, Refused, RowOutcome,
    Token, WorkOutcome,
};

/// Larger files are not looked at. Python's runtime makes a component of 18 MB.
pub const MAX_COMPONENT_BYTES: usize = 64 << 20;

const LIFECYCLE: &str = "tidemill:plugin/lifecycle";
const WASM_MAGIC: &[u8] = b"\0asm";
/// Version 1 on layer 0.
const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];
/// Version 13 on layer 1.
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];
/// The compiler's messages are cut past this many characters.
const MAX_REASON: usize = 1_000;

/// Why bytes are not a plugin of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// There is nothing.
    #[error("the file is empty")]
    Empty,
    /// There is too much.
    #[error("the component is {}, larger than the {} that a plugin may have", ByteSize::b(*.size), ByteSize::b(MAX_COMPONENT_BYTES as u64))]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// These are bytes of another kind.
    #[error("this is {found}, not a WebAssembly component; build for wasm32-wasip2, which gives a component")]
    NotWasm {
        /// What they look like.
        found: &'static str,
    },
    /// WebAssembly, but not a component.
    #[error(
        "this is a core WebAssembly module, not a component; build for wasm32-wasip2, which gives a component, or \
         wrap the module with `wasm-tools component new`"
    )]
    CoreModule,
    /// A component that is damaged, cut short or not valid.
    #[error("this component is damaged or not valid: {reason}")]
    Invalid {
        /// What the compiler said.
        reason: String,
    },
    /// It wants what the host does not give.
    #[error("the component imports what this host does not offer: {}; offered are {}", .missing.join(", "), guest::OFFER)]
    MissingImports {
        /// The names of the imports.
        missing: Vec<String>,
    },
    /// It imports what its stage does not grant.
    #[error("the component imports {}, which the stage does not grant", grants::list(.missing))]
    NotGranted {
        /// What would have to be granted as well.
        missing: Vec<Grant>,
    },
    /// It imports what no stage of its kind can grant.
    #[error("the component imports {}, which a {kind} cannot have", grants::list(.refused))]
    NeverGranted {
        /// What it is.
        kind: PluginKind,
        /// What it would have to do without.
        refused: Vec<Grant>,
    },
    /// A component of another world.
    #[error("stage kind {kind} needs a component of world {}, this one {found}", .kind.world())]
    WrongWorld {
        /// What was wanted.
        kind: PluginKind,
        /// What it is instead, as the end of a sentence.
        found: String,
    },
    /// A component that is of none of the worlds, or of several.
    #[error("this component {found}, so what kind it is cannot be told")]
    NoWorld {
        /// What it is instead, as the end of a sentence.
        found: String,
    },
    /// The right names with other types behind them.
    #[error("the component does not match world {}: {reason}; build it against the host's wit/0.1.0", .kind.world())]
    Mismatch {
        /// What was wanted.
        kind: PluginKind,
        /// What differs.
        reason: String,
    },
    /// A fault of the host.
    #[error("cannot compile the component: {0}")]
    Internal(String),
}

/// A compiled component whose type fits its kind. Clones are handles.
#[derive(Clone)]
pub struct Plugin {
    shared: Arc<Loaded>,
    grants: Grants,
}

struct Loaded {
    engine: PluginEngine,
    digest: PluginDigest,
    size: u64,
    imports: Vec<String>,
    needs: BTreeSet<Grant>,
    world: WorldPre,
}

/// A component linked with its imports, ready to be instantiated.
pub(super) enum WorldPre {
    Producer(producer::ProducerPre<Guest>),
    Transform(transform::TransformPre<Guest>),
    Materializer(materializer::MaterializerPre<Guest>),
    Sink(sink::SinkPre<Guest>),
    Worker(worker::WorkerPre<Guest>),
}

impl PluginEngine {
    /// Compiles `bytes`, on a thread of its own, and checks them against the world of `kind`.
    ///
    /// On two cores a Rust component of 150 kB takes a quarter of a second, a Python one of 18 MB six seconds; with a
    /// cache folder the second time is a matter of milliseconds.
    ///
    /// # Errors
    ///
    /// One [`LoadError`] for each way in which a file can be something else.
    pub async fn load(&self, bytes: impl Into<Arc<[u8]>>, kind: PluginKind) -> Result<Plugin, LoadError> {
        self.load_as(bytes.into(), Some(kind)).await
    }

    /// As [`PluginEngine::load`], of whatever kind its exports say.
    ///
    /// # Errors
    ///
    /// As [`PluginEngine::load`], with [`LoadError::NoWorld`] in the place of [`LoadError::WrongWorld`].
    pub async fn load_any(&self, bytes: impl Into<Arc<[u8]>>) -> Result<Plugin, LoadError> {
        self.load_as(bytes.into(), None).await
    }

    async fn load_as(&self, bytes: Arc<[u8]>, kind: Option<PluginKind>) -> Result<Plugin, LoadError> {
        let engine = self.clone();
        self.run_blocking(move || engine.load_blocking(&bytes, kind))
            .await
            .unwrap_or_else(|error| Err(LoadError::Internal(error.to_string())))
    }

    fn load_blocking(&self, bytes: &[u8], kind: Option<PluginKind>) -> Result<Plugin, LoadError> {
        sniff(bytes)?;
        let component = Component::from_binary(self.wasmtime(), bytes)
            .map_err(|error| LoadError::Invalid { reason: sentence(&error) })?;
        self.check_imports(&component)?;
        let kind = self.check_exports(&component, kind)?;
        let imports = self.imports(&component);
        let needs: BTreeSet<Grant> = imports.iter().filter_map(|name| grants::needed_for(name)).collect();
        let refused: Vec<Grant> =
            needs.iter().copied().filter(|grant| !kind.can_be_granted(*grant)).collect();
        if !refused.is_empty() {
            return Err(LoadError::NeverGranted { kind, refused });
        }
        self.check_functions(&component, kind)?;
        let world = self.link(&component, kind)?;
        Ok(Plugin {
            shared: Arc::new(Loaded {
                engine: self.clone(),
                digest: PluginDigest::of(bytes),
                size: bytes.len() as u64,
                needs,
                imports,
                world,
            }),
            grants: Grants::default(),
        })
    }

    fn imports(&self, component: &Component) -> Vec<String> {
        let ty = component.component_type();
        ty.imports(self.wasmtime()).map(|(name, _)| name.to_owned()).collect()
    }

    /// All missing imports at once; wasmtime would name the first.
    fn check_imports(&self, component: &Component) -> Result<(), LoadError> {
        let imports = self.imports(component);
        let missing = imports.iter().filter(|name| !guest::offers(name));
        let missing: Vec<String> = missing.map(|name| printable(name, MAX_REASON)).collect();
        if missing.is_empty() { Ok(()) } else { Err(LoadError::MissingImports { missing }) }
    }

    /// The kind that was asked for, or the only one that it can be.
    fn check_exports(
        &self,
        component: &Component,
        kind: Option<PluginKind>,
    ) -> Result<PluginKind, LoadError> {
        let ty = component.component_type();
        let exports: Vec<&str> = ty.exports(self.wasmtime()).map(|(name, _)| name).collect();
        let is = |kind: &PluginKind| exports.iter().any(|name| is_export_of(name, *kind));
        let kinds: Vec<PluginKind> = PluginKind::ALL.into_iter().filter(is).collect();
        match (kind, kinds.as_slice()) {
            (Some(kind), kinds) if kinds.contains(&kind) => Ok(kind),
            (Some(kind), _) => Err(LoadError::WrongWorld { kind, found: describe_exports(&exports) }),
            (None, [kind]) => Ok(*kind),
            (None, _) => Err(LoadError::NoWorld { found: describe_exports(&exports) }),
        }
    }

    /// The generated worlds compare names when they are linked, and types only when they are instantiated; a plugin
    /// that does not fit should be known before it runs.
    fn check_functions(&self, component: &Component, kind: PluginKind) -> Result<(), LoadError> {
        type Worked<T> = (Result<T, Failure>,);

        let exports = Exports::of(component, self.wasmtime());
        exports
            .check::<(), (Descriptor,)>(LIFECYCLE, "describe")
            .and_then(|()| exports.check::<(&str,), (Result<(), String>,)>(LIFECYCLE, "configure"))
            .and_then(|()| {
                let interface = kind.interface();
                match kind {
                    PluginKind::Producer => {
                        exports.check::<(&Poll,), Worked<Production>>(interface, "produce")
                    }
                    PluginKind::Transform => {
                        exports.check::<(&[Message],), Worked<Outcome>>(interface, "process")
                    }
                    PluginKind::Materializer => {
                        exports.check::<(&[Message],), Worked<RowOutcome>>(interface, "materialize")
                    }
                    PluginKind::Sink => {
                        exports.check::<(&Token, &[Message]), Worked<Vec<Refused>>>(interface, "deliver")
                    }
                    PluginKind::Worker => exports.check::<(&[Job],), Worked<WorkOutcome>>(interface, "work"),
                }
            })
            .map_err(|reason| LoadError::Mismatch { kind, reason })
    }

    fn link(&self, component: &Component, kind: PluginKind) -> Result<WorldPre, LoadError> {
        self.linker()
            .instantiate_pre(component)
            .and_then(|pre| WorldPre::new(pre, kind))
            .map_err(|error| LoadError::Mismatch { kind, reason: sentence(&error) })
    }
}

impl Plugin {
    /// The name of the bytes that were compiled.
    pub fn digest(&self) -> &PluginDigest {
        &self.shared.digest
    }

    /// The world it was checked against.
    pub fn kind(&self) -> PluginKind {
        match &self.shared.world {
            WorldPre::Producer(_) => PluginKind::Producer,
            WorldPre::Transform(_) => PluginKind::Transform,
            WorldPre::Materializer(_) => PluginKind::Materializer,
            WorldPre::Sink(_) => PluginKind::Sink,
            WorldPre::Worker(_) => PluginKind::Worker,
        }
    }

    /// The names of what it imports.
    pub fn imports(&self) -> &[String] {
        &self.shared.imports
    }

    /// The grants that its imports need.
    pub fn needs(&self) -> &BTreeSet<Grant> {
        &self.shared.needs
    }

    /// The plugin with what its stage grants. Without it nothing is granted, and a plugin that needs something can be
    /// described, but not instantiated.
    ///
    /// # Errors
    ///
    /// [`LoadError::NotGranted`] with all that is missing. Granting more than is needed is fine.
    pub fn granted(&self, grants: Grants) -> Result<Self, LoadError> {
        let missing = grants.missing(self.needs());
        if missing.is_empty() {
            Ok(Self { shared: Arc::clone(&self.shared), grants })
        } else {
            Err(LoadError::NotGranted { missing })
        }
    }

    /// What was granted.
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Bytes of the component.
    pub fn size(&self) -> u64 {
        self.shared.size
    }

    pub(super) fn engine(&self) -> &PluginEngine {
        &self.shared.engine
    }

    pub(super) fn world(&self) -> &WorldPre {
        &self.shared.world
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("kind", &self.kind())
            .field("digest", &self.shared.digest)
            .finish_non_exhaustive()
    }
}

impl WorldPre {
    fn new(pre: InstancePre<Guest>, kind: PluginKind) -> wasmtime::Result<Self> {
        Ok(match kind {
            PluginKind::Producer => Self::Producer(producer::ProducerPre::new(pre)?),
            PluginKind::Transform => Self::Transform(transform::TransformPre::new(pre)?),
            PluginKind::Materializer => Self::Materializer(materializer::MaterializerPre::new(pre)?),
            PluginKind::Sink => Self::Sink(sink::SinkPre::new(pre)?),
            PluginKind::Worker => Self::Worker(worker::WorkerPre::new(pre)?),
        })
    }
}

/// The functions that a component exports.
struct Exports<'a> {
    ty: types::Component,
    engine: &'a Engine,
}

impl<'a> Exports<'a> {
    fn of(component: &Component, engine: &'a Engine) -> Self {
        Self { ty: component.component_type(), engine }
    }

    fn check<Params, Return>(&self, interface: &str, function: &str) -> Result<(), String>
    where
        Params: ComponentNamedList + Lower,
        Return: ComponentNamedList + Lift,
    {
        let mut exports = self.ty.exports(self.engine);
        let Some((_, exported)) = exports.find(|(name, _)| is_version_of(name, interface)) else {
            return Err(format!("it does not export {interface}"));
        };
        let ComponentItem::ComponentInstance(instance) = exported.ty else {
            return Err(format!("its {interface} is not an interface"));
        };
        let Some(ComponentItem::ComponentFunc(found)) =
            instance.get_export(self.engine, function).map(|export| export.ty)
        else {
            return Err(format!("its {interface} has no function `{function}`"));
        };
        found
            .typecheck::<Params, Return>(&self.ty.instance_type())
            .map_err(|error| format!("its `{function}` has another type: {}", sentence(&error)))
    }
}

/// Tells by the first bytes what a file is, so that the common mistakes get their own words.
fn sniff(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if bytes.len() > MAX_COMPONENT_BYTES {
        return Err(LoadError::TooLarge { size: bytes.len() as u64 });
    }
    if let Some(rest) = bytes.strip_prefix(WASM_MAGIC) {
        return match rest.get(..4) {
            Some(version) if version == CORE_MODULE => Err(LoadError::CoreModule),
            Some(version) if version == COMPONENT => Ok(()),
            Some(version) => {
                Err(LoadError::Invalid { reason: format!("its binary version {version:02x?} is not known") })
            }
            None => Err(LoadError::Invalid { reason: "the file ends within its header".to_owned() }),
        };
    }
    Err(LoadError::NotWasm { found: name_of_other(bytes) })
}

fn name_of_other(bytes: &[u8]) -> &'static str {
    let text = std::str::from_utf8(bytes.get(..64).unwrap_or(bytes));
    if bytes.starts_with(b"\x7fELF") {
        "a native ELF file or a precompiled .cwasm (machine code is never loaded from a file)"
    } else if bytes.starts_with(b"MZ") || bytes.starts_with(b"\xcf\xfa\xed\xfe") {
        "a native program"
    } else if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x1f\x8b") {
        "an archive"
    } else if text.is_ok_and(|text| text.trim_start().starts_with('(')) {
        "WebAssembly text"
    } else if text.is_ok_and(|text| !text.contains(|c: char| c.is_control() && !c.is_whitespace())) {
        "a text file"
    } else {
        "something else"
    }
}

/// Whether the export `name` is the working interface of `kind`.
fn is_export_of(name: &str, kind: PluginKind) -> bool {
    is_version_of(name, kind.interface())
}

/// Whether `name` is `interface` in the version that the host speaks.
fn is_version_of(name: &str, interface: &str) -> bool {
    name.split_once('@').is_some_and(|(named, version)| named == interface && version.starts_with("0.1."))
}

fn describe_exports(exports: &[&str]) -> String {
    let kinds: Vec<&str> = PluginKind::ALL
        .into_iter()
        .filter(|&kind| exports.iter().any(|name| is_export_of(name, kind)))
        .map(PluginKind::as_str)
        .collect();
    if exports.is_empty() {
        return "exports nothing".to_owned();
    }
    let names = printable(&exports.join(", "), MAX_REASON);
    if !kinds.is_empty() {
        return format!("is a {} (it exports {names})", kinds.join(" and a "));
    }
    if exports.iter().any(|name| name.starts_with("tidemill:plugin/")) {
        return format!("is of another version of the interface (it exports {names})");
    }
    format!("is no Tidemill plugin (it exports {names})")
}

fn sentence(error: &wasmtime::Error) -> String {
    printable(&format!("{error:#}"), MAX_REASON)
}
