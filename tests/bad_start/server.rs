//! The bucket says no: here a server that checks signatures and permissions, instead of a scripted answer.

use std::process::Command;

use pailfs::demo::{Server, ServerOptions};

use crate::support::{Place, run};

/// A server with a bucket of one object, and a place to mount it at.
fn server() -> (Server, Place) {
    let server = Server::start(ServerOptions::default()).expect("a free port");
    server.bucket("bucket").put("p/object", "content");
    (server, Place::new())
}

/// A mount with the server's own keys.
fn with_keys(server: &Server, place: &Place, source: &str) -> Command {
    let mut command = place.pailfs(source);
    command.env("AWS_ACCESS_KEY_ID", server.access_key()).env("AWS_SECRET_ACCESS_KEY", server.secret_key());
    command.args(["--endpoint-url", &server.endpoint()]);
    command
}

#[test]
fn a_bucket_that_is_not_there() {
    let (server, place) = server();
    run(&mut with_keys(&server, &place, "s3://another-bucket")).is(32, &["there is no bucket 'another-bucket'"]);
}

#[test]
fn a_key_that_the_server_does_not_know() {
    let (server, place) = server();
    let mut command = with_keys(&server, &place, "s3://bucket");
    run(command.env("AWS_ACCESS_KEY_ID", "AKIDUNKNOWN")).is(32, &["refused the credentials", "check the access key"]);
}

#[test]
fn a_secret_that_does_not_fit_the_key() {
    let (server, place) = server();
    let mut command = with_keys(&server, &place, "s3://bucket");
    run(command.env("AWS_SECRET_ACCESS_KEY", "hush-hush")).is(32, &["refused the credentials", "the secret key"]);
}

#[test]
fn a_prefix_that_these_keys_may_not_list() {
    let (server, place) = server();
    server.deny(None, "p/");
    run(&mut with_keys(&server, &place, "s3://bucket/p")).is(32, &["denied (403)", "s3:ListBucket", "prefix 'p/'"]);
}
