//! The operations the server tells apart: for counters, faults and denials.
//!
//! Owns the reading of a request line into an operation, a bucket and a key, before anything else looks at it.
//! What an operation does is not here.

use hyper::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

/// An S3 operation, as the server counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names are those of the S3 API
#[non_exhaustive]
pub enum Operation {
    ListBuckets,
    CreateBucket,
    HeadBucket,
    DeleteBucket,
    GetBucketLocation,
    ListObjects,
    ListObjectsV2,
    HeadObject,
    GetObject,
    PutObject,
    CopyObject,
    DeleteObject,
    DeleteObjects,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListParts,
    ListMultipartUploads,
    GetObjectTagging,
    PutObjectTagging,
    DeleteObjectTagging,
    RestoreObject,
    /// Anything the server does not know.
    Other,
}

/// A request as it is addressed: which operation on what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) operation: Operation,
    /// The key; for a listing its prefix; empty where there is neither.
    pub(super) key: String,
}

impl Address {
    /// Reads a path-style request.
    pub(super) fn read(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let query = Query(uri.query().unwrap_or_default());
        let path = uri.path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        if bucket.is_empty() {
            let operation = if method == Method::GET { Operation::ListBuckets } else { Operation::Other };
            return Self { operation, key: String::new() };
        }
        if key.is_empty() {
            return Self { operation: of_bucket(method, query), key: query.value("prefix").unwrap_or_default() };
        }
        let operation = of_object(method, query, headers.contains_key("x-amz-copy-source"));
        Self { operation, key: percent_decode_str(key).decode_utf8_lossy().into_owned() }
    }
}

fn of_bucket(method: &Method, query: Query<'_>) -> Operation {
    match *method {
        Method::PUT => Operation::CreateBucket,
        Method::HEAD => Operation::HeadBucket,
        Method::DELETE => Operation::DeleteBucket,
        Method::POST if query.has("delete") => Operation::DeleteObjects,
        Method::GET if query.has("location") => Operation::GetBucketLocation,
        Method::GET if query.has("uploads") => Operation::ListMultipartUploads,
        Method::GET if query.value("list-type").as_deref() == Some("2") => Operation::ListObjectsV2,
        Method::GET => Operation::ListObjects,
        _ => Operation::Other,
    }
}

fn of_object(method: &Method, query: Query<'_>, copies: bool) -> Operation {
    let (tagging, upload) = (query.has("tagging"), query.has("uploadId"));
    match *method {
        Method::HEAD => Operation::HeadObject,
        Method::GET if upload => Operation::ListParts,
        Method::GET if tagging => Operation::GetObjectTagging,
        Method::GET => Operation::GetObject,
        // A server that ignores this query takes the call for a PUT of an empty body and truncates the target.
        Method::PUT if query.has("renameObject") => Operation::Other,
        Method::PUT if upload && copies => Operation::UploadPartCopy,
        Method::PUT if upload => Operation::UploadPart,
        Method::PUT if tagging => Operation::PutObjectTagging,
        Method::PUT if copies => Operation::CopyObject,
        Method::PUT => Operation::PutObject,
        Method::DELETE if upload => Operation::AbortMultipartUpload,
        Method::DELETE if tagging => Operation::DeleteObjectTagging,
        Method::DELETE => Operation::DeleteObject,
        Method::POST if query.has("uploads") => Operation::CreateMultipartUpload,
        Method::POST if upload => Operation::CompleteMultipartUpload,
        Method::POST if query.has("restore") => Operation::RestoreObject,
        _ => Operation::Other,
    }
}

#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl Query<'_> {
    fn has(self, name: &str) -> bool {
        self.0.split('&').any(|pair| pair.split('=').next() == Some(name))
    }

    fn value(self, name: &str) -> Option<String> {
        self.0
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: Method, uri: &str) -> (Operation, String) {
        let uri = uri.parse().unwrap_or_default();
        let address = Address::read(&method, &uri, &HeaderMap::new());
        (address.operation, address.key)
    }

    #[test]
    fn the_key_of_an_object_is_decoded_and_that_of_a_listing_is_its_prefix() {
        assert_eq!(read(Method::GET, "/b/a%20b//c%2Bd"), (Operation::GetObject, "a b//c+d".into()));
        let listing = read(Method::GET, "/b?list-type=2&prefix=x%2Fy&delimiter=%2F");
        assert_eq!(listing, (Operation::ListObjectsV2, "x/y".into()));
        assert_eq!(read(Method::GET, "/b/?prefix=p"), (Operation::ListObjects, "p".into()));
    }

    #[test]
    fn rename_object_is_not_taken_for_a_put() {
        assert_eq!(read(Method::PUT, "/b/new?renameObject").0, Operation::Other);
        assert_eq!(read(Method::PUT, "/b/new?x-id=PutObject").0, Operation::PutObject);
    }
}
