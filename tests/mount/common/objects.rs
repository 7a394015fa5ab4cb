//! The object side of a test: its own prefix of the bucket, seen through the S3 API and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ServerSideEncryption, Tag, Tagging};

/// User metadata of an object.
pub type Metadata = BTreeMap<String, String>;

/// Where the objects are, and with which keys.
#[derive(Clone, Debug)]
pub struct Access {
    pub endpoint: Option<String>,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    pub bucket: String,
}

/// What HEAD tells.
#[derive(Clone, Debug)]
pub struct Head {
    pub size: u64,
    pub metadata: Metadata,
    pub content_type: Option<String>,
    pub storage_class: Option<String>,
    pub kms_key: Option<String>,
}

/// Objects below one prefix; keys are given and returned without it.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    runtime: Arc<tokio::runtime::Runtime>,
    bucket: String,
    prefix: String,
}

impl Objects {
    pub fn new(access: &Access, prefix: &str) -> Self {
        let keys = Credentials::new(&access.access_key, &access.secret_key, None, None, "tests");
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(access.region.clone()))
            .credentials_provider(keys)
            .force_path_style(access.endpoint.is_some());
        if let Some(endpoint) = &access.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Objects {
            client: Client::from_conf(config.build()),
            runtime: Arc::new(runtime.expect("a runtime for the object side")),
            bucket: access.bucket.clone(),
            prefix: prefix.to_owned(),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    #[track_caller]
    pub fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.put_with(name, bytes, &[]);
    }

    #[track_caller]
    pub fn put_with(&self, name: &str, bytes: impl Into<Vec<u8>>, metadata: &[(&str, &str)]) {
        let request = self.client.put_object().bucket(&self.bucket).key(self.key(name));
        let mut request = request.content_type("text/x-test");
        for (key, value) in metadata {
            request = request.metadata(*key, *value);
        }
        let request = request.body(ByteStream::from(bytes.into())).send();
        self.runtime.block_on(request).unwrap_or_else(|e| panic!("PUT {name}: {e:?}"));
    }

