//! From the command line to a running daemon: everything is checked before anything is changed.

use std::{
    fs, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use overlay_api::Spool;
use overlay_control::{
    Server, ServerError,
    progress::{Activity, Progress},
};
use overlay_core::{
    config::{ConfigError, Files, Loaded},
    desired::Obstacles,
    dirs::Dirs,
    model::{FastPath, Model, Name},
};
use overlay_kernel::{KernelError, bpf::Variant, capability, netlink::Watch, netns, privileges};
use overlay_node::{
    key::KeyFile,
    node::Node,
    preview::{self, Preview, PreviewError},
    store::{Store, StoreError},
};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{
    Calls, Reconciler,
    cluster::Helper,
    config_file::{ConfigFile, refused_fragments},
    exports::Exports,
    lock::{InstanceLock, LockError},
    programs,
    reconcile::identity,
    watches::Watches,
};

/// Waiting calls before clients have to wait.
const WAITING_CALLS: usize = 16;

/// The parameters of a daemon.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// The instance; the node's name when left out.
    pub instance: Option<Name>,
    /// The namespace that the process has entered, to find it again for `down`.
    pub netns: Option<PathBuf>,
    /// Where the instance keeps what it keeps.
    pub dirs: Dirs,
    /// The listener to progress.
    pub progress: Progress,
}

/// Why a daemon does not start; nothing has been changed then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node makes it impossible.
    #[error(transparent)]
    Obstacles(#[from] Obstacles),
    /// The kernel does not allow it, or cannot.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The state file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The socket cannot be made.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Another daemon has the instance, or its folder cannot be made.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A network requires the programs and they cannot be used.
    #[error(
        "start network {network}, which requires the fast path: {cause}; or set fastpath = \"auto\""
    )]
    FastPathRequired {
        /// The network.
        network: Name,
        /// Why.
        cause: KernelError,
    },
    /// The instance has what it made in another network namespace, and nobody says that it is to be here.
    #[error(
        "take instance {instance}: it lives in {}; add --netns {}, or remove what it has there with \
         \"overlay-agent down --instance {instance}\"",
        path.display(),
        short(path).display()
    )]
    Elsewhere {
        /// The instance.
        instance: Name,
        /// The namespace.
        path: PathBuf,
    },
    /// Signals cannot be handled.
    #[error("handle signals: {0}")]
    Signal(io::Error),
}

impl From<PreviewError> for StartError {
    fn from(error: PreviewError) -> Self {
        match error {
            PreviewError::Kernel(error) => Self::Kernel(error),
            PreviewError::Obstacles(error) => Self::Obstacles(error),
        }
    }
}

/// A namespace as `--netns` takes it.
pub(crate) fn short(netns: &Path) -> &Path {
    netns.strip_prefix("/run/netns").unwrap_or(netns)
}

/// An instance is not begun anew beside what it has in a namespace that is still there.
fn must_be_here(instance: &Name, store: &Store) -> Result<(), StartError> {
    let Some(path) = &store.content().netns else {
        return Ok(());
    };
    let there = identity(path);
    if there.is_none() || there == identity(Path::new(OWN)) {
        return Ok(());
    }
    Err(StartError::Elsewhere {
        instance: instance.clone(),
        path: path.clone(),
    })
}

/// The network namespace of this process.
const OWN: &str = "/proc/self/ns/net";

/// A daemon that has done its first round.
pub(super) struct Started {
    pub(super) reconciler: Reconciler,
    pub(super) watches: Watches,
    pub(super) config: ConfigFile,
    pub(super) calls: Calls,
    pub(super) exports: Exports,
    pub(super) helper: Helper,
    pub(super) server: Server,
    pub(super) lock: InstanceLock,
}

