//! The setup of a block of jobs: resources, or the place to read them from.
//!
//! A setup reads nothing when it is made, so that it may be made before the hook: a worker process
//! executes that code, too.

mod error;
mod file;

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::SetupError;

use crate::resource::Resources;

/// The environment variable that names the configuration file.
const VARIABLE: &str = "SEEDBED_CONFIG";

/// The configuration file that is read if no variable names one and it exists.
const DEFAULT_FILE: &str = "seedbed.toml";

/// The folder of kept results, unless the setup names another.
const DEFAULT_CACHE_FOLDER: &str = "seedbed-cache";

/// The setup of a block of jobs: [`Resources`], or a file that names them.
///
/// Making a setup reads nothing. The file is read when the block begins, so a setup may be made
/// before the hook, in code that workers execute, too. [`load`](Self::load) returns what is wrong
/// with the file; in a block that was opened with a faulty file, each job is an error that says it.
///
/// # The file
///
/// All keys are optional. Without a key, the jobs have what this process may use, as by
/// [`Resources::local`]. Unknown keys and wrong values are errors with the file, the line and the
/// key.
///
/// ```toml
/// [resources]
/// cores = 8                # a number, or a list: [0, 1, 4]
/// memory = "16 GiB"        # or MiB, KiB, bytes
/// wall_time = "1-12:00:00" # [days-]hours:minutes:seconds, or a number of seconds
/// tokens = ["internet"]
///
/// [resources.amounts]
/// licences = 5
///
/// [resources.units]
/// gpus = ["0", "1"]
/// ```
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{Cores, Setup, open};
///
/// fn main() {
///     # let folder = tempfile::tempdir().unwrap();
///     # let path = folder.path().join("seedbed.toml");
///     # std::fs::write(&path, "[resources]\ncores = 1\n").unwrap();
///     let setup = Setup::from_file(path).name("example");
///     seedbed::run(open(setup, async |jobs| {
///         assert_eq!(jobs.on(Cores(1)).call(i32::abs, -3).await.unwrap(), 3);
///     }));
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Setup {
    source: Source,
    name: Option<Arc<str>>,
    is_prioritized: bool,
    cache_folder: Option<Arc<Path>>,
}

#[derive(Clone, Debug)]
enum Source {
    Resources(Resources),
    Local,
    File(PathBuf),
    Environment,
}

impl Setup {
    fn new(source: Source) -> Self {
        Self {
            source,
            name: None,
            is_prioritized: false,
            cache_folder: None,
        }
    }

    /// Makes a setup of what this process may use when the block begins, as by
    /// [`Resources::local`].
    ///
    /// ```
    /// use seedbed::delayed::Setup;
    ///
    /// assert!(Setup::local().load().unwrap().core_count() >= 1);
    /// ```
    pub fn local() -> Self {
        Self::new(Source::Local)
    }

    /// Makes a setup of a [file](Self#the-file), which is read when the block begins.
    ///
    /// ```
    /// use seedbed::delayed::Setup;
    ///
    /// let error = Setup::from_file("/no/such/file.toml").load().unwrap_err();
    /// assert!(error.to_string().contains("/no/such/file.toml"));
    /// ```
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self::new(Source::File(path.into()))
    }

    /// Makes a setup of the [file](Self#the-file) that the environment variable `SEEDBED_CONFIG`
    /// names. If that is not set, of `seedbed.toml` in the working directory, and if that does not
    /// exist, of what this process may use.
    ///
    /// ```
    /// use seedbed::delayed::Setup;
    ///
    /// assert!(Setup::from_env().load().is_ok());
    /// ```
    pub fn from_env() -> Self {
        Self::new(Source::Environment)
    }

    /// Names the block. Its workers show the name in `ps`, and errors of jobs contain it.
    ///
    /// ```
    /// use seedbed::delayed::Setup;
    ///
    /// assert!(format!("{:?}", Setup::local().name("weights")).contains("weights"));
    /// ```
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Prioritises all jobs of the block, as
    /// [`Jobs::prioritized`](crate::delayed::Jobs::prioritized) does for single ones.
    ///
    /// ```
    /// use seedbed::delayed::Setup;
    ///
    /// assert!(format!("{:?}", Setup::local().prioritized()).contains("true"));
    /// ```
    pub fn prioritized(mut self) -> Self {
        self.is_prioritized = true;
        self
    }

    /// Sets the folder in which [`Jobs::cached`](crate::delayed::Jobs::cached) keeps results. The
    /// default is `seedbed-cache` in the working directory. The folder is created when the first
    /// result is kept.
    ///
    /// ```
    /// use seedbed::delayed::Setup;
    ///
    /// let setup = Setup::local().cache_folder("/scratch/results");
    /// assert!(format!("{setup:?}").contains("/scratch/results"));
    /// ```
    pub fn cache_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.cache_folder = Some(folder.as_ref().into());
        self
    }

    /// Reads the resources now.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is wrong.
    ///
    /// ```
    /// use seedbed::delayed::{Resources, Setup};
    ///
    /// let setup = Setup::from(Resources::none().cores([0]));
    /// assert_eq!(setup.load().unwrap().core_count(), 1);
    /// ```
    pub fn load(&self) -> Result<Resources, SetupError> {
        match &self.source {
            Source::Resources(resources) => Ok(resources.clone()),
            Source::Local => Ok(Resources::local()),
            Source::File(path) => file::read(path),
            Source::Environment => match env::var_os(VARIABLE) {
                Some(path) => file::read(Path::new(&path)),
                None if Path::new(DEFAULT_FILE).exists() => file::read(Path::new(DEFAULT_FILE)),
                None => Ok(Resources::local()),
            },
        }
    }

    /// Reads the resources now, and keeps the other settings.
    pub(super) fn loaded(self) -> Result<Self, SetupError> {
        let source = Source::Resources(self.load()?);
        Ok(Self { source, ..self })
    }

    pub(super) fn cache_folder_path(&self) -> Arc<Path> {
        let named = self.cache_folder.clone();
        named.unwrap_or_else(|| Path::new(DEFAULT_CACHE_FOLDER).into())
    }

    pub(super) fn block_name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    pub(super) fn is_prioritized(&self) -> bool {
        self.is_prioritized
    }
}

impl From<Resources> for Setup {
    fn from(resources: Resources) -> Self {
        Self::new(Source::Resources(resources))
    }
}