    /// The object's bytes; `None` if it is not there.
    #[track_caller]
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.runtime.block_on(async {
            match self.client.get_object().bucket(&self.bucket).key(self.key(name)).send().await {
                Ok(reply) => {
                    let body = reply.body.collect().await.unwrap_or_else(|e| panic!("body of {name}: {e:?}"));
                    Some(body.to_vec())
                }
                Err(e) if e.code() == Some("NoSuchKey") => None,
                Err(e) => panic!("GET {name}: {e:?}"),
            }
        })
    }

    /// The object's bytes as text. The object must be there.
    #[track_caller]
    pub fn text(&self, name: &str) -> String {
        let bytes = self.get(name).unwrap_or_else(|| panic!("no object {name}; there are {:?}", self.list()));
        String::from_utf8(bytes).unwrap_or_else(|_| panic!("{name} is not text"))
    }

    #[track_caller]
    pub fn head(&self, name: &str) -> Option<Head> {
        let request = self.client.head_object().bucket(&self.bucket).key(self.key(name)).send();
        match self.runtime.block_on(request) {
            Ok(reply) => Some(Head {
                size: reply.content_length().unwrap_or_default() as u64,
                metadata: reply.metadata().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
                content_type: reply.content_type().map(str::to_owned),
                storage_class: reply.storage_class().map(|class| class.as_str().to_owned()),
                kms_key: reply.ssekms_key_id().map(str::to_owned),
            }),
            Err(e) if e.as_service_error().is_some_and(|e| e.is_not_found()) => None,
            Err(e) => panic!("HEAD {name}: {e:?}"),
        }
    }

    /// An object under a KMS key.
    #[track_caller]
    pub fn put_encrypted(&self, name: &str, bytes: impl Into<Vec<u8>>, kms_key: &str) {
        let request = self.client.put_object().bucket(&self.bucket).key(self.key(name));
        let request = request.server_side_encryption(ServerSideEncryption::AwsKms).ssekms_key_id(kms_key);
        let request = request.body(ByteStream::from(bytes.into())).send();
        self.runtime.block_on(request).unwrap_or_else(|e| panic!("PUT {name}: {e:?}"));
    }

    /// Gives an object tags, in place of those that it has.
    #[track_caller]
    pub fn tag(&self, name: &str, tags: &[(&str, &str)]) {
        let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build().expect("a tag"));
        let tagging = Tagging::builder().set_tag_set(Some(tags.collect())).build().expect("tags");
        let request = self.client.put_object_tagging().bucket(&self.bucket).key(self.key(name)).tagging(tagging);
        self.runtime.block_on(request.send()).unwrap_or_else(|e| panic!("tags of {name}: {e:?}"));
    }

    #[track_caller]
    pub fn tags(&self, name: &str) -> Vec<(String, String)> {
        let request = self.client.get_object_tagging().bucket(&self.bucket).key(self.key(name)).send();
        let reply = self.runtime.block_on(request).unwrap_or_else(|e| panic!("tags of {name}: {e:?}"));
        reply.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
    }

    #[track_caller]
    pub fn exists(&self, name: &str) -> bool {
        self.head(name).is_some()
    }

    /// Every key below the prefix, in order.
    #[track_caller]
    pub fn list(&self) -> Vec<String> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(&self.prefix);
        self.runtime.block_on(async {
            let mut keys = Vec::new();
            let mut pages = request.into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page.unwrap_or_else(|e| panic!("LIST: {e:?}"));
                keys.extend(page.contents().iter().filter_map(|object| object.key()).map(str::to_owned));
            }
            keys.iter().map(|key| key.strip_prefix(&self.prefix).unwrap_or(key).to_owned()).collect()
        })
    }

    /// Keys below the prefix that are no directory markers.
    #[track_caller]
    pub fn files(&self) -> Vec<String> {
        self.list().into_iter().filter(|key| !key.is_empty() && !key.ends_with('/')).collect()
    }

    #[track_caller]
    pub fn delete(&self, name: &str) {
        let request = self.client.delete_object().bucket(&self.bucket).key(self.key(name)).send();
        self.runtime.block_on(request).unwrap_or_else(|e| panic!("DELETE {name}: {e:?}"));
    }

    /// Keys of multipart uploads that were begun below the prefix and neither completed nor aborted.
    #[track_caller]
    pub fn unfinished_uploads(&self) -> Vec<String> {
        let request = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(&self.prefix).send();
        let reply = self.runtime.block_on(request).unwrap_or_else(|e| panic!("ListMultipartUploads: {e:?}"));
        reply.uploads().iter().filter_map(|upload| upload.key()).map(str::to_owned).collect()
    }

    /// How many parts are up of the uploads of this object that are neither completed nor aborted.
    pub fn parts_up(&self, name: &str) -> u64 {
        let key = self.key(name);
        let uploads = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(&key).send();
        let uploads = self.runtime.block_on(uploads).unwrap_or_else(|e| panic!("ListMultipartUploads: {e:?}"));
        let parts = |id: &str| {
            let request = self.client.list_parts().bucket(&self.bucket).key(&key).upload_id(id).send();
            // It may have gone since.
            self.runtime.block_on(request).map_or(0, |reply| reply.parts().len() as u64)
        };
        uploads.uploads().iter().filter_map(|upload| upload.upload_id()).map(parts).sum()
    }

    /// Removes what the test left, without failing: it runs while a panic unwinds, too.
    pub fn remove_all(&self) {
        let bucket = &self.bucket;
        self.runtime.block_on(async {
            let mut pages = self.client.list_objects_v2().bucket(bucket).prefix(&self.prefix).into_paginator().send();
            while let Some(Ok(page)) = pages.next().await {
                // Children before their directories: a server that keeps directories refuses to remove a full one.
                for key in page.contents().iter().rev().filter_map(|object| object.key()) {
                    let _ = self.client.delete_object().bucket(bucket).key(key).send().await;
                }
            }
            let uploads = self.client.list_multipart_uploads().bucket(bucket).prefix(&self.prefix).send().await;
            for upload in uploads.iter().flat_map(|reply| reply.uploads()) {
                let abort = self.client.abort_multipart_upload().bucket(bucket);
                let abort = abort.set_key(upload.key().map(str::to_owned));
                let _ = abort.set_upload_id(upload.upload_id().map(str::to_owned)).send().await;
            }
        });
    }
}
