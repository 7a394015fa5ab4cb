//! One server and one prefix of its own for each test.

use std::sync::atomic::{AtomicU64, Ordering};

use pailfs::demo::{Bucket, Server, ServerOptions};

use super::capability::{Capability, lacks};
use super::mount::{Mount, MountOptions};
use super::objects::{Access, Objects};
use super::{skipped, test_name};

/// Bucket of the in-process server.
const BUCKET: &str = "pail";

/// The server of one test. Dropped, it removes the test's objects and, if it is the in-process one, ends.
pub struct TestServer {
    kind: String,
    access: Access,
    prefix: String,
    objects: Objects,
    demo: Option<Server>,
}

impl TestServer {
    /// The server that the environment names, or a new one in this process.
    pub fn start() -> Self {
        match std::env::var("PAILFS_TEST_BUCKET") {
            Ok(bucket) => Self::outside(bucket),
            Err(_) => Self::in_process(ServerOptions::default()),
        }
    }

    /// As [`start`](Self::start); `None`, and a line that says so, if the server lacks one of `needed`.
    pub fn with(needed: &[Capability]) -> Option<Self> {
        let server = Self::start();
        server.has(needed).then_some(server)
    }

    /// True if the server has all of `needed`; else a line says what it lacks.
    pub fn has(&self, needed: &[Capability]) -> bool {
        let lacking = needed.iter().find(|capability| lacks(&self.kind, **capability));
        if let Some(capability) = lacking {
            skipped(&test_name(), &format!("{} lacks {capability:?}", self.kind));
        }
        lacking.is_none()
    }

    /// A new one in this process, whose faults are drawn with this seed; `None`, and a line that says so, if the environment
    /// names another server.
    pub fn simulated(seed: u64) -> Option<Self> {
        let server = match std::env::var("PAILFS_TEST_BUCKET") {
            Ok(bucket) => Self::outside(bucket),
            Err(_) => Self::in_process(ServerOptions { seed, ..ServerOptions::default() }),
        };
        server.has(&[Capability::Simulation]).then_some(server)
    }

    fn in_process(options: ServerOptions) -> Self {
        let region = options.region.clone();
        let server = Server::start(options).expect("the in-process server starts");
        let _ = server.bucket(BUCKET);
        let access = Access {
            endpoint: Some(server.endpoint()),
            region,
            access_key: server.access_key().to_owned(),
            secret_key: server.secret_key().to_owned(),
            bucket: BUCKET.to_owned(),
        };
        Self::new("demo".to_owned(), access, Some(server))
    }

    fn outside(bucket: String) -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} must be set"));
        let endpoint = std::env::var("PAILFS_TEST_ENDPOINT").ok();
        let fallback = if endpoint.is_some() { "other" } else { "aws" };
        let kind = std::env::var("PAILFS_TEST_SERVER").unwrap_or_else(|_| fallback.to_owned());
        let access = Access {
            endpoint,
            region: std::env::var("AWS_REGION").unwrap_or_else(|_| "us-east-1".to_owned()),
            access_key: variable("AWS_ACCESS_KEY_ID"),
            secret_key: variable("AWS_SECRET_ACCESS_KEY"),
            bucket,
        };
        Self::new(kind, access, None)
    }

    fn new(kind: String, access: Access, demo: Option<Server>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let prefix = format!("tests/{}-{}-{number}/", std::process::id(), start.as_millis());
        let objects = Objects::new(&access, &prefix);
        TestServer { kind, access, prefix, objects, demo }
    }

    /// `demo`, `minio`, `versitygw`, `aws`, …
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The object side of this test's prefix.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The in-process server. Only for tests that asked for [`Capability::Simulation`].
    #[track_caller]
    pub fn demo(&self) -> &Server {
        self.demo.as_ref().expect("only the in-process server can do that")
    }

    /// Direct access to the bucket, without requests. Keys carry the test's prefix.
    #[track_caller]
    pub fn direct(&self) -> Bucket {
        self.demo().bucket(&self.access.bucket)
    }

    /// The whole key of `name` in this test's prefix.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Objects whose keys begin as this test's prefix does but lie outside it.
    pub fn beside(&self) -> Objects {
        Objects::new(&self.access, &format!("{}-beside/", self.prefix.trim_end_matches('/')))
    }

    /// Where the objects are, and with which keys.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// What a user would type to mount this test's prefix.
    pub fn source(&self) -> String {
        format!("s3://{}/{}", self.access.bucket, self.prefix)
    }

    /// Options that lead the program to this server.
    pub fn endpoint_options(&self) -> Vec<String> {
        let endpoint = self.access.endpoint.iter().map(|url| format!("endpoint_url={url}"));
        endpoint.chain([format!("region={}", self.access.region)]).collect()
    }

    /// Environment that gives the program this server's keys, and nothing of the user's own configuration.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", self.access.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.access.secret_key.clone()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    /// Mounts this test's prefix with the default options.
    #[track_caller]
    pub fn mount(&self) -> Mount {
        self.mount_with(&[])
    }

    /// Mounts this test's prefix with these `-o` options.
    #[track_caller]
    pub fn mount_with(&self, options: &[&str]) -> Mount {
        Mount::start(self, MountOptions::new(options))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        match &self.demo {
            // The server and its objects go together; faults may still be set, too.
            Some(_) => {}
            None => self.objects.remove_all(),
        }
    }
}
