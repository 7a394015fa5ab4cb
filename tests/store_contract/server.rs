//! The server that the cases run against.

use std::sync::OnceLock;

use pailfs::demo::{Server, ServerOptions};
use pailfs::store::{AccessKeys, StoreOptions};

/// Where the cases find a bucket.
pub struct Place {
    pub options: StoreOptions,
    pub access_key: String,
    pub server: String,
}

/// Where the environment says, else in this process.
pub fn for_tests() -> Place {
    let Ok(bucket) = std::env::var("PAILFS_TEST_BUCKET") else {
        static SHARED: OnceLock<Server> = OnceLock::new();
        return in_process(SHARED.get_or_init(start), "contract");
    };
    let endpoint_url = std::env::var("PAILFS_TEST_ENDPOINT").ok();
    Place {
        options: StoreOptions { bucket, endpoint_url, ..StoreOptions::default() },
        access_key: std::env::var("AWS_ACCESS_KEY_ID").unwrap_or_default(),
        server: std::env::var("PAILFS_TEST_SERVER").unwrap_or_default(),
    }
}

/// A server of one's own, for cases that break it.
pub fn start() -> Server {
    Server::start(ServerOptions::default()).unwrap()
}

pub fn in_process(server: &Server, bucket: &str) -> Place {
    drop(server.bucket(bucket));
    let (access_key, secret_key) = (server.access_key().to_owned(), server.secret_key().to_owned());
    let keys = Some(AccessKeys { access_key: access_key.clone(), secret_key });
    let options = StoreOptions {
        bucket: bucket.to_owned(),
        endpoint_url: Some(server.endpoint()),
        region: Some(server.region().to_owned()),
        keys,
        ..StoreOptions::default()
    };
    Place { options, access_key, server: "demo".to_owned() }
}
