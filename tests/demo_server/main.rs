//! The in-process S3 server, seen through the AWS SDK: what the other tests build on must itself hold.
#![cfg(feature = "demo")]

mod faults;
mod listing;
mod multipart;
mod objects;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use pailfs::demo::{Bucket, Server, ServerOptions};
use std::fmt::Debug;

/// A server with one bucket, and a client of it that never tries twice.
struct Fixture {
    server: Server,
    bucket: Bucket,
    client: Client,
}

const BUCKET: &str = "pail";

fn fixture() -> Fixture {
    fixture_with(ServerOptions::default())
}

fn fixture_with(options: ServerOptions) -> Fixture {
    let server = Server::start(options).expect("the server starts");
    let bucket = server.bucket(BUCKET);
    let client = client(&server, server.access_key(), server.secret_key());
    Fixture { server, bucket, client }
}

fn client(server: &Server, access_key: &str, secret_key: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(server.region().to_owned()))
        .endpoint_url(server.endpoint())
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

/// Status and S3 code of a refusal.
fn refusal<T: Debug, E: ProvideErrorMetadata + Debug>(
    result: Result<T, SdkError<E, aws_sdk_s3::config::http::HttpResponse>>,
) -> (u16, String) {
    let error = result.expect_err("it is refused");
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    (status, error.code().unwrap_or_default().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

async fn bytes(output: GetObjectOutput) -> Vec<u8> {
    output.body.collect().await.expect("the body comes whole").to_vec()
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}