pub(super) async fn start(options: &Options) -> Result<Started, StartError> {
    options.progress.tell(Activity::Reading).await;
    let (files, loaded, instance) = read(options)?;
    let model = &loaded.model;
    check_machine(model, &options.dirs)?;
    let lock = InstanceLock::take(&options.dirs, &instance)?;
    let mut store = Store::open(&options.dirs, &instance)?;
    must_be_here(&instance, &store)?;
    store.clear_unfinished()?;
    let key = KeyFile::at(options.dirs.private_key(&instance));
    let mut node = Node::open(options.dirs.pins(&instance), key)?;
    node.progress = options.progress.clone();
    options.progress.tell(Activity::Looking).await;
    // What would be shows that nothing stands in the way.
    let (_, desired) = preview::look_ahead(&node, model, store.content()).await?;
    if let Err(obstacles) = desired
        && !obstacles.may_pass()
    {
        return Err(obstacles.into());
    }
    let required = model
        .networks
        .iter()
        .find(|network| network.fastpath == FastPath::Required);
    let mut required_programs = None;
    if let Some(network) = required {
        let network = network.name.clone();
        let loaded = programs::load(
            &node.pins,
            model.node.rx,
            model.peer_count(),
            Variant::default(),
        )
        .map_err(|cause| StartError::FastPathRequired { network, cause })?;
        required_programs = Some(loaded);
    }
    let config_path = fs::canonicalize(&options.config).unwrap_or_else(|_| options.config.clone());
    store.update(|content| {
        content.netns.clone_from(&options.netns);
        content.config.clone_from(&config_path);
    })?;
    let watch = Watch::open()?;
    let watches = Watches::open(&node);
    // Before the first thread is started.
    let mut kept = privileges::RUNNING.to_vec();
    if model.cluster.is_some() {
        kept.extend(privileges::WITH_HELPER);
    }
    if model.node.names.is_some() {
        kept.extend(privileges::WITH_NAMES);
    }
    privileges::keep(&kept)?;
    store.write_behind()?;
    let spool = Spool::of(&options.dirs.runtime(&instance));
    if let Some(endpoint) = store.forget_unanswered()? {
        warn!(
            "endpoint {endpoint} was being added when the last agent ended, and nobody was told that it is there: it is undone"
        );
    }
    clear_unfinished_namespaces(&mut store)?;
    let config = ConfigFile::watch(&options.config, files);
    let mut reconciler = Reconciler::new(node, store, loaded, watch, spool);
    reconciler.node.dataplane = required_programs;
    reconciler.reconcile().await;
    reconciler.forget_the_unfinished()?;
    watches.renew();
    let mut helper = Helper::new(options.dirs.cluster(&instance));
    helper.follow(&reconciler, &config).await;
    let (sender, calls) = mpsc::channel(WAITING_CALLS);
    let mut exports = Exports::new(sender.clone(), options.netns.clone());
    reconciler.closed_to_metrics = exports.follow(reconciler.metrics()).await;
    let socket = options.dirs.socket(&instance);
    let server = Server::start(&socket, sender, options.progress.listen())?;
    // Who found nobody listening has left word there.
    if reconciler.take_from_spool() {
        reconciler.reconcile().await;
    }
    match reconciler.waits_for() {
        None => info!("instance {instance} is up"),
        Some(what) => info!("instance {instance} waits: {what}"),
    }
    Ok(Started {
        reconciler,
        watches,
        config,
        calls,
        exports,
        helper,
        server,
        lock,
    })
}

/// Removes the names of namespaces that an agent which was killed had begun to make, and forgets
/// those that are gone: for whoever still needs one it is made anew.
fn clear_unfinished_namespaces(store: &mut Store) -> Result<(), StoreError> {
    let mut gone = Vec::new();
    for (name, made) in &store.content().namespaces {
        let Some(made) = made else { continue };
        let cleared = match netns::id(&netns::path_of(name)) {
            Ok(None) => netns::clear_unfinished(name, made).map(|()| gone.push(name.clone())),
            Ok(Some(_)) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = cleared {
            warn!("{error}");
        }
    }
    store.update(|content| content.namespaces.retain(|name, _| !gone.contains(name)))
}

/// The steps that `run` would take.
pub async fn preview(options: &Options) -> Result<Preview, StartError> {
    options.progress.tell(Activity::Reading).await;
    let (_, loaded, instance) = read(options)?;
    let model = &loaded.model;
    capability::check_privileges()?;
    let store = Store::open(&options.dirs, &instance)?;
    must_be_here(&instance, &store)?;
    let key = KeyFile::at(options.dirs.private_key(&instance));
    let node = Node::open(options.dirs.pins(&instance), key)?;
    options.progress.tell(Activity::Looking).await;
    let agent_runs = UnixStream::connect(options.dirs.socket(&instance)).is_ok();
    let mut preview = preview::preview(&node, model, store.content(), agent_runs).await?;
    let refused = refused_fragments(&loaded.refused_fragments);
    preview.problems.extend(refused);
    Ok(preview)
}

/// The configuration with all that belongs to it, and the instance that it is of.
pub(crate) fn read(options: &Options) -> Result<(Files, Loaded, Name), ConfigError> {
    let mut files = Files::new(&options.config);
    let mut loaded = files.load()?;
    let instance = options.instance.clone();
    let instance = instance.unwrap_or_else(|| loaded.model.node.name.clone());
    // A cluster that comes while the agent runs is kept there, too.
    let mut files = files.with_cluster(options.dirs.cluster(&instance));
    if loaded.model.cluster.is_some() {
        loaded = files.load()?;
    }
    Ok((files, loaded, instance))
}

fn check_machine(model: &Model, dirs: &Dirs) -> Result<(), KernelError> {
    capability::check_privileges()?;
    let programs = |wanted: FastPath| {
        model
            .networks
            .iter()
            .any(|network| network.fastpath == wanted)
    };
    if programs(FastPath::Required) {
        capability::check_kernel_release()?;
    }
    if programs(FastPath::Required) || programs(FastPath::Auto) {
        // Without one the pins, and with them the traffic, would not outlive the agent.
        let mount = dirs.bpf_dir.parent().unwrap_or(&dirs.bpf_dir);
        capability::check_bpffs(mount)?;
    }
    Ok(())
}
